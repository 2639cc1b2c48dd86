"""A Hugging Face model's folder, known by the `model_type` in its config.json."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from models.checkpoints import (
    CheckpointError,
    ModelFilesError,
    files_of,
    load_state_dict,
    read_json_object,
    weight_files,
)
from models.families import ModelFiles
from models.foreign_weights import whose

# Of these files, the ones that are there count: the second says how images are prepared, the third the same in
# transformers 5's form.
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json")


def find_folder(path: Path, model_types: Collection[str], name: str) -> Path:
    """The folder of one of these types at `path` or up to three folders further in; of a file, the folder around it.

    Azure's MLflow folder keeps it in `artifacts/INPUT_model_path`. name: of such models, for people. Raises
    ModelFilesError that says what was looked for and what is there.
    """
    if not path.exists():
        raise ModelFilesError(f"{path}: no such folder")
    place = path if path.is_dir() else path.parent
    for depth in range(4 if path.is_dir() else 1):
        found = sorted(file.parent for file in place.glob("*/" * depth + "config.json") if is_of(file, model_types))
        if len(found) > 1:
            raise ModelFilesError(f"{path}: expected one {name}, found {len(found)}: {', '.join(map(str, found))}")
        if found:
            return found[0]
    present = ", ".join(sorted(child.name for child in place.iterdir())[:20]) or "nothing"
    expected = repr(*model_types) if len(model_types) == 1 else f"one of {', '.join(model_types)}"
    raise ModelFilesError(
        f"{path}: looked for a config.json whose model_type is {expected}; found {present}{_instead(path, place)}"
    )


def _instead(path: Path, place: Path) -> str:
    """What is there in the place of such a model, as far as its config or its weights say that."""
    config = place / "config.json"
    if config.is_file():
        return f", where the model_type is {read_json_object(config).get('model_type')!r}"
    files = [path] if path.is_file() else weight_files(place)
    for file in files[:3]:
        try:
            known = whose(load_state_dict(file, lambda line: None)[0])
        except CheckpointError:
            continue
        if known:
            return f". {file.name}: {known}"
    return ""


def folders_below(root: Path, model_types: Collection[str]) -> set[Path]:
    """Every folder of one of these types at or below `root`. Raises ModelFilesError where a config.json is not JSON."""
    return {file.parent for file in root.rglob("config.json") if is_of(file, model_types)}


def weights_at(path: Path, folder: Path) -> Path:
    """What holds the weights of the model in `folder`: the file that `path` names, or else the folder."""
    return path if path.is_file() and path.name not in CONFIGS else folder


def folder_files(folder: Path, weights: Path) -> ModelFiles:
    """Configs and weights; of several forms of these the one that is read. Raises ModelFilesError."""
    configs = (folder / name for name in CONFIGS)
    return {file.name: file for file in (*filter(Path.is_file, configs), *files_of(weights))}


def is_of(config: Path, model_types: Collection[str]) -> bool:
    """Whether a config.json is that of such a model. Raises ModelFilesError where it is not JSON."""
    return read_json_object(config).get("model_type") in model_types
