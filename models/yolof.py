"""Detector: an MMDetection config and checkpoint, as three steps from an RGB image to its boxes.

It serves YOLOF, and any other detector of MMDetection's zoo whose ops are there. A config `.py` is
code, which MMDetection runs to read it: take it from where you would take a program. A checkpoint is
data and is only ever read as such. Nothing is downloaded. This module knows nothing of requests.
"""

from __future__ import annotations

import ast
import copy
import inspect
import json
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from models import mmcv_ops
from models.checkpoints import ModelFilesError, StateDict, load_into, load_state_dict
from models.types import Detections

ChannelOrder = Literal["bgr", "rgb"]
T = TypeVar("T")

WEIGHT_SUFFIXES = (".pth", ".safetensors")
# Wider or taller than this, mmcv's resize would round the short side to no pixel at all.
MAX_ASPECT = 256


@dataclass(frozen=True, eq=False)
class Sample:
    """One image as the network wants it, on the CPU.

    inputs: (3, h, w) uint8, resized, neither normalised nor padded.
    metainfo: what MMDetection notes of the way here (`img_shape`, `scale_factor`, …).
    size_hw: the image's own size. stretch_xy: how often its columns and rows were repeated before.
    """

    inputs: torch.Tensor
    metainfo: dict[str, Any]
    size_hw: tuple[int, int]
    stretch_xy: tuple[int, int]


@dataclass(frozen=True, eq=False)
class RawDetections:
    """What the network said about one image, on the CPU in float32, before thresholds.

    Exactly one of the two is there. head: for each output of a dense head its levels, (1, C, h, w)
    each. found: (boxes_xyxy (N, 4), scores (N,), labels (N,)) of a detector that selects on the way.
    """

    sample: Sample
    head: tuple[list[torch.Tensor], ...] | None = None
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None


