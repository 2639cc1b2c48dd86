"""How a Hugging Face detector's images are prepared and its boxes read: by the image processor of its folder."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoints import ModelFilesError, read_json_object
from models.detector.huggingface.model_types import SEPARATE
from models.detector.huggingface.network import CONFIG_ERRORS
from models.detector.huggingface.square import resized_square

# The keys by which files of all ages say of what type they are.
_TYPE_KEYS = ("image_processor_type", "feature_extractor_type")
# An image that a processor would leave without height or width gets its short side repeated, up to the first of these
# ratios that is enough.
_ASPECTS = (64, 16, 4)


class Images:
    """An image processor of transformers', with Pillow's resize, whatever else is installed.

    input_scale: the (long, short) sides in pixels that images are resized to fit, or None if they are not.
    default_threshold: of `post_process_object_detection`.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._find = processor.post_process_object_detection
        self.default_threshold: float = inspect.signature(self._find).parameters["threshold"].default
        size = {key: value for key, value in dict(processor.size or {}).items() if value}
        sides = [value for value in size.values() if isinstance(value, int)]
        self.is_fixed_size = bool(processor.do_resize) and {"height", "width"} <= size.keys()
        self.input_scale = (max(sides), min(sides)) if sides and processor.do_resize else None

    @classmethod
    def load(cls, folder: Path, config: Any) -> Images:
        """By processor_config.json or preprocessor_config.json. Raises ModelFilesError where they do not say enough, or
        make images of a size that the network of this config does not take."""
        path, content = _config(folder)
        try:
            images = cls(_processor_class(path, content, config.model_type)(**content))
            with np.errstate(all="ignore"):  # a division by 0 is told below
                tried = images(np.full((48, 64, 3), 127, np.uint8))
        except CONFIG_ERRORS as error:
            raise ModelFilesError(f"{path}: no image can be prepared by it: {error}") from error
        pixels = tried.get("pixel_values")
        if not isinstance(pixels, Tensor) or pixels.ndim != 4 or not bool(pixels.isfinite().all()):
            raise ModelFilesError(f"{path}: expected values by which an image becomes numbers, got {content!r:.200}")
        _check_size(config, pixels.shape[-2:], images.is_fixed_size, path)
        return images

    def __call__(self, image: np.ndarray) -> dict[str, Tensor]:
        """(H, W, 3) uint8 RGB -> the network's inputs for a batch of one; `pixel_values` (1, 3, h, w) among them."""
        height, width = image.shape[:2]
        aspect = max(height, width) / min(height, width)
        for limit in (aspect, *(one for one in _ASPECTS if one < aspect)):
            try:
                return self._prepared(np.repeat(image, math.ceil(aspect / limit), axis=0 if height < width else 1))
            except ValueError as error:
                last = error
        raise last

    def _prepared(self, image: np.ndarray) -> dict[str, Tensor]:
        made = self._processor.preprocess(images=[image], return_tensors="pt", input_data_format="channels_last")
        return dict(made)

    def boxes(
        self, logits: Tensor, boxes: Tensor, size_hw: tuple[int, int], threshold: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One image's (boxes_xyxy (N, 4) in its pixels, scores (N,), labels (N,)) that score above the threshold.

        logits: (Q, C), boxes: (Q, 4), as the network gave them.
        """
        outputs = SimpleNamespace(logits=logits[None], pred_boxes=boxes[None])
        (found,) = self._find(outputs, threshold=threshold, target_sizes=[size_hw])
        return found["boxes"], found["scores"], found["labels"]


def _check_size(config: Any, size_hw: Sequence[int], is_fixed: bool, path: Path) -> None:
    """Raises ModelFilesError where a network that takes only some sizes would get another."""
    model_type = config.model_type
    exact, step = None, 1
    if model_type in SEPARATE:
        exact = config.vision_config.image_size
    elif model_type in ("rt_detr", "rt_detr_v2", "d_fine", "deimv2"):  # each level's map is half the one before
        step = max(config.feat_strides)
    elif model_type == "lw_detr":  # whole windows of whole patches
        step = config.backbone_config.patch_size * config.backbone_config.num_windows_side
    if exact is None and step == 1:
        return
    fits = [side == exact if exact else side % step == 0 for side in size_hw]
    if not (is_fixed and all(fits)):
        expected = f"{exact} x {exact}" if exact else f"one size, with sides that are multiples of {step}"
        height, width = size_hw
        found = f"{width} x {height}" if is_fixed else "sizes in proportion to the photos'"
        raise ModelFilesError(f"{path}: size: expected {expected} pixels, which the model takes, got {found}")


def _config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that says how images are prepared, and what it says; the newer form counts, as for transformers."""
    nested, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    if nested.is_file():
        content = read_json_object(nested).get("image_processor")
        if isinstance(content, dict):
            return nested, content
    if not own.is_file():
        raise ModelFilesError(
            f"{folder}: expected a preprocessor_config.json (or a processor_config.json with an image_processor), "
            "which says to what size images are brought and how they are normalised: bring it from where the model was "
            "published, or write it by its image processor's save_pretrained(FOLDER)"
        )
    return own, read_json_object(own)


def _processor_class(path: Path, content: dict[str, Any], model_type: str) -> Any:
    """The class that a file names, else the model's own. Raises ModelFilesError for none that is known."""
    from transformers.models.auto import image_processing_auto as auto

    names = [content.pop(key, None) for key in (*_TYPE_KEYS, "processor_class", "auto_map")][:2]
    name = names[0] or names[1]
    if name is None:
        name = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type, {}).get("torchvision", "")
    base = str(name).removesuffix("Pil").removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    if base == "RfDetrImageProcessor":
        return _rf_detr()
    if base == "Owlv2ImageProcessor":
        return _owlv2()
    found = auto.get_image_processor_class_from_name(f"{base}Pil")
    if not hasattr(found, "post_process_object_detection"):
        raise ModelFilesError(f"{path}: image_processor_type: expected the image processor of a detector, got {name!r}")
    return found


