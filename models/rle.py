"""A binary mask as COCO's run-length encoding, which is how masks travel between the parts of this project."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from pycocotools import mask as coco_mask

# With more runs than this, and than one in so many pixels, sorting them costs more than a copy of the mask by columns.
MANY_RUNS, PIXELS_PER_RUN = 1024, 32


class Rle(TypedDict):
    """COCO's compressed run-length encoding. size: [H, W]. counts: column-major runs, as ASCII text."""

    size: list[int]
    counts: str


def encode_rle(mask: np.ndarray, *, fast: bool = True) -> Rle:
    """The mask (H, W), bool or uint8, as pycocotools encodes it, ready for JSON.

    fast: find the runs here, where they are few, instead of through a column-major copy: the same text. Raises
    ValueError for another shape or dtype.
    """
    ones = zeros_and_ones(mask)
    height, width = mask.shape
    runs = _column_major_runs(ones) if fast else None
    if runs is None:
        rle = coco_mask.encode(np.asfortranarray(ones))
    else:
        rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: Rle) -> np.ndarray:
    """The mask (H, W) bool."""
    return np.asarray(coco_mask.decode(rle)).view(np.bool_)


def zeros_and_ones(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of 0 and 1. Raises ValueError for another shape or dtype: a fault of the caller's."""
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"expected a mask (H, W) of bool or uint8, got {mask.shape} of {mask.dtype}")
    return mask.view(np.uint8) if mask.dtype == np.bool_ else (mask != 0).view(np.uint8)


def _column_major_runs(ones: np.ndarray) -> np.ndarray | None:
    """The lengths of the runs of 0, 1, 0, ... down the columns of (H, W) uint8 0 and 1; None where they are many.

    What changes from a row to the next is found row by row, as the mask lies in memory; only the places of
    the changes, which are few, are then sorted by columns.
    """
    height, width = ones.shape
    pixels = ones.view(np.bool_)
    filled = np.flatnonzero(pixels.any(axis=1))
    if not len(filled):
        return np.array([height * width])
    top, last = int(filled[0]), int(filled[-1])
    changes = np.empty((last - top + 2, width), dtype=np.bool_)  # row i: from pixel row top + i - 1 to the next
    changes[0] = pixels[top]
    np.not_equal(pixels[top + 1 : last + 1], pixels[top:last], out=changes[1:-1])
    changes[-1] = pixels[last]
    if last == height - 1:  # below a column comes the top of the next, and below the last one nothing
        changes[-1, -1] = False
        if top == 0:
            through = changes[-1, :-1] & changes[0, 1:]
            changes[-1, :-1] ^= through
            changes[0, 1:] ^= through
    if np.count_nonzero(changes) > max(MANY_RUNS, height * width // PIXELS_PER_RUN):
        return None
    ys, xs = np.divmod(np.flatnonzero(changes), width)
    return np.diff(np.sort(xs * height + ys + top), prepend=0, append=height * width)
