"""Which detection stands for which annotated object of an image: Pascal VOC's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from models.data import LabelledImage

IOU_THRESHOLD = 0.5


class Found(Protocol):
    """Something that models found in an image.

    label, score: the detector's; None where the box was given.
    box_xyxy: absolute pixels, as an annotation's.
    rle: the mask as COCO's RLE, of the image's size; None where none was asked for.
    """

    @property
    def label(self) -> str | None: ...

    @property
    def score(self) -> float | None: ...

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]: ...

    @property
    def rle(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True)
class Matching:
    """What the detections of one image are.

    annotations: for each detection the index of the annotation that it stands for, or None.
    ignored: for each detection whether it counts neither for nor against the detector: it lies in a crowd region.
    """

    annotations: tuple[int | None, ...]
    ignored: tuple[bool, ...]


def match(image: LabelledImage, found: Sequence[Found], iou_threshold: float = IOU_THRESHOLD) -> Matching:
    """Match by boxes, within each class.

    Detections take their turns by score, best first, and of equal ones the first. Each looks only at the annotation
    that its box overlaps most (VOC2012 development kit, section 4.4): it stands for it where their IoU is at least
    `iou_threshold` and no better detection stands for it already; a second one is wrong. As turns go by score, what is
    left after a cut at some score is matched as before. A detection that stands for nothing and has that share
    of its own area in a crowd region of its class is ignored, as in COCO's evaluation.
    """
    annotations: list[int | None] = [None] * len(found)
    ignored = [False] * len(found)
    for label in {one.label for one in found}:
        turns = sorted(
            (index for index, one in enumerate(found) if one.label == label),
            key=lambda index: -(found[index].score or 0.0),
        )
        mine = [index for index, one in enumerate(image.annotations) if one.label == label]
        single = [index for index in mine if not image.annotations[index].crowd]
        crowds = [index for index in mine if image.annotations[index].crowd]
        boxes = [found[index].box_xyxy for index in turns]
        overlaps = box_ious(boxes, [image.annotations[index].box_xyxy for index in single])
        inside = box_ious(boxes, [image.annotations[index].box_xyxy for index in crowds], of_first=True)
        taken: set[int] = set()
        for turn, index in enumerate(turns):
            if single:
                nearest = int(overlaps[turn].argmax())
                if overlaps[turn, nearest] >= iou_threshold:
                    if single[nearest] not in taken:
                        taken.add(single[nearest])
                        annotations[index] = single[nearest]
                    continue
            ignored[index] = bool((inside[turn] >= iou_threshold).any())
    return Matching(tuple(annotations), tuple(ignored))


Box = Sequence[float]


def box_ious(first_xyxy: Sequence[Box], second_xyxy: Sequence[Box], *, of_first: bool = False) -> np.ndarray:
    """(N, M) float64: the IoU of every two boxes x1, y1, x2, y2; of_first: the share of the first that is in both."""
    if not first_xyxy or not second_xyxy:
        return np.zeros((len(first_xyxy), len(second_xyxy)))
    sides = []
    for boxes in (first_xyxy, second_xyxy):
        corners = np.array(boxes, np.float64)
        corners[:, 2:] -= corners[:, :2]
        sides.append(corners)
    return coco_mask.iou(*sides, [int(of_first)] * len(second_xyxy))
