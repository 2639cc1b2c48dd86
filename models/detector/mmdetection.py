"""MMDetector: an MMDetection config and checkpoint, as three steps from an RGB image to its boxes, masks too if it has.

It serves YOLOF, and any other detector of MMDetection's zoo whose ops are there. This module knows nothing
of requests, and leaves what lies in a detector's folder to `models.detector.files`.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from models.checkpoints import load_into, load_state_dict
from models.detector import conv_fusion, language, mask_pasting, mmcv_ops
from models.detector.batches import in_batches
from models.detector.configs import has_bases, read_config
from models.detector.files import (
    OTHER_SUFFIXES,
    WEIGHT_SUFFIXES,
    DetectorFiles,
    build_model,
    candidates,
    find_class_names,
)
from models.detector.instance_masks import (
    InstanceMasks,
    has_masks,
    in_network_frame,
    is_large,
    keep_small,
)
from models.detector.known_normalizing import KnownNormalizing
from models.detector.known_resize import KnownResize
from models.detector.mmdet_values import Found, RawDetections, Sample, found_of, mapped
from models.detector.pipelines import inference_pipeline
from models.detector.places import Places
from models.detector.protocol import ChannelOrder
from models.detector.single_image import LEFT_OFF
from models.detector.thresholds import kept
from models.families import ModelFiles
from models.model_errors import say_once
from models.types import Detections, Exemplars, check_rgb
from models.wrappers import unwrapped

T = TypeVar("T")

# Wider or taller than this, mmcv's resize would round the short side to no pixel at all.
MAX_ASPECT = 256


class MMDetector:
    """A loaded detector; make one with `MMDetector.load`. It is a `models.detector.protocol.Detector`.

    class_names: the name of each label; () where `takes_texts`. channel_order: how images reach the network.
    input_scale: the (long, short) sides in pixels that images are resized to fit, or None if they are not. fast:
    whether shortcuts are taken where the parts are known ones (see `models.detector.conv_fusion`), with the same
    results but for rounding; else MMDetection's own code does it all.
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
        fast: bool = True,
        autocast: bool = True,
    ) -> None:
        """model: a built mmdet detector, changed in place if `fast`. pipeline: its config's test pipeline."""
        if channel_order not in ("bgr", "rgb"):
            raise ValueError(f"channel_order: expected 'bgr' or 'rgb', got {channel_order!r}")
        from mmdet.registry import TRANSFORMS

        self.class_names = class_names
        self.channel_order = channel_order
        self.device = torch.device(device)
        self.dtype = dtype
        scales = [step["scale"] for step in pipeline if isinstance(step.get("scale"), (tuple, list))]
        self.input_scale = (max(scales[0]), min(scales[0])) if scales else None
        self.fast = fast
        self._transforms = [TRANSFORMS.build(step) for step in pipeline]
        self._resize = KnownResize.find(self._transforms) if fast else None
        self._places = Places.of(model.eval())
        self._model = model.to(self.device)
        self._dense = _is_dense(model)
        self.has_masks = has_masks(model)
        self.takes_exemplars = False
        self.takes_texts = language.takes_texts(model)
        self._mask_threshold = keep_small(model) if fast else None
        self._autocast = False
        if not (fast and conv_fusion.fuse(self._model, dtype)) and dtype != torch.float32:
            self._autocast = autocast
            if not autocast:
                self.dtype = torch.float32
                if fast:
                    conv_fusion.fuse(self._model, torch.float32)
        first = conv_fusion.first_convolution(self._model)
        known = first is not None and self._resize is not None  # whose images are bytes
        self._normalizing = KnownNormalizing.find(model.data_preprocessor) if known else None
        self._pixels_dtype = first.weight.dtype if first is not None else torch.float32

    @classmethod
    def find(cls, path: Path) -> Path:
        """The folder with config and checkpoint: see DetectorFiles.find. Raises ModelFilesError."""
        return DetectorFiles.find(path).config.parent

    @classmethod
    def folders_below(cls, root: Path) -> set[Path]:
        """Every folder at or below `root` with both a config .py and a checkpoint."""
        suffixes = (*WEIGHT_SUFFIXES, *OTHER_SUFFIXES)
        folders = {file.parent for suffix in suffixes for file in root.rglob(f"*{suffix}")}
        return {folder for folder in folders if all(candidates(folder))}

    @classmethod
    def files(cls, path: Path) -> ModelFiles:
        """Config, checkpoint, metadata and what its language model is made from; a config with bases is written out.

        Raises ModelFilesError.
        """
        found = DetectorFiles.find(path)
        files: ModelFiles = {found.config.name: found.config, found.checkpoint.name: found.checkpoint}
        source = found.config.read_text(encoding="utf-8", errors="replace")
        if has_bases(source) or "language_model" in source:
            config = read_config(found.config)
            files |= language.language_files(config, found.config)
            if has_bases(source):  # files that lie elsewhere
                files[found.config.name] = config.pretty_text.encode()
        if found.metadata is not None:
            files[found.metadata.name] = found.metadata
        return files

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        channel_order: ChannelOrder = "bgr",
        fast: bool = True,
        autocast: bool = True,
    ) -> MMDetector:
        """Load a folder, or one of its two files: see DetectorFiles.find.

        dtype: float32, or bfloat16 or float16 to compute in where that keeps the results close. autocast: False
        leaves a network in float32 that is not known well enough to be converted as a whole.
        channel_order: "bgr" is what MMDetection feeds its models; "rgb" repeats the swap of Azure's deployed
        wrapper. fast: False for MMDetection's own code throughout, which takes more time and less memory.
        Raises ModelFilesError, or its CheckpointError, if the files make no detector; mmcv_ops's
        MissingOpError comes from `forward` at the earliest.
        """
        files = DetectorFiles.find(path)
        with _quiet():
            mmcv_ops.install()
            mask_pasting.install()
            config = read_config(files.config)
            model = build_model(config, files.config)
            state_dict, meta = load_state_dict(files.checkpoint)
            # BatchNorm's counters matter to no inference, and old checkpoints lack them.
            state_dict = unwrapped(state_dict, model.state_dict(), files.checkpoint, say_once)
            load_into(
                model, state_dict, files.checkpoint, ignore=["*num_batches_tracked", *LEFT_OFF, *language.LEFT_OFF]
            )
            is_open = language.takes_texts(model)
            class_names = () if is_open else find_class_names(files, meta, config, model)
            pipeline = inference_pipeline(config, files.config)
            return cls(model, pipeline, class_names, channel_order, device, dtype, fast, autocast)

    def preprocess(self, image: np.ndarray, texts: Sequence[str] = (), exemplars: Exemplars | None = None) -> Sample:
        """(H, W, 3) uint8 RGB -> Sample, as by the config's own test pipeline, on the CPU.

        Images more than MAX_ASPECT times as long as wide get their short side repeated first. texts: what to find, for
        a detector that takes them. Raises TextsError for texts that it cannot read.
        """
        check_rgb(image)
        asked = language.asked(self._model, texts) if self.takes_texts else {}
        height, width = image.shape[:2]
        stretch_xy = math.ceil(height / width / MAX_ASPECT), math.ceil(width / height / MAX_ASPECT)
        for axis, times in ((1, stretch_xy[0]), (0, stretch_xy[1])):
            if times > 1:
                image = np.repeat(image, times, axis)
        if self._resize is not None:
            inputs, metainfo = self._resize(image, self.channel_order)
        else:
            if self.channel_order == "bgr":
                image = image[..., ::-1]
            results: dict[str, Any] = {"img": np.ascontiguousarray(image), "img_id": 0}
            for transform in self._transforms:
                results = transform(results)
            inputs, metainfo = results["inputs"], results["data_samples"].metainfo
        if self._places is not None:
            inputs = self._places.enough(inputs)
        return Sample(inputs, self._framed(metainfo) | asked, (height, width), stretch_xy)

    def _framed(self, metainfo: dict[str, Any]) -> dict[str, Any]:
        """With masks of the size that the network sees, where those of the image's would be too much at once."""
        if self.fast and self.has_masks and self._mask_threshold is None and is_large(metainfo["ori_shape"]):
            return in_network_frame(metainfo)
        return metainfo

    @torch.inference_mode()
    def forward(self, samples: Sequence[Sample], between: Callable[[], None] | None = None) -> list[RawDetections]:
        """Run the network on the device; one result per sample, in order. Samples share a batch where they pad to the
        same shape and the same texts are to be found. between: see `in_batches`."""
        divisor = getattr(self._model.data_preprocessor, "pad_size_divisor", 1)
        alone = language.is_chunked(self._model)

        def padded(sample: Sample) -> tuple[tuple[Hashable, ...], int]:
            height, width = (math.ceil(side / divisor) * divisor for side in sample.inputs.shape[1:])
            return (height, width, sample.metainfo.get("text"), alone and id(sample)), height * width

        return in_batches(
            self._model, samples, padded, self._forward_batch, between, device=self.device, limited=self.fast
        )

    def _forward_batch(self, samples: list[Sample]) -> list[RawDetections]:
        from mmdet.structures import DetDataSample

        with mmcv_ops.using(fast=self.fast), torch.autocast(self.device.type, self.dtype, enabled=self._autocast):
            inputs = [sample.inputs for sample in samples]
            if self._normalizing is not None:
                pixels, noted = self._normalizing(inputs, self._pixels_dtype)
                metas = [sample.metainfo | more for sample, more in zip(samples, noted, strict=True)]
                batch = {"inputs": pixels, "data_samples": [DetDataSample(metainfo=meta) for meta in metas]}
            else:
                data_samples = [DetDataSample(metainfo=sample.metainfo) for sample in samples]
                batch = self._model.data_preprocessor({"inputs": inputs, "data_samples": data_samples}, False)
            if self._dense:
                outputs = self._model(**batch, mode="tensor")
            else:
                found = [result.pred_instances for result in self._model(**batch, mode="predict")]
        if self._dense:
            on_cpu = mapped(tuple(outputs), lambda level: level.float().cpu())
            return [
                RawDetections(sample, head=mapped(on_cpu, operator.itemgetter(slice(i, i + 1))))
                for i, sample in enumerate(samples)
            ]
        return [RawDetections(sample, found=found_of(one)) for sample, one in zip(samples, found, strict=True)]

    @torch.inference_mode()
    def postprocess(
        self,
        raw: RawDetections,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_detections: int | None = None,
        class_agnostic: bool = False,
        masks: bool = True,
    ) -> Detections:
        """Decode, filter and suppress one image's boxes, on the CPU.

        score_threshold: keep what scores strictly above it. iou_threshold: of boxes of one class that
        overlap strictly more, keep the best. max_detections: then keep this many. None takes the
        config's own value. A detector that selects on the way (two stages, queries) has applied its
        config's values already, so there these can only narrow the choice. class_agnostic: see `kept`. masks: whether a
        detector that `has_masks` makes them.
        """
        found = raw.found or self._decode(raw, score_threshold, iou_threshold, max_detections, class_agnostic)
        best = kept(
            found.boxes_xyxy,
            found.scores,
            found.labels,
            score_threshold=score_threshold,
            iou_threshold=None if raw.found is None and not class_agnostic else iou_threshold,
            max_detections=max_detections,
            class_agnostic=class_agnostic,
        )

        sample = raw.sample
        height, width = sample.size_hw
        frame_hw = sample.metainfo["ori_shape"][:2]  # of the repeated image, or as the network sees it
        boxes_xyxy = found.boxes_xyxy[best].numpy()
        if sample.stretch_xy != (1, 1) or frame_hw != sample.size_hw:
            boxes_xyxy = boxes_xyxy * np.array((width / frame_hw[1], height / frame_hw[0]) * 2, np.float32)
        rles = None
        if self.has_masks and masks and found.masks is not None:
            small = InstanceMasks(found.masks, found.boxes_xyxy, frame_hw, self._mask_threshold)
            rles = tuple(small.rle(place, sample.size_hw, sample.stretch_xy) for place in best.tolist())
        return Detections(
            boxes_xyxy=boxes_xyxy.clip(0, np.array([width, height] * 2, dtype=np.float32)),
            scores=found.scores[best].numpy(),
            labels=found.labels[best].numpy(),
            size_hw=sample.size_hw,
            masks=rles,
        )

    def _decode(
        self,
        raw: RawDetections,
        score_threshold: float | None,
        iou_threshold: float | None,
        max_detections: int | None,
        class_agnostic: bool,
    ) -> Found:
        """mmdet's own selection, with this image's settings in a copy of the config's."""
        head = self._model.bbox_head
        cfg = copy.deepcopy(head.test_cfg)
        if score_threshold is not None:
            cfg.score_thr = score_threshold
        if iou_threshold is not None and cfg.get("nms"):
            cfg.nms.pop("iou_thr", None)  # its older name
            cfg.nms.iou_threshold = iou_threshold
        if max_detections is not None:
            # Boxes that one of another label suppresses afterwards are none of these.
            cfg.max_per_img = max(max_detections, cfg.get("max_per_img", 0) if class_agnostic else 0)
        outputs = raw.head or ()
        with mmcv_ops.using(fast=self.fast):
            (result,) = head.predict_by_feat(*outputs, batch_img_metas=[raw.sample.metainfo], cfg=cfg, rescale=True)
        return found_of(result)

    def detect(
        self,
        images: Sequence[np.ndarray],
        *,
        texts: Sequence[str] = (),
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
        raws = self.forward([self.preprocess(image, texts) for image in images])
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MMDetection's deprecation warnings, which its user can do nothing about, from the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
