"""What annotations mean beyond their format: crowds that are none, and one object that is there as two."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from models.data.dataset import Annotation, Dataset, LabelledImage, Place, Problem
from models.data.parsing.values import Box

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
    boxes: dict[tuple[str, bool], list[tuple[Box, int]]] = {}
    masks = []
    for index, one in enumerate(annotations):
        if one.has_mask:
            masks.append(one)
        else:
            boxes.setdefault((one.label, one.crowd), []).append((one.box_xyxy, index))
    if not masks or not boxes:
        return annotations
    scores: dict[int, float | None] = {}  # of the boxes that are gone, by the id of the mask that stands for each
    for its in boxes.values():
        its.sort()
    gone: set[int] = set()
    for one in masks:
        its = boxes.get((one.label, one.crowd), [])
        x1, _, x2, _ = one.box_xyxy
        reach = (x2 - x1) * (1 / SAME_OBJECT - 1) + 1e-6  # of the left edge of a box with such an IoU
        best, overlap = -1, SAME_OBJECT
        for at in range(bisect_left(its, ((x1 - reach,),)), len(its)):  # a start of one
            box, index = its[at]
            if box[0] > x1 + reach:
                break
            if index not in gone and (iou := _iou(box, one.box_xyxy)) >= overlap:
                best, overlap = index, iou
        if best >= 0:
            gone.add(best)
            scores[id(one)] = annotations[best].score
    if not gone:
        return annotations
    left = (one for index, one in enumerate(annotations) if index not in gone)
    return [replace(one, score=scores.get(id(one))) if one.score is None else one for one in left]


def _iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (areas - common)
