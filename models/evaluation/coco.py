"""COCO's average precision and recall of boxes or masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.data import Dataset
from models.evaluation.matching import Found

# COCOeval.stats in its order: precisions over IoU 0.5 to 0.95, recalls with at most 1, 10 and 100 detections an image.
STATS = (
    "mAP", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


def coco_figures(
    dataset: Dataset,
    found: Sequence[Sequence[Found]],
    kind: Literal["bbox", "segm"],
    truths: Sequence[Sequence[Mapping[str, Any] | None]] | None = None,
) -> dict[str, Any]:
    """`STATS`, and `per_class` with the AP and AP50 of each class; None where the data set has no such object.

    found: for each image what was found in it, with scores; at most the best hundred of a class and image count,
        and none of a class that the data set does not name.
    truths: the mask of every annotation, None where only its box is known; "segm" needs all of them, and all of
        `found` with masks. A mask's area, else the box's, makes an annotation small, medium or large.
    """
    categories = {name: number for number, name in enumerate(dataset.class_names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (image, in_image) in enumerate(zip(dataset.images, found, strict=True), start=1):
        images.append({"id": number, "height": image.size_hw[0], "width": image.size_hw[1]})
        for index, annotation in enumerate(image.annotations):
            rle = truths[number - 1][index] if truths is not None else None
            annotations.append(
                _entry(len(annotations) + 1, number, categories[annotation.label], annotation.box_xyxy, rle)
                | {"iscrowd": int(annotation.crowd)}
            )
        for one in in_image:
            if one.label in categories:
                rle = one.rle if kind == "segm" else None
                entry = _entry(len(results) + 1, number, categories[one.label], one.box_xyxy, rle)
                results.append(entry | {"score": one.score, "iscrowd": 0})

    with contextlib.redirect_stdout(io.StringIO()):
        named = [{"id": number, "name": name} for name, number in categories.items()]
        sides = []
        for entries in (annotations, results):
            side = COCO()
            side.dataset = {"images": images, "annotations": entries, "categories": named}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (T thresholds, R recalls, K classes)
    per_class = {
        name: {"AP": _mean(precision[:, :, index]), "AP50": _mean(precision[0, :, index])}
        for index, name in enumerate(dataset.class_names)
    }
    stats = {key: None if value < 0 else float(value) for key, value in zip(STATS, evaluation.stats, strict=True)}
    return {**stats, "per_class": per_class}


def _entry(
    number: int,
    image: int,
    category: int,
    box_xyxy: tuple[float, float, float, float],
    rle: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One object in COCO's form."""
    x1, y1, x2, y2 = box_xyxy
    entry = {"id": number, "image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    if rle is None:
        return entry | {"area": (x2 - x1) * (y2 - y1)}
    return entry | {"segmentation": dict(rle), "area": float(coco_mask.area(rle))}


def _mean(precision: np.ndarray) -> float | None:
    """COCO marks with -1 what no object could tell."""
    return None if (precision < 0).any() else float(precision.mean())
