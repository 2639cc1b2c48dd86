"""Decoded pixels of any kind -> 8 bits of red, green and blue."""

from __future__ import annotations

import numpy as np
from PIL import Image, TiffImagePlugin

_PHOTOMETRIC_TAG = 0x0106
_WHITE_IS_ZERO = 0


class SampleError(ValueError):
    """Samples without a known range: says what was expected and what came."""


def rgb(image: Image.Image) -> Image.Image:
    """A decoded image of any mode as mode RGB."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise SampleError("expected 8 or 16 bits per sample, got floating point, which has no fixed range")
    if image.mode.startswith("I"):  # I;16 and I;16B, or I: integers of up to 32 bits
        return _high_byte(image).convert("RGB")
    # What is transparent is of no use to RGB, and Pillow spends time and a warning on carrying it over.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey, mode L; Pillow's own conversion clips at 255 instead of scaling."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise SampleError(f"expected samples of 0 to 65535, got {values.min()} to {values.max()}")
    grey = (values >> 8).astype(np.uint8)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey)
