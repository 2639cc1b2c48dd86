"""Decoded pixels of any kind -> 8 bits of red, green and blue.

Samples of 8 bits and fewer, and colours of any model, are Pillow's `convert("RGB")`. Of deeper ones:

- 16 bits keep their high byte, so 65535 becomes 255.
- Fewer bits in 16-bit files: a depth of 8 to 16 bits that a TIFF states (BitsPerSample, MaxSampleValue or
  SMaxSampleValue) counts, where all values are within it. Where none is stated, values that all fit in 8, 10 or 12 bits
  are of the least of these depths. A PNG's sBIT is no such statement: by PNG's specification the samples are scaled up.
- Floating point from 0 to 1 is black to white; else, up to 255, it is 8-bit values, and up to 65535 16-bit ones.

What WhiteIsZero says of a TIFF holds for all of them.
"""

from __future__ import annotations

import sys
from typing import Literal

import numpy as np
from PIL import Image, TiffImagePlugin

Reading = Literal["fewer bits", "dark", "float"]  # a rule of the above that was applied, or that may be missed

_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE = 0x0102, 0x0106, 0x0119, 0x0155
_WHITE_IS_ZERO = 0
_UNSTATED_DEPTHS = (8, 10, 12)
_DARK = 1 << 14  # 16-bit values below it may well be 14-bit ones
_WAY_OUT = "; save it with 8 bits per sample, as PNG for one"
# What Pillow makes 8 bits of by leaving out each sample's low byte -> what makes it leave out the high byte.
_LOW_BYTES = {
    f"{model};16{order}": f"{model};16{other}"
    for model in ("RGB", "RGBX", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
_GREY_ALPHA = "LA;16B"


class SampleError(ValueError):
    """Samples without a known range: says what was expected and what came."""


def rgb(image: Image.Image) -> tuple[Image.Image, Reading | None]:
    """A loaded image of any mode as mode RGB, and by which of the rules."""
    if image.mode == "RGB":
        return image, None
    if image.mode == "F":
        grey, reading = _of_floats(image)
        return grey.convert("RGB"), reading
    if image.mode.startswith("I"):  # I;16 and I;16B, or I: integers of up to 32 bits
        values, reading = _of_integers(np.asarray(image), image)
        return Image.fromarray(values).convert("RGB"), reading
    # What is transparent is of no use to RGB, and Pillow spends time and a warning on carrying it over.
    image.info.pop("transparency", None)
    return image.convert("RGB"), None


def may_need_low_bytes(image: Image.Image) -> bool:
    """Whether an image that is opened and not loaded has 16-bit colours, of which Pillow keeps the high bytes only."""
    return _raw_mode(image) in (*_LOW_BYTES, _GREY_ALPHA)


def are_all_low(pixels: np.ndarray) -> bool:
    """Whether high bytes (H, W, 3) are those of values of 12 bits at most."""
    return int(pixels.max(initial=0)) < 1 << 4


def of_low_bytes(image: Image.Image, high: np.ndarray) -> tuple[Image.Image, Reading | None]:
    """As `rgb`, of the same image opened again and not loaded, by all 16 bits of its samples.

    high: what `rgb` had made of it, (H, W, 3).
    """
    raw_mode = _raw_mode(image)
    if raw_mode == _GREY_ALPHA:  # four bytes to a pixel, of which the second is grey's low one
        image._mode = "RGBA"
        _decode_as(image, "RGBA")
        low = np.repeat(np.asarray(image)[..., 1:2], 3, axis=2)
    else:
        _decode_as(image, _LOW_BYTES[raw_mode])
        low = np.asarray(image)[..., :3]
    values, reading = _of_integers(high.astype(np.uint16) << 8 | low, image)
    return Image.fromarray(values), reading


def _of_integers(values: np.ndarray, image: Image.Image) -> tuple[np.ndarray, Reading | None]:
    """8 bits of samples of up to 16. Raises SampleError."""
    least, largest = int(values.min()), int(values.max())
    if least < 0 or largest > 0xFFFF:
        raise SampleError(f"expected samples of 0 to 65535, got {least} to {largest}{_WAY_OUT}")
    stated = _stated_depth(image)
    bits = 16
    if image.format in ("PNG", "TIFF"):  # elsewhere a decoder has scaled them
        depths = _UNSTATED_DEPTHS if stated is None or largest >= 1 << stated else (stated,)
        bits = next((one for one in depths if largest < 1 << one), 16)
    if _is_white_zero(image):
        values = (1 << bits) - 1 - values
    reading: Reading | None = None
    if bits < 16:
        reading = "fewer bits"
    elif largest < _DARK and stated is None:
        reading = "dark"
    return (values >> (bits - 8)).astype(np.uint8), reading


def _of_floats(image: Image.Image) -> tuple[Image.Image, Reading | None]:
    values = np.asarray(image)
    least, largest = float(values.min()), float(values.max())
    if not (least >= 0 and largest <= 0xFFFF):  # nor is anything a number that is not one
        raise SampleError(f"expected floating point of 0 to 1, 255 or 65535, got {least:g} to {largest:g}{_WAY_OUT}")
    if largest > 0xFF:
        integers, _ = _of_integers(np.rint(values).astype(np.int32), image)
        return Image.fromarray(integers), "float"
    white = 1 if largest <= 1 else 0xFF
    if _is_white_zero(image):
        values = white - values
    return Image.fromarray(np.rint(values * (0xFF / white)).astype(np.uint8)), "float"


def _stated_depth(image: Image.Image) -> int | None:
    """The bits of a sample of 8 to 16 bits, where a TIFF states fewer than it stores, or all of them."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    bits = _number(image.tag_v2.get(_BITS_PER_SAMPLE))
    if bits is not None and 8 < bits < 16:
        return int(bits)
    for tag in (_MAX_SAMPLE_VALUE, _S_MAX_SAMPLE_VALUE):
        most = _number(image.tag_v2.get(tag))
        if most is not None and 0 < most <= 0xFFFF:
            return max(8, int(most).bit_length())
    return None


def _number(value: object) -> float | None:
    """A tag's value, or the largest of several; None for anything else."""
    values = value if isinstance(value, tuple) else (value,)
    numbers = [one for one in values if isinstance(one, int | float)]
    return max(numbers) if numbers and len(numbers) == len(values) else None


def _is_white_zero(image: Image.Image) -> bool:
    """For samples of more than 8 bits; Pillow sees to others."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _raw_mode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    arguments = tiles[0].args if tiles else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _decode_as(image: Image.Image, raw_mode: str) -> None:
    """Load an image by another arrangement of its samples, of as many bits."""
    assert isinstance(image, TiffImagePlugin.ImageFile.ImageFile)
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]
    image.load()
