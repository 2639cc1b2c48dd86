"""Masks against ground truth, object by object: IoU, pixel accuracy, boundary IoU, and the floor of filled boxes.

Masks stay COCO's RLE {"size": [H, W], "counts": ...}; a bitmap exists only while one object's boundary is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from models.data import Dataset
from models.evaluation.matching import Found, match

Rle = Mapping[str, Any]

# Width of the boundary in Boundary IoU, as a share of the image's diagonal (Cheng et al., CVPR 2021).
DILATION_RATIO = 0.02


@dataclass(frozen=True)
class MaskScores:
    """How well one mask agrees with another, each in 0..1.

    iou: pixels in both over pixels in either. accuracy: the share of the image's pixels on which they agree.
    boundary_iou: the IoU of their boundaries. pixel_recall: the share of the truth's pixels that are found.
    pixel_precision: the share of the found pixels that are true.
    """

    iou: float
    accuracy: float
    boundary_iou: float
    pixel_recall: float
    pixel_precision: float


@dataclass(frozen=True)
class ScoredObject:
    """One annotated object that has a mask, with what was found for it.

    image, annotation: its indices in the data set. box_xyxy: the box that stands for it, annotated or
        detected; None where no detection matches it. found, scores: None where there is no mask for it.
    """

    image: int
    annotation: int
    label: str
    truth: Rle
    box_xyxy: tuple[float, float, float, float] | None = None
    found: Rle | None = None
    scores: MaskScores | None = None


def compare(found: Rle, truth: Rle) -> MaskScores:
    """Compare a mask with the true one. Two empty masks agree in everything. Raises ValueError for two sizes."""
    if list(found["size"]) != list(truth["size"]):
        raise ValueError(f"expected a mask of height and width {list(truth['size'])}, got {list(found['size'])}")
    found_area, true_area = (int(coco_mask.area(one)) for one in (found, truth))
    both = int(coco_mask.area(coco_mask.merge([dict(found), dict(truth)], intersect=True)))
    either = found_area + true_area - both
    height, width = truth["size"]
    return MaskScores(
        iou=both / either if either else 1.0,
        accuracy=1 - (either - both) / (height * width),
        boundary_iou=_boundary_iou(found, truth),
        pixel_recall=both / true_area if true_area else float(not found_area),
        pixel_precision=both / found_area if found_area else float(not true_area),
    )


def _boundary_iou(found: Rle, truth: Rle) -> float:
    """The IoU of the masks' pixels that lie within d of their outlines, d = 2 % of the image's diagonal, at least 1.

    "Within d" is taken by squares: what an erosion by a square of side 2d + 1 removes; beyond the image's edge there is
    no mask, so that its edge cuts outlines too. Cheng et al., "Boundary IoU", CVPR 2021, section 4 and its code.
    """
    height, width = truth["size"]
    reach = max(1, round(DILATION_RATIO * float(np.hypot(height, width))))
    boxes = np.array([coco_mask.toBbox(dict(one)) for one in (found, truth)])
    boxes = boxes[boxes[:, 2:].all(axis=1)]
    if not len(boxes):
        return 1.0
    x1, y1 = boxes[:, :2].min(axis=0).astype(int)
    x2, y2 = (boxes[:, :2] + boxes[:, 2:]).max(axis=0).astype(int)
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    bands = []
    for one in (found, truth):  # outside the crop both are empty, as they are beyond the image's edge
        mask = np.ascontiguousarray(coco_mask.decode(dict(one))[y1:y2, x1:x2])
        bands.append(mask != cv2.erode(mask, square, borderType=cv2.BORDER_CONSTANT, borderValue=0))
    union = int((bands[0] | bands[1]).sum())
    return int((bands[0] & bands[1]).sum()) / union if union else 1.0


def truth_masks(dataset: Dataset) -> list[list[Rle | None]]:
    """For each image the mask of every annotation, None where only its box is known."""
    return [[one.to_rle(image.size_hw) for one in image.annotations] for image in dataset.images]


def score_prompted(
    dataset: Dataset, truths: Sequence[Sequence[Rle | None]], masks: Sequence[Mapping[int, Rle]]
) -> list[ScoredObject]:
    """Every object whose own annotation was the prompt, so that no matching is needed.

    masks: for each image the masks that were found, by the annotation's index. What has none there was no prompt, and
    is no object here.
    """
    objects = []
    for number, (image, of_image) in enumerate(zip(dataset.images, masks, strict=True)):
        for index, found in sorted(of_image.items()):
            annotation, truth = image.annotations[index], truths[number][index]
            assert truth is not None
            blank = ScoredObject(number, index, annotation.label, truth, annotation.box_xyxy)
            objects.append(replace(blank, found=found, scores=compare(found, truth)))
    return objects


def score_detected(
    dataset: Dataset,
    truths: Sequence[Sequence[Rle | None]],
    found: Sequence[Sequence[Found]],
    score_threshold: float,
) -> list[ScoredObject]:
    """Every object with the mask of the detection that stands for it (`match`), or with none.

    found: for each image what was found in it, with masks; what scores less than `score_threshold` is not looked at.
    """
    objects = []
    for number, (image, in_image) in enumerate(zip(dataset.images, found, strict=True)):
        sure = [one for one in in_image if (one.score or 0.0) >= score_threshold]
        of_annotation = {index: one for index, one in zip(match(image, sure).annotations, sure, strict=True)}
        for index, annotation in enumerate(image.annotations):
            truth = truths[number][index]
            if truth is None or annotation.crowd:
                continue
            scored = ScoredObject(number, index, annotation.label, truth)
            one = of_annotation.get(index)
            if one is not None and one.rle is not None:
                scored = replace(scored, box_xyxy=one.box_xyxy, found=one.rle, scores=compare(one.rle, truth))
            objects.append(scored)
    return objects


def fill_boxes(objects: Sequence[ScoredObject]) -> list[ScoredObject]:
    """The floor: the same objects, each with a mask that simply fills the box that stood for it."""
    filled = []
    for one in objects:
        if one.box_xyxy is not None:
            height, width = one.truth["size"]
            found = filled_box(one.box_xyxy, (height, width))
            one = replace(one, found=found, scores=compare(found, one.truth))
        filled.append(one)
    return filled


def filled_box(box_xyxy: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Rle:
    """The mask of all pixels of a box, its corners rounded to whole pixels."""
    mask = np.zeros(size_hw, np.uint8, order="F")
    x1, y1, x2, y2 = np.maximum(np.round(box_xyxy), 0).astype(int)
    mask[y1:y2, x1:x2] = 1
    return _as_text(coco_mask.encode(mask))


def middle_point(mask: np.ndarray) -> tuple[float, float]:
    """The (x, y) of the mask's pixel that is farthest from its edge; mask: (H, W), not empty."""
    solid = mask.astype(np.uint8)
    left, top, width, height = cv2.boundingRect(solid)
    padded = np.pad(solid[top : top + height, left : left + width], 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x + left), float(y + top)


def mask_figures(objects: Sequence[ScoredObject], class_names: Sequence[str]) -> dict[str, Any]:
    """The mean of every score over the objects, and `per_class` the same over the objects of each class.

    `average_...` is over the objects that have a mask, `average_..._all_objects` over all, with 0 for those that
    have none. None where there is nothing to take the mean of.
    """
    per_class = {name: _averages([one for one in objects if one.label == name]) for name in class_names}
    return {**_averages(objects), "per_class": per_class}


def _averages(objects: Sequence[ScoredObject]) -> dict[str, Any]:
    scores = [one.scores for one in objects if one.scores is not None]
    figures: dict[str, Any] = {"objects": len(objects), "matched": len(scores)}
    for name in MaskScores.__dataclass_fields__:
        total = float(sum(getattr(one, name) for one in scores))
        figures[f"average_{name}"] = total / len(scores) if scores else None
        if name in ("iou", "accuracy", "boundary_iou"):
            figures[f"average_{name}_all_objects"] = total / len(objects) if objects else None
    return figures


def _as_text(rle: dict[str, Any]) -> Rle:
    """With counts as JSON can carry them."""
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}
