"""A binary mask -> forms in which a response may carry it: PNG and polygons; `models.rle` has the third.

A mask is (H, W), bool, or uint8 where anything but 0 is the object. Every form is exact: decoded, it
gives the same pixels again.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
from isal import isal_zlib
from PIL import Image

from models.rle import encode_rle, zeros_and_ones

MaskFormat = Literal["png", "rle", "polygon"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoder(mask_format: MaskFormat, *, fast: bool) -> tuple[str, Callable[[np.ndarray], Any]]:
    """The key that masks of this form have in an answer, and what makes the value of one."""
    encoders: dict[MaskFormat, tuple[str, Callable[[np.ndarray], Any]]] = {
        "png": ("encoded_binary_mask", partial(encode_png, fast=fast)),
        "rle": ("rle", partial(encode_rle, fast=fast)),
        "polygon": ("polygon", encode_polygons),
    }
    return encoders[mask_format]


def encode_png(mask: np.ndarray, *, fast: bool = True) -> str:
    """Base64, without newlines, of an 8-bit greyscale PNG (mode L) of the mask's size: 255 the object, 0 not.

    fast: write the file here, around ISA-L's deflate, instead of through Pillow: the same pixels, about as large.
    """
    ones = zeros_and_ones(mask)
    return base64.b64encode(_png(ones) if fast else _png_by_pillow(ones)).decode("ascii")


def encode_logits(logits: np.ndarray) -> str:
    """Base64 of logits (h, w) as float16, little-endian, row by row."""
    return base64.b64encode(logits.clip(-65504, 65504).astype("<f2").tobytes()).decode("ascii")


def encode_polygons(mask: np.ndarray) -> list[list[float]]:
    """The mask in Azure's instance-segmentation form: a flat [x1, y1, x2, y2, ...] in 0..1 for each region.

    x is divided by W and y by H. A region is a set of pixels joined by their sides; pixels that only touch at
    a corner are two regions. A polygon runs along the pixels' outer edges (not through their centres), so its
    area is their number: one pixel is a square of four corners. Only corners are listed, the first not
    again at the end; at least four (8 numbers). An empty mask gives [].

    Holes: a flat list has no place for them, so each hole's outline is spliced into its region's by a cut of
    no width, which the polygon runs down and back up. The cut rises from the hole's top left corner to the
    next edge above. The outline goes clockwise, holes counter-clockwise; every pixel of the region is wound
    around exactly once and every other not at all, so the even-odd and the non-zero rule fill the same
    pixels. Filling by pixel centres, as pycocotools' `frPyObjects` does at (H, W), gives the mask back
    exactly; `cv2.fillPoly` also paints the pixels that an outline touches, at any mask's right and bottom.
    """
    rings = _trace(zeros_and_ones(mask))
    height, width = mask.shape
    decimals = len(str(max(height, width))) + 3  # enough for a thousandth of a pixel
    return [np.round(np.asarray(ring) / (width, height), decimals).ravel().tolist() for ring in rings]


def _png(ones: np.ndarray) -> bytes:
    """The PNG of (H, W) uint8 0 and 1, per the specification's third edition, sections 5 and 11.

    Rows are not filtered: the runs of a mask compress best as they are. ISA-L's level 1 is as small as zlib's
    default here, and several times smaller than level 0, which takes as long.
    """
    height, width = ones.shape
    if not ones.size:
        raise ValueError(f"a PNG has at least one pixel, got {height} x {width}")
    rows = np.zeros((height, 1 + width), dtype=np.uint8)  # each row opens with its filter's number, 0 for none
    np.negative(ones, out=rows[:, 1:])  # 0 - 1 is 255 in uint8
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey, deflate, no interlace
    pixels = isal_zlib.compress(rows, 1)
    return PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)))


def _png_by_pillow(ones: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(ones * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def _trace(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The closed outline of every region of `mask` (uint8, 0 and 1), as corners (x, y) on the pixel grid.

    Corners are numbered in reading order. On a grid line, edges join the first corner to the second, the third
    to the fourth and so on: `i ^ 1` is the corner at the other end of i's horizontal edge, `vertical[i]`
    that of its vertical one. Where two pixels touch at a corner only, that point is two corners. Edges
    are walked with the region at the right hand.
    """
    padded = np.pad(mask, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (nw ^ ne) & (nw ^ sw) & (sw ^ se)
    corners_at = ((nw ^ ne ^ sw ^ se) + 2 * touching).ravel()  # 0, 1 or 2, (H + 1) * (W + 1)
    points = np.flatnonzero(corners_at)
    if not len(points):
        return []
    keys = np.repeat(points, corners_at[points])
    ys, xs = np.divmod(keys, mask.shape[1] + 1)

    # Of two corners at one point the first holds the edge to the left. To keep the pixels apart it also holds
    # the upper edge where the region is north-west and south-east, and the lower one otherwise.
    second = np.concatenate(([False], keys[1:] == keys[:-1]))
    second_down = second ^ (padded[ys, xs] == 0)
    down_columns = np.lexsort((second_down, ys, xs))
    vertical = np.empty_like(down_columns)
    vertical[down_columns[0::2]] = down_columns[1::2]
    vertical[down_columns[1::2]] = down_columns[0::2]

    lefts = np.arange(0, len(keys), 2)
    below = padded[ys[0::2] + 1, xs[0::2] + 1] == 1  # whether the region lies below the edge from lefts to lefts + 1
    tails = np.where(below, lefts, lefts + 1)
    following = vertical.copy()
    following[tails] = tails ^ 1

    walk = following.tolist()
    starts = _first_corners(walk)  # each the top left corner of its outline
    holes = [start for start in starts if not below[start // 2]]
    xy = list(zip(xs.tolist(), ys.tolist(), strict=True))
    skipped = _splice(holes, walk, xy, keys, padded)
    return [_ring(start, walk, xy, skipped) for start in starts if below[start // 2]]


def _first_corners(walk: list[int]) -> list[int]:
    """The lowest corner of every cycle of `walk` (corner -> next corner)."""
    seen = bytearray(len(walk))
    starts = []
    for start in range(len(walk)):
        if seen[start]:
            continue
        starts.append(start)
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            corner = walk[corner]
    return starts


def _splice(
    holes: list[int], walk: list[int], xy: list[tuple[int, int]], keys: np.ndarray, padded: np.ndarray
) -> set[int]:
    """Join every hole, given by its top left corner, to the outline above it: changes `walk`, extends `xy`.

    Returns the corners that are none any more, because the cut goes on straight from them.
    """
    pixels = padded.view(np.bool_)
    cuts = []
    for hole in holes:
        x, y = xy[hole]
        top = y - int(np.argmin(pixels[y::-1, x + 1]))  # the run of region pixels that ends above the hole
        left = int(np.searchsorted(keys, top * (padded.shape[1] - 1) + x, side="right")) - 1
        cuts.append((left, x, hole, top))
    skipped = set()
    # From right to left along an edge, so that each cut can be put right behind the edge's left corner.
    for left, x, hole, top in sorted(cuts, key=lambda cut: (cut[0], -cut[1])):
        back = len(xy)
        xy.append((x, top))
        walk.append(walk[left])
        if xy[left] == (x, top):
            skipped.add(left)
            walk[left] = walk[hole]
        else:
            xy.append((x, top))
            walk.append(walk[hole])
            walk[left] = back + 1
        walk[hole] = back
    return skipped


def _ring(start: int, walk: list[int], xy: list[tuple[int, int]], skipped: set[int]) -> list[tuple[int, int]]:
    """The corners of the cycle of `walk` that `start` is on, but for those skipped."""
    ring = []
    corner = start
    while True:
        if corner not in skipped:
            ring.append(xy[corner])
        corner = walk[corner]
        if corner == start:
            return ring
