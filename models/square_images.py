"""How Hugging Face's image processors prepare an image: to which size, and by which mean and standard deviation.

Those of SAM and SAM-HQ resize its longer side and pad the other, those of SAM 2 and SAM 3 stretch it to a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from models.checkpoints import ModelFilesError, read_json_object
from models.model_errors import say_once

# Hugging Face's SamImageProcessor and Sam2ImageProcessor, and Sam3ImageProcessor's, for a folder without
# preprocessor_config.json.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF_MEAN, HALF_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image on its way to the encoder, on the CPU: bytes, which are normalised and padded on the device.

    image: (h, w, 3) uint8 RGB, resized to fit. size_hw: the size that the image had before.
    """

    image: np.ndarray
    size_hw: tuple[int, int]

    @property
    def resized_hw(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


def resized(image: np.ndarray, side: int, *, stretched: bool) -> Sample:
    """An RGB image (H, W, 3) uint8, resized as Pillow does it: to the square, or so that its longer side fits."""
    size_hw = (image.shape[0], image.shape[1])
    height, width = input_size(size_hw, side, stretched=stretched)
    return Sample(np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)), size_hw)


def input_size(size_hw: tuple[int, int], side: int, *, stretched: bool) -> tuple[int, int]:
    """(height, width) of an image in the model's input: the whole square, or what keeps its shape."""
    return (side, side) if stretched else resized_size(size_hw, side)


def resized_size(size_hw: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) whose longer side is `longest`, rounded as Hugging Face rounds; no side is ever 0."""
    scale = longest / max(size_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
    return height, width


def normalization(
    folder: Path,
    image_size: int,
    *,
    stretched: bool = False,
    default: tuple[Sequence[float], Sequence[float]] = (IMAGENET_MEAN, IMAGENET_STD),
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation by which the folder's images are prepared, whose size must be the model's.

    stretched: images become squares whatever their shape, as for SAM 2, instead of being padded. default: where the
    folder does not say it.

    They are in preprocessor_config.json, or under `image_processor` in transformers 5's processor_config.json. Where
    both are there, the latter counts, as it does for transformers.
    """
    path, config = _prepared_by(folder)
    size = config.get("size") or {}
    for edge in ("height", "width") if stretched else ("longest_edge",):
        side = size.get(edge, image_size) if isinstance(size, dict) else size
        if side != image_size:
            raise ModelFilesError(f"{path} resizes images to {side} pixels, but the model takes {image_size}")
    for step in ("do_resize", "do_rescale", "do_normalize", *(() if stretched else ("do_pad",))):
        if config.get(step) is False:
            raise ModelFilesError(f"{path}: {step} is false, but every SAM's images are prepared in that step")
    factor = config.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or abs(factor * 255 - 1) > 1e-3:
        raise ModelFilesError(f"{path}: rescale_factor: expected 1/255, got {factor!r}")
    mean, std = config.get("image_mean") or default[0], config.get("image_std") or default[1]
    for name, values in (("image_mean", mean), ("image_std", std)):
        if not isinstance(values, list | tuple) or [isinstance(v, int | float) for v in values] != [True] * 3:
            raise ModelFilesError(f"{path}: {name}: expected 3 numbers, got {values!r}")
    if 0 in std:  # type: ignore[operator]
        raise ModelFilesError(f"{path}: image_std: expected numbers above 0, got {std!r}")
    return mean, std  # type: ignore[return-value]


def _prepared_by(folder: Path) -> tuple[Path, dict[str, object]]:
    """The file that says how images are prepared, and what it says; nothing where there is none."""
    nested, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    if nested.is_file():
        config = read_json_object(nested)
        if "image_processor" in config:
            inner = config["image_processor"]
            if not isinstance(inner, dict):
                raise ModelFilesError(f"{nested}: image_processor: expected a JSON object, got {type(inner).__name__}")
            if own.is_file() and any(
                inner.get(key) != value for key, value in _counting(read_json_object(own)).items()
            ):
                say_once(f"{nested} and {own.name} differ; the former counts, as in transformers 5")
            return nested, inner
    return own, read_json_object(own) if own.is_file() else {}


def _counting(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key in ("image_mean", "image_std", "size")}
