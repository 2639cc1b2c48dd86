"""A detector's folder: its config, its checkpoint and the names of its classes.

A config `.py` is code, which MMDetection runs to read it: take it from where you would take a program.
Nothing is downloaded.
"""

from __future__ import annotations

import ast
import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.checkpoints import ModelFilesError, StateDict
from models.detector import old_libraries

WEIGHT_SUFFIXES = (".pth", ".safetensors")


@dataclass(frozen=True)
class DetectorFiles:
    """Where a detector's parts lie. metadata: Azure's `model_metadata.json`, if there is one."""

    config: Path
    checkpoint: Path
    metadata: Path | None

    @classmethod
    def find(cls, path: str | Path) -> DetectorFiles:
        """Find one config `.py` and one checkpoint.

        path: either file, with the other beside it; or a folder that holds both, itself or in its
        `artifacts` (Azure's MLflow folder); or a folder around exactly one such folder.
        Raises ModelFilesError that says what was looked for and what is there.
        """
        path = Path(path)
        if path.is_file():
            folder = path.parent
            configs, checkpoints = candidates(folder)
            if path.suffix == ".py":
                configs = [path]
            else:
                checkpoints = [path]
        elif path.is_dir():
            inner = sorted(child for child in path.iterdir() if child.is_dir())
            places = [place for place in (path, path / "artifacts") if all(candidates(place))] or [
                place for child in inner for place in (child, child / "artifacts") if all(candidates(place))
            ]
            if len(places) > 1:
                raise ModelFilesError(f"{path}: expected one detector, found {len(places)}: {_listed(places)}")
            folder = places[0] if places else path
            configs, checkpoints = candidates(folder)
        else:
            raise ModelFilesError(f"{path}: no such file or folder")
        if len(configs) != 1 or len(checkpoints) != 1:
            present = _listed(sorted(folder.iterdir())) or "nothing"
            raise ModelFilesError(
                f"{path}: looked for one config .py and one checkpoint ({' or '.join(WEIGHT_SUFFIXES)}) there, in its "
                f"artifacts folder and one folder further in; found {len(configs)} and {len(checkpoints)} in "
                f"{folder}, which holds {present}"
            )
        metadata = folder / "model_metadata.json"
        return cls(configs[0], checkpoints[0], metadata if metadata.is_file() else None)


def candidates(folder: Path) -> tuple[list[Path], list[Path]]:
    """What `DetectorFiles.find` takes for configs and for checkpoints, of what lies directly in a folder."""
    children = sorted(child for child in folder.iterdir() if child.is_file()) if folder.is_dir() else []
    return (
        [child for child in children if child.suffix == ".py" and not child.name.startswith("_")],
        [child for child in children if child.suffix in WEIGHT_SUFFIXES],
    )


def _listed(paths: Sequence[Path]) -> str:
    names = [path.name + "/" * path.is_dir() for path in paths]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def read_config(path: Path) -> Any:
    """The config with its `_base_` files; those that do not exist are taken from MMDetection's own config tree.

    Running the file is the only way to read it: it may compute, and mmengine executes it.
    """
    from mmengine.config import Config

    old_libraries.mend()
    try:
        source = path.read_text(encoding="utf-8")
        rebased = _rebased(source, path)
        if rebased == source:
            config = Config.fromfile(path)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                copied = Path(scratch) / path.name
                copied.write_text(rebased, encoding="utf-8")
                config = Config.fromfile(copied)
    except ModelFilesError:
        raise
    except Exception as error:  # the config is code and may fail in any way; the cause is kept
        raise ModelFilesError(f"{path}: cannot read the config: {error!r}") from error
    if "model" not in config:
        raise ModelFilesError(f"{path}: not an MMDetection config: it has no 'model'")
    return config


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

    tree = Path(mmdet.__file__).parent / ".mim" / "configs"
    tail = Path(*(part for part in Path(name).parts if part not in ("..", ".")))
    found = [tree / tail] if (tree / tail).is_file() else sorted(tree.glob(f"*/{tail}"))
    if len(found) != 1:
        raise ModelFilesError(
            f"{config}: its _base_ file {name!r} is neither beside it nor in MMDetection's own configs; "
            "save the config in full (mmengine's Config.dump) or bring the file"
        )
    return str(found[0])


