"""A detector's config as MMEngine reads it, in full; a sentence where it is of another version or lacks its base files.

A config `.py` is code, which MMEngine runs to read it: take it from where you would take a program. Nothing is
downloaded.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoints import ModelFilesError
from models.detector import backbones, old_libraries, single_image

# Steps of a test pipeline that MMDetection has had up to 2.x alone, and keys of a config.
_OLD_STEPS = frozenset({"MultiScaleFlipAug", "DefaultFormatBundle", "ImageToTensor", "Collect"})
_TO_3 = (
    "Take the 3.x config of the same detector from MMDetection's configs/ and set your classes and sizes in it; the "
    "checkpoint may stay. https://mmdetection.readthedocs.io/en/latest/migration/config_migration.html shows what was "
    "renamed"
)
_OLD_DATA = ("samples_per_gpu", "train", "val", "test")


def read_config(path: Path) -> Any:
    """The config with its `_base_` files; those that do not exist are taken from MMDetection's own config tree.

    Running the file is the only way to read it: it may compute, and mmengine executes it. Raises ModelFilesError.
    """
    from mmengine.config import Config

    old_libraries.mend()
    source = ""
    try:
        source = path.read_text(encoding="utf-8")
        rebased = _rebased(source, path)
        if rebased == source:
            config = Config.fromfile(path, import_custom_modules=False)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                copied = Path(scratch) / path.name
                copied.write_text(rebased, encoding="utf-8")
                config = Config.fromfile(copied, import_custom_modules=False)
        backbones.import_modules(config, path)
    except ModelFilesError:
        raise
    except Exception as error:  # the config is code and may fail in any way; the cause is kept
        way = f". {_in_full(path)}" if has_bases(source) else ""
        if isinstance(error, ImportError) and "custom_imports" in source:
            way = ". The modules of its custom_imports must be installed, or be in a folder of PYTHONPATH"
        raise ModelFilesError(f"{path}: cannot read the config: {_reason(error)}{way}") from error
    _check(config, path)
    if isinstance(config.get("data_preprocessor"), Mapping):  # as MMEngine's Runner completes the model
        config.model.setdefault("data_preprocessor", config.data_preprocessor)
    single_image.reduce(config, path)
    return config


def has_bases(source: str) -> bool:
    """Whether a config's text names others that it is completed by: with `_base_`, or imports under `read_base()`."""
    return "_base_" in source or "read_base" in source


def test_pipeline_of(config: Any) -> Any:
    """The test pipeline that a config names, in the place that MMDetection's own inference takes it from; or None."""
    node = config.get("test_dataloader")
    node = node[0] if isinstance(node, (list, tuple)) and node else node
    node = node.get("dataset") if isinstance(node, Mapping) else None
    while isinstance(node, Mapping) and "pipeline" not in node:
        several = node.get("datasets")
        node = node.get("dataset") or (several[0] if isinstance(several, (list, tuple)) and several else None)
    return (node.get("pipeline") if isinstance(node, Mapping) else None) or config.get("test_pipeline")


def _check(config: Any, path: Path) -> None:
    """Raises ModelFilesError for a config that is none of MMDetection 3.x."""
    if "model" not in config:
        raise ModelFilesError(f"{path}: not an MMDetection config: it has no 'model'")
    if not isinstance(config.model, Mapping):
        raise ModelFilesError(f"{path}: model: expected a dict, got {type(config.model).__name__}")
    old = _of_old_version(config)
    if old:
        raise ModelFilesError(
            f"{path}: this config is of MMDetection 2.x: it has {old}, which 3.x does not know. {_TO_3}"
        )


def _of_old_version(config: Any) -> str | None:
    """What shows that a config is of MMDetection 2.x or older."""
    data = config.get("data")
    tested = data.get("test") if isinstance(data, Mapping) else None
    steps = test_pipeline_of(config) or (tested.get("pipeline") if isinstance(tested, Mapping) else None) or ()
    for step in steps if isinstance(steps, (list, tuple)) else ():
        kind = step.get("type") if isinstance(step, Mapping) else None
        name = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
        if name.split(".")[-1] in _OLD_STEPS:
            return f"the step '{name}' in its test pipeline"
    if isinstance(data, Mapping) and any(key in data for key in _OLD_DATA):
        return f"data = dict({next(key for key in _OLD_DATA if key in data)}=…)"
    return None


def _reason(error: Exception) -> str:
    root = error.__cause__ or error
    return f"{type(root).__name__}: {(str(root).strip() or type(error).__name__).splitlines()[0]}"


def _in_full(path: Path) -> str:
    return (
        "Where the files are that it is based on, write it in full and take that file: "
        f"python -c \"from mmengine.config import Config; Config.fromfile('{path.name}').dump('full.py')\""
    )


def _rebased(source: str, path: Path) -> str:
    """A config's source; if a `_base_` file of it is missing, with all of them as absolute paths."""
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Assign) or ast.unparse(statement.targets[0]) != "_base_":
            continue
        names = ast.literal_eval(statement.value)
        names = [names] if isinstance(names, str) else names
        if all("::" in name or (path.parent / name).is_file() for name in names):
            break
        segment = ast.get_source_segment(source, statement)
        assert segment is not None
        return source.replace(segment, f"_base_ = {[_base_file(name, path) for name in names]!r}", 1)
    return source


def _base_file(name: str, config: Path) -> str:
    if "::" in name:  # mmengine's own form for a file in a package
        return name
    if (config.parent / name).is_file():
        return str((config.parent / name).resolve())
    import mmdet

    if not name.endswith((".py", ".json", ".yaml", ".yml")):  # as three configs of the zoo's SORT have it
        return _base_file(f"{name}.py", config)
    tree = Path(mmdet.__file__).parent / ".mim" / "configs"
    tail = Path(*(part for part in Path(name).parts if part not in ("..", ".")))
    found = [tree / tail] if (tree / tail).is_file() else sorted(tree.glob(f"*/{tail}"))
    if len(found) != 1:
        raise ModelFilesError(
            f"{config}: its _base_ file {name!r} is neither beside it nor in MMDetection's own configs. "
            f"{_in_full(config)}"
        )
    return str(found[0])