class Detector:
    """A loaded detector; make one with `Detector.load`.

    class_names: the name of each label. channel_order: how images reach the network. input_scale:
    the (long, short) sides in pixels that images are resized to fit, or None if they are not.
    `preprocess` and `postprocess` may run in any number of threads beside one `forward`.
    """

    def __init__(
        self,
        model: Any,
        pipeline: list[dict[str, Any]],
        class_names: tuple[str, ...],
        channel_order: ChannelOrder = "bgr",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """model: a built mmdet detector. pipeline: the steps of its config's test pipeline."""
        if channel_order not in ("bgr", "rgb"):
            raise ValueError(f"channel_order: expected 'bgr' or 'rgb', got {channel_order!r}")
        from mmdet.registry import TRANSFORMS

        self.class_names = class_names
        self.channel_order = channel_order
        self.device = torch.device(device)
        self.dtype = dtype
        scales = [step["scale"] for step in pipeline if isinstance(step.get("scale"), (tuple, list))]
        self.input_scale = (max(scales[0]), min(scales[0])) if scales else None
        self._transforms = [TRANSFORMS.build(step) for step in pipeline]
        self._model = model.to(self.device).eval()
        self._dense = _is_dense(model)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        channel_order: ChannelOrder = "bgr",
    ) -> Detector:
        """Load a folder, or one of its two files: see DetectorFiles.find.

        dtype: float32, or bfloat16 or float16 for autocast. channel_order: "bgr" is what MMDetection
        feeds its models; "rgb" repeats the swap of Azure's deployed wrapper.
        Raises ModelFilesError, or its CheckpointError, if the files make no detector; mmcv_ops's
        MissingOpError comes from `forward` at the earliest.
        """
        files = DetectorFiles.find(path)
        with _quiet():
            mmcv_ops.install()
            config = _read_config(files.config)
            model = _build(config, files.config)
            state_dict, meta = load_state_dict(files.checkpoint)
            # BatchNorm's counters matter to no inference, and old checkpoints lack them.
            load_into(model, _unprefixed(state_dict), files.checkpoint, ignore=["*num_batches_tracked"])
            class_names = _class_names(files, meta, config, model)
            return cls(model, _pipeline(config, files.config), class_names, channel_order, device, dtype)

    def preprocess(self, image: np.ndarray) -> Sample:
        """(H, W, 3) uint8 RGB -> Sample, by the config's own test pipeline, on the CPU.

        Images more than MAX_ASPECT times as long as wide get their short side repeated first.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        stretch_xy = math.ceil(height / width / MAX_ASPECT), math.ceil(width / height / MAX_ASPECT)
        for axis, times in ((1, stretch_xy[0]), (0, stretch_xy[1])):
            if times > 1:
                image = np.repeat(image, times, axis)
        if self.channel_order == "bgr":
            image = image[..., ::-1]
        results: dict[str, Any] = {"img": np.ascontiguousarray(image), "img_id": 0}
        for transform in self._transforms:
            results = transform(results)
        return Sample(results["inputs"], results["data_samples"].metainfo, (height, width), stretch_xy)

    @torch.inference_mode()
    def forward(self, samples: Sequence[Sample]) -> list[RawDetections]:
        """Run the network on the device; one result per sample, in order.

        Samples share a batch where they pad to the same shape: padding further would change the
        results, as a network sees its padding.
        """
        by_shape: dict[tuple[int, ...], list[int]] = {}
        divisor = getattr(self._model.data_preprocessor, "pad_size_divisor", 1)
        for index, sample in enumerate(samples):
            shape = tuple(math.ceil(side / divisor) for side in sample.inputs.shape[1:])
            by_shape.setdefault(shape, []).append(index)
        outcome: dict[int, RawDetections] = {}
        for indices in by_shape.values():
            outcome.update(zip(indices, self._forward_batch([samples[index] for index in indices]), strict=True))
        return [outcome[index] for index in range(len(samples))]

    def _forward_batch(self, samples: list[Sample]) -> list[RawDetections]:
        from mmdet.structures import DetDataSample

        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            batch = self._model.data_preprocessor(
                {
                    "inputs": [sample.inputs for sample in samples],
                    "data_samples": [DetDataSample(metainfo=sample.metainfo) for sample in samples],
                },
                False,
            )
            if self._dense:
                outputs = self._model(**batch, mode="tensor")
            else:
                found = [result.pred_instances for result in self._model(**batch, mode="predict")]
        if self._dense:
            on_cpu = [[level.float().cpu() for level in output] for output in outputs]
            return [
                RawDetections(sample, head=tuple([level[i : i + 1] for level in output] for output in on_cpu))
                for i, sample in enumerate(samples)
            ]
        return [
            RawDetections(sample, found=(one.bboxes.float().cpu(), one.scores.float().cpu(), one.labels.cpu()))
            for sample, one in zip(samples, found, strict=True)
        ]

    @torch.inference_mode()
    def postprocess(
        self,
        raw: RawDetections,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
    ) -> Detections:
        """Decode, filter and suppress one image's boxes, on the CPU.

        score_threshold: keep what scores strictly above it. iou_threshold: of boxes of one class that
        overlap strictly more, keep the best. max_detections: then keep this many. None takes the
        config's own value. A detector that selects on the way (two stages, queries) has applied its
        config's values already, so there these can only narrow the choice.
        """
        if raw.found is None:
            boxes, scores, labels = self._decode(raw, score_threshold, iou_threshold, max_detections)
        else:
            boxes, scores, labels = raw.found
            if iou_threshold is not None and len(boxes):
                from mmcv.ops import batched_nms

                _, kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": iou_threshold})
                boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if score_threshold is not None:
            above = scores > score_threshold
            boxes, scores, labels = boxes[above], scores[above], labels[above]
        best = torch.argsort(scores, descending=True, stable=True)[:max_detections]

        height, width = raw.sample.size_hw
        boxes_xyxy = boxes[best].numpy() / np.array(raw.sample.stretch_xy * 2, dtype=np.float32)
        return Detections(
            boxes_xyxy=boxes_xyxy.clip(0, np.array([width, height] * 2, dtype=np.float32)),
            scores=scores[best].numpy(),
            labels=labels[best].numpy(),
            size_hw=raw.sample.size_hw,
        )

    def _decode(
        self,
        raw: RawDetections,
        score_threshold: float | None,
        iou_threshold: float | None,
        max_detections: int | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """mmdet's own selection, with this image's settings in a copy of the config's."""
        head = self._model.bbox_head
        cfg = copy.deepcopy(head.test_cfg)
        if score_threshold is not None:
            cfg.score_thr = score_threshold
        if iou_threshold is not None and cfg.get("nms"):
            cfg.nms.pop("iou_thr", None)  # its older name
            cfg.nms.iou_threshold = iou_threshold
        if max_detections is not None:
            cfg.max_per_img = max_detections
        outputs = raw.head or ()
        (result,) = head.predict_by_feat(*outputs, batch_img_metas=[raw.sample.metainfo], cfg=cfg, rescale=True)
        return result.bboxes, result.scores, result.labels

    def detect(
        self,
        images: Sequence[np.ndarray],
        *,
        score_threshold: float | Sequence[float | None] | None = None,
        iou_threshold: float | Sequence[float | None] | None = None,
        max_detections: int | Sequence[int | None] | None = None,
    ) -> list[Detections]:
        """All three steps for (H, W, 3) uint8 RGB images of any sizes; as each alone would give.

        Each setting is one value for all images or a list with one per image; see `postprocess`.
        """
        settings = zip(
            _per_image(score_threshold, len(images)),
            _per_image(iou_threshold, len(images)),
            _per_image(max_detections, len(images)),
            strict=True,
        )
        raws = self.forward([self.preprocess(image) for image in images])
        return [
            self.postprocess(raw, score_threshold=score, iou_threshold=iou, max_detections=most)
            for raw, (score, iou, most) in zip(raws, settings, strict=True)
        ]


