"""A Hugging Face segmenter's folder, known by the `model_type` in its config.json."""

from __future__ import annotations

from pathlib import Path

from models.checkpoints import ModelFilesError, files_of, read_json_object
from models.families import ModelFiles


def find_folder(path: Path, model_type: str) -> Path:
    """The folder of this type at `path` or within it, up to three folders further in.

    Azure's MLflow folder keeps it in `artifacts/INPUT_model_path`. Raises ModelFilesError that says what was looked
    for and what is there.
    """
    if not path.is_dir():
        raise ModelFilesError(f"{path}: no such folder")
    for depth in range(4):
        found = sorted(file.parent for file in path.glob("*/" * depth + "config.json") if is_of(file, model_type))
        if len(found) > 1:
            raise ModelFilesError(
                f"{path}: expected one {model_type.upper()}, found {len(found)}: {', '.join(map(str, found))}"
            )
        if found:
            return found[0]
    present = ", ".join(sorted(child.name for child in path.iterdir())[:20]) or "nothing"
    raise ModelFilesError(f"{path}: looked for a config.json whose model_type is {model_type!r}; found {present}")


def folders_below(root: Path, model_type: str) -> set[Path]:
    """Every folder of this type at or below `root`. Raises ModelFilesError where a config.json is not JSON."""
    return {file.parent for file in root.rglob("config.json") if is_of(file, model_type)}


def folder_files(folder: Path) -> ModelFiles:
    """Configs and weights; of several forms of these the one that is read. Raises ModelFilesError."""
    configs = (folder / "config.json", folder / "preprocessor_config.json")
    return {file.name: file for file in (*filter(Path.is_file, configs), *files_of(folder))}


def is_of(config: Path, model_type: str) -> bool:
    """Whether a config.json is that of such a model. Raises ModelFilesError where it is not JSON."""
    return read_json_object(config).get("model_type") == model_type
