"""How Hugging Face's SamImageProcessor prepares an image: to which size, and by which mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.checkpoints import ModelFilesError, read_json_object

# Hugging Face's SamImageProcessor, for a folder without preprocessor_config.json.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resized_size(size_hw: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) whose longer side is `longest`, rounded as Hugging Face rounds; no side is ever 0."""
    scale = longest / max(size_hw)
    height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
    return height, width


def normalization(folder: Path, image_size: int) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation from the folder's preprocessor_config.json, whose size must be the model's."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD
    config = read_json_object(path)
    size = config.get("size") or {}
    longest = size.get("longest_edge", image_size) if isinstance(size, dict) else size
    if longest != image_size:
        raise ModelFilesError(f"{path} resizes images to {longest} pixels, but the model takes {image_size}")
    for step in ("do_resize", "do_rescale", "do_normalize", "do_pad"):
        if config.get(step) is False:
            raise ModelFilesError(f"{path}: {step} is false, but every SAM's images are prepared in that step")
    mean, std = config.get("image_mean") or IMAGENET_MEAN, config.get("image_std") or IMAGENET_STD
    for name, values in (("image_mean", mean), ("image_std", std)):
        if not isinstance(values, list | tuple) or [isinstance(v, int | float) for v in values] != [True] * 3:
            raise ModelFilesError(f"{path}: {name}: expected 3 numbers, got {values!r}")
    return mean, std  # type: ignore[return-value]
