"""What annotations mean beyond their format: crowds that are none, and one object that is there as two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from models.data.dataset import Annotation, Dataset, LabelledImage, Place, Problem

Crowds = Literal["as-crowds", "as-objects"]
CROWDS: tuple[Crowds, ...] = get_args(Crowds)

SAME_OBJECT = 0.95  # IoU of two boxes
MOST_CROWDS = 0.1  # of all objects, that real data have


def settle(dataset: Dataset, path: Path, crowds: Crowds | None = None) -> tuple[Dataset, list[Problem]]:
    """The data set as it is meant, and a line for each kind of thing that was taken so.

    - A box and a mask of one class whose boxes have an IoU of `SAME_OBJECT` or more are one object, the mask: tools
      that have a box and a brush write both.
    - crowds: `as-objects`: nothing is a crowd. None: as the file says, with a note where it marks every mask: CVAT
      marks all that were drawn with its brush, only to say that they are run-length encoded.
    """
    problems = []
    images = dataset.images
    if crowds == "as-objects":
        images = tuple(map(_without_crowds, images))
    elif crowds is None:
        problems += _seeming_crowds(images, path)
    settled, joined, first = [], 0, None
    for image in images:
        kept = _joined(image.annotations)
        if len(kept) < len(image.annotations):
            first = first or image
            joined += len(image.annotations) - len(kept)
            image = replace(image, annotations=tuple(kept))
        settled.append(image)
    if first is not None:
        what = "1 box is" if joined == 1 else f"{joined} boxes are"
        reason = f"{what} there again as a mask of the same class, {first.name} has the first: read as one object each"
        problems.append(Problem(first.place or Place(path), reason, fatal=False))
    return Dataset(dataset.class_names, tuple(settled)), problems


def _seeming_crowds(images: Sequence[LabelledImage], path: Path) -> list[Problem]:
    objects = masks = marked = 0
    for image in images:
        for one in image.annotations:
            objects += 1
            masks += one.rle is not None
            marked += one.rle is not None and one.crowd
    # COCO's own crowds are all run-length encoded too, and one object in a hundred.
    if not marked or marked < masks or marked < MOST_CROWDS * objects:
        return []
    reason = (
        f"all {marked} run-length encoded masks are marked iscrowd, as CVAT marks what was drawn with a brush: they "
        "are read as regions of many objects; --crowds as-objects reads them as objects"
    )
    return [Problem(Place(path), reason, fatal=False)]


def _without_crowds(image: LabelledImage) -> LabelledImage:
    if not any(one.crowd for one in image.annotations):
        return image
    return replace(image, annotations=tuple(replace(one, crowd=False) for one in image.annotations))


def _joined(annotations: Sequence[Annotation]) -> Sequence[Annotation]:
    """The annotations without the boxes that are there again as masks; each mask takes the place of one box."""
    masks = [index for index, one in enumerate(annotations) if one.has_mask]
    if not masks or len(masks) == len(annotations):
        return annotations
    boxes = np.array([one.box_xyxy for one in annotations])
    gone: set[int] = set()
    for index in masks:
        one = annotations[index]
        alike = [
            other
            for other, its in enumerate(annotations)
            if other not in gone and not its.has_mask and its.label == one.label and its.crowd == one.crowd
        ]
        if alike and (ious := _ious(boxes[index], boxes[alike])).max() >= SAME_OBJECT:
            gone.add(alike[int(ious.argmax())])
    return [one for index, one in enumerate(annotations) if index not in gone] if gone else annotations


def _ious(box_xyxy: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """(4,), (N, 4) -> (N,)"""
    corners = np.minimum(box_xyxy[2:], boxes_xyxy[:, 2:]) - np.maximum(box_xyxy[:2], boxes_xyxy[:, :2])
    common = corners.clip(min=0).prod(axis=1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    return common / (areas + (box_xyxy[2:] - box_xyxy[:2]).prod() - common)
