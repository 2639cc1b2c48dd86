"""Shapes of annotation tools as outlines and masks: turned boxes, ellipses, and rings made of several parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from models.data.dataset import Annotation, Place, Polygon, Problem
from models.data.parsing.values import BadValueError, Box, box, extent, polygons

ELLIPSE_POINTS = 128  # off by less than a third of a pixel where the radius is a thousand
MOST_RUNS = 4_000_000  # of equal pixels in a mask, down its columns
_PART = 2**22  # pixels that are counted at a time
_MOST_CANDIDATES = 64  # corners of a part that are tried for its cut; more would make it only a little shorter


class Tally:
    """What was taken in another way than it stands, or left out: one line for each kind, with a `{count}`."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, Place] = {}

    def add(self, what: str, place: Place) -> None:
        self._counts[what] += 1
        self._first.setdefault(what, place)

    def notes(self) -> list[Problem]:
        """In the order in which they first came, each where it first did."""
        return [
            Problem(self._first[what], what.replace("{count}", str(count)), fatal=False)
            for what, count in self._counts.items()
        ]


def turned_box(x: float, y: float, width: float, height: float, degrees: float, about: tuple[float, float]) -> Polygon:
    """The corners of a box, turned clockwise as seen on the screen."""
    turn = math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    found: list[float] = []
    for corner_x, corner_y in ((x, y), (x + width, y), (x + width, y + height), (x, y + height)):
        across, down = corner_x - about[0], corner_y - about[1]
        found += (about[0] + across * cos - down * sin, about[1] + across * sin + down * cos)
    return tuple(found)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> Polygon:
    """The ellipse around a point as a polygon, turned clockwise as seen on the screen."""
    turn = math.radians(degrees)
    cos, sin = math.cos(turn), math.sin(turn)
    found: list[float] = []
    for index in range(ELLIPSE_POINTS):
        at = 2 * math.pi * index / ELLIPSE_POINTS
        across, down = radius_x * math.cos(at), radius_y * math.sin(at)
        found += (x + across * cos - down * sin, y + across * sin + down * cos)
    return tuple(found)


def outlined(label: str, outline: Sequence[Any], field: str, place: Place) -> Annotation:
    """The object of one outline, whose box is that around it. Raises BadValueError."""
    parts = polygons([list(outline)], field)
    return Annotation(label, box(*extent(parts), field), parts, place=place)


def merged(parts: Sequence[Annotation], size_hw: tuple[int, int]) -> Annotation:
    """The object of these parts, which all have masks: of their outlines, or else of all their pixels."""
    first = parts[0]
    if len(parts) == 1:
        return first
    crowd = any(one.crowd for one in parts)
    if all(one.polygons is not None for one in parts):
        outline = tuple(part for one in parts for part in one.polygons or ())
        return Annotation(first.label, extent(outline), outline, None, crowd, first.place)
    whole = coco_mask.merge([one.to_rle(size_hw) for one in parts])
    rle = {"size": list(size_hw), "counts": whole["counts"].decode("ascii")}
    return Annotation(first.label, box_of(rle, "the parts"), None, rle, crowd, first.place)


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool as COCO's compressed RLE. Best of one in Fortran's order, which is not copied.

    Raises BadValueError for a mask of more than `MOST_RUNS`: a checkerboard of a few kilobytes would take gigabytes.
    """
    flat = np.asfortranarray(mask).view(np.uint8)
    if mask.size > MOST_RUNS and (runs := _runs(flat.ravel(order="F"))) > MOST_RUNS:
        raise BadValueError(f"expected a mask of at most {MOST_RUNS} runs of pixels, found {runs}")
    rle = coco_mask.encode(flat)
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _runs(flat: np.ndarray) -> int:
    """How often the mask changes from pixel to pixel."""
    total = 1
    for at in range(0, len(flat) - 1, _PART):
        part = flat[at : at + _PART + 1]
        total += int(np.count_nonzero(part[1:] != part[:-1]))
    return total


def filled(box_xyxy: Box, size_hw: tuple[int, int]) -> dict[str, Any]:
    """The pixels of a box as COCO's compressed RLE, rounded to whole ones; those outside the image are left out."""
    height, width = size_hw
    x1, x2 = (min(max(round(value), 0), width) for value in box_xyxy[::2])
    y1, y2 = (min(max(round(value), 0), height) for value in box_xyxy[1::2])
    counts = [x1 * height + y1]
    for _ in range(x1, x2):
        counts += [y2 - y1, height - (y2 - y1)]
    counts[-1] += (width - x2) * height - y1
    if x1 >= x2:
        counts = [width * height]
    rle = coco_mask.frPyObjects({"size": list(size_hw), "counts": counts}, *size_hw)
    return {"size": list(size_hw), "counts": rle["counts"].decode("ascii")}


def box_of(rle: dict[str, Any], field: str) -> Box:
    """The box around the pixels of a mask. Raises BadValueError where it has none."""
    x, y, width, height = coco_mask.toBbox(rle)
    return box(x, y, x + width, y + height, field)


def ring_of(one: Annotation) -> Polygon | None:
    """The object's outline where it is a single one with an inside."""
    if one.polygons is None or len(one.polygons) != 1:
        return None
    x1, y1, x2, y2 = extent(one.polygons)
    return one.polygons[0] if x1 < x2 and y1 < y2 else None


def mask_of(one: Annotation, size_hw: tuple[int, int]) -> np.ndarray | None:
    """The object's mask (H, W) bool; None where it has none, or an empty one."""
    mask = one.mask(size_hw)
    return mask if mask is not None and mask.any() else None


def is_around(one: Annotation, size_hw: tuple[int, int]) -> bool:
    """Whether the object's box is the one around its `ring_of`, or else around the pixels of its mask."""
    if one.polygons is not None and ring_of(one) is not None:
        return extent(one.polygons) == one.box_xyxy
    rle = one.to_rle(size_hw)
    if rle is None:
        return True
    x, y, width, height = map(float, coco_mask.toBbox(rle))
    return (x, y, x + width, y + height) == one.box_xyxy


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rings (N, 2) as one: a cut leads from each to the nearest before it, and back."""
    whole = parts[0]
    for part in parts[1:]:
        step = 1 + len(part) // _MOST_CANDIDATES
        distances = ((whole[:, None] - part[None, ::step]) ** 2).sum(-1)
        here, there = np.unravel_index(int(distances.argmin()), distances.shape)
        around = np.roll(part, -int(there) * step, axis=0)
        whole = np.concatenate([whole[: here + 1], around, around[:1], whole[here:]])
    return whole