def build_model(config: Any, path: Path) -> Any:
    """`build_trainable` for a single process, in which batch norms have nobody to synchronise with."""
    from mmengine.model.utils import revert_sync_batchnorm

    return revert_sync_batchnorm(build_trainable(config, path))


def build_trainable(config: Any, path: Path) -> Any:
    """The config's model with random weights. Pretrained ones that it wants fetched are forgotten; how its layers begin
    otherwise is as it says. Raises ModelFilesError."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    node = copy.deepcopy(config.model)
    forget_downloads(node)
    try:
        with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmdet")):
            return MODELS.build(node)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, ImportError) as error:
        raise ModelFilesError(f"{path}: cannot build the model: {error}") from error


def forget_downloads(node: Any) -> None:
    """Take the pretrained weights that it would fetch out of a model's config."""
    if isinstance(node, dict):
        if node.get("pretrained"):
            node["pretrained"] = None
        begins = node.get("init_cfg") or ()
        if any(one.get("type") == "Pretrained" for one in ([begins] if isinstance(begins, dict) else begins)):
            node["init_cfg"] = None
        for value in node.values():
            forget_downloads(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            forget_downloads(value)


def inference_pipeline(config: Any, path: Path) -> list[dict[str, Any]]:
    """The test pipeline with its first step, which loads a file, taking the image from memory instead."""
    node = config.get("test_dataloader", {}).get("dataset", {})
    while "pipeline" not in node and "dataset" in node:
        node = node["dataset"]
    steps = copy.deepcopy(node.get("pipeline") or config.get("test_pipeline"))
    if not steps:
        raise ModelFilesError(f"{path}: the config has neither a test_dataloader with a pipeline nor a test_pipeline")
    steps[0]["type"] = "LoadImageFromNDArray"
    return [step for step in steps if "LoadAnnotations" not in str(step["type"])]


def unprefixed(state_dict: StateDict) -> StateDict:
    """Without the name of a wrapper that all keys begin with (DistributedDataParallel's, a Hugging Face trainer's)."""
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in state_dict):
            state_dict = {key.removeprefix(prefix): tensor for key, tensor in state_dict.items()}
    return state_dict


def find_class_names(files: DetectorFiles, meta: dict[str, Any], config: Any, model: Any) -> tuple[str, ...]:
    """The first class names to be found, which must be as many as the model has classes."""
    head = getattr(model, "bbox_head", None) or getattr(getattr(model, "roi_head", None), "bbox_head", None)
    if isinstance(head, torch.nn.ModuleList):  # the stages of a cascade
        head = head[-1]
    num_classes = getattr(head, "num_classes", None)
    for source, names in _named_classes(files, meta, config):
        if num_classes is not None and len(names) != num_classes:
            raise ModelFilesError(f"{source} names {len(names)} classes, but {files.config} has {num_classes}")
        return names
    if num_classes == 80:
        from mmdet.evaluation import get_classes

        return tuple(get_classes("coco"))
    raise ModelFilesError(
        f"{files.config}: no names for its {num_classes} classes: looked in the checkpoint's meta, "
        "model_metadata.json and the config's metainfo"
    )


def _named_classes(files: DetectorFiles, meta: dict[str, Any], config: Any) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Class names with the file that says them, most trusted first."""
    places: list[tuple[Path, Any]] = [(files.checkpoint, meta.get("dataset_meta")), (files.checkpoint, meta)]
    if files.metadata is not None:
        try:
            places.append((files.metadata, json.loads(files.metadata.read_bytes())))
        except ValueError as error:
            raise ModelFilesError(f"{files.metadata} is not JSON: {error}") from error
    node = config.get("test_dataloader", {}).get("dataset")
    while node:
        places.append((files.config, node.get("metainfo")))
        node = node.get("dataset")
    places.append((files.config, config.get("metainfo")))
    for path, place in places:
        for key in ("classes", "CLASSES", "id2label"):
            names = place.get(key) if isinstance(place, dict) else None
            if isinstance(names, dict):  # {"0": "can", …}
                names = [names[index] for index in sorted(names, key=int)]
            if names:
                yield path, (names,) if isinstance(names, str) else tuple(names)
