"""Masks that are stored as pictures, LabelMe's and VOC's: what the header says, and then the values of the pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.data.parsing.values import MOST_PIXELS, BadValueError
from models.images.decoding import ImageError, opened

_BAND = 2**22  # pixels that are taken out at a time
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # of a pixel in Pillow's memory; 4 in all other modes


class Header(NamedTuple):
    """What is known before the pixels are read: a few bytes may stand for a picture of gigabytes."""

    size_hw: tuple[int, int]
    channels: int


def header(content: bytes, field: str) -> Header:
    """Raises BadValueError for what is no picture, and for one that has more bytes of pixels than an image may."""
    try:
        with opened(content) as picture:
            width, height = picture.size
            taken = width * height * _BYTES.get(picture.mode, 4)
            found = Header((height, width), len(picture.getbands()))
    except ImageError as error:
        raise BadValueError(f"{field}: expected a picture, found other bytes ({error})") from error
    if taken > MOST_PIXELS:
        raise BadValueError(f"{field}: expected at most {MOST_PIXELS} bytes of pixels, found {taken}")
    return found


def values(content: bytes, field: str) -> np.ndarray:
    """The picture's values (H, W), in the first of its channels. Raises BadValueError, for damage too."""
    (height, width), _ = header(content, field)
    try:
        with opened(content) as picture:
            rows = max(1, _BAND // width)
            found = None
            for top in range(0, height, rows):
                band = np.asarray(picture.crop((0, top, width, min(height, top + rows))))
                if found is None:
                    found = np.empty((height, width), np.uint8 if band.dtype == bool else band.dtype)
                found[top : top + rows] = band if band.ndim == 2 else band[..., 0]
    except ImageError as error:
        raise BadValueError(f"{field}: {error}") from error
    assert found is not None
    return found
