"""A detector's folder: its config, its checkpoint, the model that they make and the names of its classes.

Nothing is downloaded.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoints import ModelFilesError, weight_files
from models.detector import backbones, language, single_image
from models.detector.huggingface.model_types import MODEL_TYPES
from models.detector.pipelines import unknown
from models.huggingface_folder import is_of
from models.model_errors import MissingOpError

WEIGHT_SUFFIXES = (".pth", ".safetensors")
# Where there is none of these: how other trainers call their files.
OTHER_SUFFIXES = (".pt", ".ckpt", ".bin", ".pth.tar")

_ADD_PREPROCESSOR = (
    "Add the one that the detector was trained with: data_preprocessor=dict(type='DetDataPreprocessor', mean=[…], "
    "std=[…], bgr_to_rgb=…, pad_size_divisor=…)"
)


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
                f"{folder}, which holds {present}{_way_out(folder, configs, checkpoints)}"
            )
        metadata = folder / "model_metadata.json"
        return cls(configs[0], checkpoints[0], metadata if metadata.is_file() else None)


def candidates(folder: Path) -> tuple[list[Path], list[Path]]:
    """What `DetectorFiles.find` takes for configs and for checkpoints, of what lies directly in a folder."""
    children = sorted(child for child in folder.iterdir() if child.is_file()) if folder.is_dir() else []
    configs = [child for child in children if child.suffix == ".py" and not child.name.startswith("_")]
    checkpoints = [child for child in children if child.suffix in WEIGHT_SUFFIXES]
    if configs and not checkpoints and not (folder / "config.json").is_file():  # not a model of Hugging Face's
        checkpoints = [child for child in weight_files(folder) if child.name.endswith(OTHER_SUFFIXES)]
    if configs and checkpoints and _is_hugging_faces(folder):  # which may have a handler.py beside its weights
        return [], []
    return configs, checkpoints


def _is_hugging_faces(folder: Path) -> bool:
    """Whether it is a folder of one of Hugging Face's detectors."""
    config = folder / "config.json"
    try:
        return config.is_file() and is_of(config, MODEL_TYPES)
    except ModelFilesError:  # damaged, and so of nobody
        return False


def _way_out(folder: Path, configs: list[Path], checkpoints: list[Path]) -> str:
    """Where one of the two is there once and the other more often: that naming one of those is enough."""
    if _is_hugging_faces(folder):
        return ". This is one of Hugging Face's detectors, which are served, but not trained here"
    if len(configs) == 1 and len(checkpoints) > 1:
        return f". Name the checkpoint that you mean, not the folder: {checkpoints[-1]}"
    if len(checkpoints) == 1 and len(configs) > 1:
        return f". Name the config that you mean, not the folder: {configs[-1]}"
    return ""


def _listed(paths: Sequence[Path]) -> str:
    names = [path.name + "/" * path.is_dir() for path in paths]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def build_model(config: Any, path: Path) -> Any:
    """`build_trainable` without what only training asks for, for a single process, in which batch norms have nobody to
    synchronise with."""
    from mmengine.model.utils import revert_sync_batchnorm

    config = copy.deepcopy(config)
    single_image.without_training(config.model)
    return revert_sync_batchnorm(build_trainable(config, path))


def build_trainable(config: Any, path: Path) -> Any:
    """The config's model with random weights. Pretrained ones that it wants fetched are forgotten; how its layers begin
    otherwise is as it says. Raises ModelFilesError."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    node = copy.deepcopy(config.model)
    forget_downloads(node)
    language.from_folder(node, path)
    backbones.use_ours(node)
    try:
        with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmdet")):
            model = MODELS.build(node)
    except (MissingOpError, ModelFilesError):
        raise
    except Exception as error:  # a config may name any class with any arguments; the cause is kept
        raise ModelFilesError(f"{path}: cannot build the model: {unknown(error)}") from error
    from mmdet.models.data_preprocessors import DetDataPreprocessor
    from mmdet.models.dense_heads import SSDHead
    from mmdet.models.detectors.base import BaseDetector

    if not isinstance(model, BaseDetector):
        raise ModelFilesError(f"{path}: expected a detector, but its model is a {type(model).__name__}")
    if "data_preprocessor" not in config.model:
        raise ModelFilesError(
            f"{path}: its model has no data_preprocessor, which says how images are normalised. {_ADD_PREPROCESSOR}"
        )
    head = getattr(model, "bbox_head", None)
    if isinstance(head, SSDHead) and not hasattr(head, "loss_cls"):  # which mmdet 3.3.0 asks it for after the network
        head.loss_cls = None
    if not isinstance(model.data_preprocessor, DetDataPreprocessor):
        raise ModelFilesError(
            f"{path}: its data_preprocessor: expected a DetDataPreprocessor, "
            f"got {type(model.data_preprocessor).__name__}"
        )
    return model


def forget_downloads(node: Any) -> None:
    """Take the pretrained weights that it would fetch out of a model's config."""
    if isinstance(node, dict):
        if node.get("pretrained"):
            node["pretrained"] = None
        begins = node.get("init_cfg") or ()
        if any(_is_pretrained(one) for one in ([begins] if isinstance(begins, dict) else begins)):
            node["init_cfg"] = None
        for value in node.values():
            forget_downloads(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            forget_downloads(value)


def _is_pretrained(init: Any) -> bool:
    """Whether an init_cfg fetches weights; its type is a name, or in the read_base style the class itself. Some (PVT's)
    have none."""
    if isinstance(init, dict) and init.get("checkpoint"):
        return True
    kind = init.get("type") if isinstance(init, dict) else None
    return str(getattr(kind, "__name__", kind)).split(".")[-1] in ("Pretrained", "PretrainedInit")


def find_class_names(files: DetectorFiles, meta: dict[str, Any], config: Any, model: Any) -> tuple[str, ...]:
    """The first class names to be found, which must be as many as the model has classes."""
    if type(model).__name__ == "RPN":  # it proposes boxes, whatever is in them
        return ("object",)
    num_classes = single_image.class_count(model)
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
    loader = config.get("test_dataloader")
    node = loader.get("dataset") if isinstance(loader, dict) else None
    while isinstance(node, dict):
        places.append((files.config, node.get("metainfo")))
        node = node.get("dataset")
    places.append((files.config, config.get("metainfo")))
    for path, place in places:
        # The first: a panoptic data set's, without stuff.
        for key in ("thing_classes", "classes", "CLASSES", "id2label"):
            names = place.get(key) if isinstance(place, dict) else None
            if isinstance(names, dict):  # {"0": "can", …}
                try:
                    names = [names[index] for index in sorted(names, key=int)]
                except (ValueError, TypeError) as error:
                    raise ModelFilesError(f"{path}: {key}: expected names by number, got {names!r:.80}") from error
            if names:
                names = (names,) if isinstance(names, str) else names
                if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
                    raise ModelFilesError(f"{path}: {key}: expected the names of classes, got {names!r:.80}")
                yield path, tuple(names)
