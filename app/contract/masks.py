"""A binary mask -> forms in which a response may carry it: PNG and polygons; `models.rle` has the third.

A mask is (H, W), bool, or uint8 where anything but 0 is the object. Every form is exact: decoded, it
gives the same pixels again.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from io import BytesIO
from typing import Any, Literal

import numpy as np
from isal import isal_zlib
from PIL import Image

from models.masks.outlines import one_ring, simplified
from models.masks.pixel_outlines import spliced_outlines
from models.rle import encode_rle, zeros_and_ones

MaskFormat = Literal["png", "rle", "polygon"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoder(
    mask_format: MaskFormat, *, fast: bool, polygon_tolerance: float | None = None, max_vertices: int | None = None
) -> tuple[str, Callable[[np.ndarray], Any]]:
    """The key that masks of this form have in an answer, and what makes the value of one."""
    polygons = partial(encode_polygons, polygon_tolerance=polygon_tolerance, max_vertices=max_vertices)
    encoders: dict[MaskFormat, tuple[str, Callable[[np.ndarray], Any]]] = {
        "png": ("encoded_binary_mask", partial(encode_png, fast=fast)),
        "rle": ("rle", partial(encode_rle, fast=fast)),
        "polygon": ("polygon", polygons),
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


def encode_polygons(
    mask: np.ndarray, polygon_tolerance: float | None = None, max_vertices: int | None = None
) -> list[list[float]]:
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

    polygon_tolerance, max_vertices: with either, there are fewer corners; see `models.masks.outlines.simplified`. A cut
    is then as narrow as a hair, and no polygon touches itself or another one.
    """
    ones = zeros_and_ones(mask)
    if polygon_tolerance is None and max_vertices is None:
        rings: Iterable[Any] = spliced_outlines(ones)
    else:
        parts = simplified(ones.view(np.bool_), polygon_tolerance or 0.0, max_vertices)
        rings = [one_ring(part[0], part[1:]) for part in parts]
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
