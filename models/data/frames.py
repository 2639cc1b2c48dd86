"""Boxes of photos that a camera stored on their side: in the frame that is shown, or in the one that is stored.

Programs disagree about EXIF's orientation, and so do the sizes and boxes that they write. Here all are upright. What a
file means is told by what fits: a box that reaches out of one frame is one of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pycocotools import mask as coco_mask

from models.data.dataset import Annotation, Dataset, LabelledImage, Place, Problem
from models.data.parsing.shapes import encoded
from models.data.parsing.values import sized
from models.images.decoding import ImageError
from models.images.sideways import stored_sideways

Orientation = Literal["upright", "stored"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)

_TOLERANCE = 1.0  # pixels that a box may reach out of its frame
_Point = Callable[[float, float], tuple[float, float]]


def set_upright(dataset: Dataset, orientation: Orientation | None = None) -> tuple[Dataset, list[Problem]]:
    """The data set with all sizes, boxes and masks in the upright frame, and what was taken so.

    orientation: the frame of the boxes of photos that are stored on their side; None: told by what fits. Where both
    frames fit and the stated size is the stored one's, the photo is left out, as a fatal problem.
    """
    images: list[LabelledImage] = []
    problems: list[Problem] = []
    for image in dataset.images:
        settled = _settled(image, orientation, problems) if isinstance(image.path, Path) else image
        if settled is not None:
            images.append(settled)
    return Dataset(dataset.class_names, tuple(images)), problems


def _settled(image: LabelledImage, orientation: Orientation | None, problems: list[Problem]) -> LabelledImage | None:
    assert isinstance(image.path, Path)
    if image.size_hw[0] == image.size_hw[1]:
        return image
    try:
        found = stored_sideways(image.path)
    except (OSError, ImageError):  # whoever needs the photo says so
        return image
    if found is None or image.size_hw not in (found.stored_hw, found.upright_hw):
        return image
    states_stored = image.size_hw == found.stored_hw
    fits_stored, fits_upright = (_fits(image.annotations, one) for one in (found.stored_hw, found.upright_hw))
    if any(one.rle is not None for one in image.annotations):
        means = "stored" if states_stored else "upright"  # a mask has the size of its frame
    elif orientation is not None and states_stored:
        means = orientation
    elif not states_stored:
        means = "stored" if fits_stored and not fits_upright else "upright"
    elif fits_stored and fits_upright and image.annotations:
        reason = (
            f"stored as {sized(found.stored_hw)}, as the data set says, and shown as {sized(found.upright_hw)}: its "
            "boxes fit both ways; --orientation upright or --orientation stored says which photo they were drawn on"
        )
        problems.append(Problem(image.place or Place(image.path), reason, about=image.name))
        return None
    else:
        means = "stored" if fits_stored and image.annotations else "upright"
    if means == "upright" and not states_stored:
        return image
    if means == "upright":
        reason = "the size is that of the stored photo, and the boxes fit the upright one: read as upright"
        annotations = image.annotations
    else:
        reason = "the boxes are those of the photo as it is stored: turned upright with it"
        annotations = tuple(_turned(one, found.upright, found.turn) for one in image.annotations)
    if image.annotations:
        problems.append(Problem(image.place or Place(image.path), reason, fatal=False, about=image.name))
    return replace(image, size_hw=found.upright_hw, annotations=annotations)


def _fits(annotations: Sequence[Annotation], size_hw: tuple[int, int]) -> bool:
    height, width = size_hw
    return all(one.box_xyxy[2] <= width + _TOLERANCE and one.box_xyxy[3] <= height + _TOLERANCE for one in annotations)


def _turned(one: Annotation, point: _Point, turn: Callable[[np.ndarray], np.ndarray]) -> Annotation:
    """point: a stored point -> the upright one. turn: the same of a mask (H, W)."""
    (x1, y1), (x2, y2) = point(*one.box_xyxy[:2]), point(*one.box_xyxy[2:])
    box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    parts = one.polygons and tuple(
        tuple(value for x, y in zip(part[::2], part[1::2], strict=True) for value in point(x, y))
        for part in one.polygons
    )
    rle = one.rle
    if rle is not None:
        rle = encoded(turn(coco_mask.decode(rle)))
    return replace(one, box_xyxy=box, polygons=parts, rle=rle)