def _rf_detr() -> Any:
    """RF-DETR's, which transformers has for torchvision alone: it resizes numbers, not bytes, without a blur before."""
    from transformers.models.deformable_detr.image_processing_pil_deformable_detr import DeformableDetrImageProcessorPil

    class RfDetrImages(DeformableDetrImageProcessorPil):
        def resize(self, image: np.ndarray, size: Any, resample: Any = None, **kwargs: Any) -> np.ndarray:
            from transformers.image_transforms import get_size_with_aspect_ratio
            from transformers.image_utils import get_image_size_for_max_height_width

            if size.shortest_edge and size.longest_edge:
                size_hw = get_size_with_aspect_ratio(image.shape[-2:], size.shortest_edge, size.longest_edge)
            elif size.max_height and size.max_width:
                size_hw = get_image_size_for_max_height_width(image.shape[-2:], size.max_height, size.max_width)
            else:
                size_hw = size.height, size.width
            mode = {0: "nearest", 3: "bicubic"}.get(int(self.resample if resample is None else resample), "bilinear")
            aligned = {} if mode == "nearest" else {"align_corners": False}
            numbers = torch.from_numpy(np.ascontiguousarray(image))[None].float()
            return F.interpolate(numbers, size_hw, mode=mode, **aligned)[0].numpy()

        def post_process_object_detection(
            self, outputs: Any, threshold: float = 0.5, target_sizes: Any = None, top_k: int | None = None
        ) -> Any:
            top_k = outputs.logits.shape[1] if top_k is None else top_k
            return super().post_process_object_detection(outputs, threshold, target_sizes, top_k)

    return RfDetrImages


def _owlv2() -> Any:
    """OWLv2's, which pads to a square: without that square in memory."""
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    class Owlv2Images(Owlv2ImageProcessorPil):
        def pad(self, image: np.ndarray, constant_value: float = 0.0) -> np.ndarray:
            return image if self.do_resize else super().pad(image, constant_value)

        def resize(self, image: np.ndarray, size: Any, *args: Any, **kwargs: Any) -> np.ndarray:
            if not self.do_pad:
                return super().resize(image, size, *args, **kwargs)
            return resized_square(image.transpose(1, 2, 0), (size["height"], size["width"])).transpose(2, 0, 1)

    return Owlv2Images