def _per_image(value: T | Sequence[T | None] | None, count: int) -> Sequence[T | None]:
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"expected one setting per image ({count}), got {len(value)}")
    return value


def _is_dense(model: Any) -> bool:
    """Whether thresholds and suppression can follow the network: true of YOLOF and most one-stage detectors."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.detectors import SingleStageDetector

    return (
        isinstance(model, SingleStageDetector)
        and type(model).predict is SingleStageDetector.predict
        and type(model)._forward is SingleStageDetector._forward
        and isinstance(model.bbox_head, BaseDenseHead)
        and type(model.bbox_head).predict is BaseDenseHead.predict
        and "cfg" in inspect.signature(model.bbox_head.predict_by_feat).parameters
    )


# --- files -------------------------------------------------------------------------------------------


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
            configs, checkpoints = _candidates(folder)
            if path.suffix == ".py":
                configs = [path]
            else:
                checkpoints = [path]
        elif path.is_dir():
            inner = sorted(child for child in path.iterdir() if child.is_dir())
            places = [place for place in (path, path / "artifacts") if all(_candidates(place))] or [
                place for child in inner for place in (child, child / "artifacts") if all(_candidates(place))
            ]
            if len(places) > 1:
                raise ModelFilesError(f"{path}: expected one detector, found {len(places)}: {_listed(places)}")
            folder = places[0] if places else path
            configs, checkpoints = _candidates(folder)
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


def _candidates(folder: Path) -> tuple[list[Path], list[Path]]:
    """The configs and the checkpoints that lie directly in a folder."""
    children = sorted(child for child in folder.iterdir() if child.is_file()) if folder.is_dir() else []
    return (
        [child for child in children if child.suffix == ".py" and not child.name.startswith("_")],
        [child for child in children if child.suffix in WEIGHT_SUFFIXES],
    )


def _listed(paths: Sequence[Path]) -> str:
    names = [path.name + "/" * path.is_dir() for path in paths]
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _read_config(path: Path) -> Any:
    """The config with its `_base_` files; those that do not exist are taken from MMDetection's own config tree.

    Running the file is the only way to read it: it may compute, and mmengine executes it.
    """
    from mmengine.config import Config

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


def _build(config: Any, path: Path) -> Any:
    """The model with random weights, and without the pretrained ones that its config may want fetched."""
    from mmdet.registry import MODELS
    from mmengine.model.utils import revert_sync_batchnorm
    from mmengine.registry import DefaultScope

    _forget_pretrained(config.model)
    try:
        with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmdet")):
            model = MODELS.build(config.model)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, ImportError) as error:
        raise ModelFilesError(f"{path}: cannot build the model: {error}") from error
    return revert_sync_batchnorm(model)


def _forget_pretrained(node: Any) -> None:
    if isinstance(node, dict):
        for key in ("init_cfg", "pretrained"):
            if node.get(key):
                node[key] = None
        for value in node.values():
            _forget_pretrained(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _forget_pretrained(value)


def _pipeline(config: Any, path: Path) -> list[dict[str, Any]]:
    """The test pipeline with its first step, which loads a file, taking the image from memory instead."""
    node = config.get("test_dataloader", {}).get("dataset", {})
    while "pipeline" not in node and "dataset" in node:
        node = node["dataset"]
    steps = copy.deepcopy(node.get("pipeline") or config.get("test_pipeline"))
    if not steps:
        raise ModelFilesError(f"{path}: the config has neither a test_dataloader with a pipeline nor a test_pipeline")
    steps[0]["type"] = "LoadImageFromNDArray"
    return [step for step in steps if "LoadAnnotations" not in str(step["type"])]


def _unprefixed(state_dict: StateDict) -> StateDict:
    """Without the name of a wrapper that all keys begin with (DistributedDataParallel's, a Hugging Face trainer's)."""
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in state_dict):
            state_dict = {key.removeprefix(prefix): tensor for key, tensor in state_dict.items()}
    return state_dict


def _class_names(files: DetectorFiles, meta: dict[str, Any], config: Any, model: Any) -> tuple[str, ...]:
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MMDetection's deprecation warnings, which its user can do nothing about, from the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
