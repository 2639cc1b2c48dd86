"""A detector's figures: COCO's average precision, Pascal VOC's, and precision and recall at IoU 0.5."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.data import Dataset
from models.evaluation.coco import coco_figures
from models.evaluation.matching import Found, match


def box_figures(
    dataset: Dataset,
    found: Sequence[Sequence[Found]],
    score_threshold: float,
    truths: Sequence[Sequence[Mapping[str, Any] | None]] | None = None,
) -> dict[str, Any]:
    """The detector's figures over a data set; None for what nothing in it can tell.

    found: for each image its detections, also those of low scores, which average precision is made of; each
        has a score. Those of a class that the data set does not name are left out: it cannot tell if they are right.
    score_threshold: from which score on a detection counts for precision and recall.
    truths: the annotations' masks, whose areas tell small objects from large ones; the boxes' do without.
    """
    names = dataset.class_names
    scores: dict[str, list[float]] = {name: [] for name in names}
    right: dict[str, list[bool]] = {name: [] for name in names}
    for image, in_image in zip(dataset.images, found, strict=True):
        matching = match(image, in_image)
        for one, annotation, ignored in zip(in_image, matching.annotations, matching.ignored, strict=True):
            if one.label in scores and not ignored:
                assert one.label is not None and one.score is not None
                scores[one.label].append(one.score)
                right[one.label].append(annotation is not None)
    objects = Counter(one.label for _, one in dataset.annotations() if not one.crowd)

    coco = coco_figures(dataset, found, "bbox", truths)
    ap_of_class = coco.pop("per_class")
    per_class: dict[str, dict[str, Any]] = {}
    for name in names:
        sure = [is_right for is_right, score in zip(right[name], scores[name], strict=True) if score >= score_threshold]
        per_class[name] = {
            **counts(objects[name], len(sure), sum(sure)),
            "voc_AP50": average_precision(scores[name], right[name], objects[name]),
            **ap_of_class[name],
        }
    every = list(per_class.values())
    voc = [one["voc_AP50"] for one in every if one["voc_AP50"] is not None]
    return {
        **counts(*(sum(one[key] for one in every) for key in ("objects", "detections", "right"))),
        "voc_mAP50": float(np.mean(voc)) if voc else None,
        "coco": coco,
        "per_class": per_class,
    }


def counts(objects: int, detections: int, right: int) -> dict[str, Any]:
    """How many there are, with precision and recall; None where there is nothing to take the share of."""
    return {
        "objects": objects,
        "detections": detections,
        "right": right,
        "precision": right / detections if detections else None,
        "recall": right / objects if objects else None,
    }


def average_precision(scores: Sequence[float], right: Sequence[bool], objects: int) -> float | None:
    """Pascal VOC's average precision since 2010: the whole area under the precision-recall curve.

    Precision at a recall is the best precision at that recall or a higher one. (Until 2009 it was the mean over
    eleven recalls, which is not used here.) scores, right: of every detection of a class. objects: how many there are
    to find; None where there are none.
    """
    if not objects:
        return None
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    hits = np.asarray(right, bool)[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[hits].sum() / objects)
