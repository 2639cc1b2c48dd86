"""Masks of an answer are cleaned, kept apart and boxed where params say so, on every route that gives some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from models.masks.boxes import box_around
from models.masks.cleaning import Cleaning
from tests.app.scoring_requests import (
    OTHER,
    PICTURE,
    encoded,
    filled,
    mask_of,
    masks_of,
    picture,
    row,
    to_sam,
    to_yolof,
)

HEIGHT, WIDTH = 64, 128
BOXES = "[[4, 4, 90, 60], [30, 8, 120, 50], [60, 20, 100, 60]]"
CLEANINGS: list[tuple[dict[str, Any], Cleaning]] = [
    ({"min_region_area": 40}, Cleaning(40)),
    ({"fill_holes": True}, Cleaning(fill_holes=True)),
    ({"largest_part": True}, Cleaning(largest_part=True)),
    ({"min_region_area": 9, "fill_holes": True, "largest_part": True}, Cleaning(9, True, True)),
]


def corners(box: dict[str, float]) -> list[float]:
    return [box["topX"] * WIDTH, box["topY"] * HEIGHT, box["bottomX"] * WIDTH, box["bottomY"] * HEIGHT]


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (corners(one["box"]), corners(other["box"]))]
    return float(coco_mask.iou(np.array(boxes[:1]), np.array(boxes[1:]), [0])[0, 0])


@pytest.mark.parametrize(
    ("params", "cleaning"), CLEANINGS, ids=lambda one: " ".join(one) if isinstance(one, dict) else ""
)
def test_every_mask_is_cleaned(answer: Callable[..., Any], params: dict[str, Any], cleaning: Cleaning) -> None:
    asked = row(boxes=BOXES, multimask=True)
    (plain,), (cleaned,) = answer(to_sam(asked)), answer(to_sam(asked, **params))
    changed = 0
    for before, after in zip(plain["predictions"], cleaned["predictions"], strict=True):
        for one, other in zip(before["mask_per_prediction"], after["mask_per_prediction"], strict=True):
            assert list(other) == ["encoded_binary_mask", "iou_score"] and one["iou_score"] == other["iou_score"]
            np.testing.assert_array_equal(mask_of(other), cleaning(mask_of(one)))
            changed += bool((mask_of(one) != mask_of(other)).any())
    assert changed
    (as_runs,) = answer(to_sam(asked, mask_format="rle", **params))
    (as_polygons,) = answer(to_sam(asked, mask_format="polygon", **params))
    for number, mask in enumerate(masks_of(cleaned)):
        runs = as_runs["predictions"][number]["mask_per_prediction"][0]["rle"]
        assert (coco_mask.decode(runs) == mask).all()
        polygon = as_polygons["predictions"][number]["mask_per_prediction"][0]["polygon"]
        assert (filled(polygon, (HEIGHT, WIDTH)) == mask).all()
        if params.get("largest_part"):
            assert len(polygon) == 1
    plain_boxes, boxes = (
        answer(to_yolof(PICTURE, OTHER, score_threshold=0.05, max_detections=4, **more), "/pipeline/score")
        for more in ({}, params)
    )
    for one, other in zip(plain_boxes[0]["boxes"], boxes[0]["boxes"], strict=True):
        (before,), (after,) = one["mask_per_prediction"], other["mask_per_prediction"]
        assert (mask_of(after) == cleaning(mask_of(before))).all() and one["box"] == other["box"]


def test_each_pixel_is_of_one_mask(answer: Callable[..., Any]) -> None:
    asked = row(boxes=BOXES)
    (plain,), (apart,) = answer(to_sam(asked)), answer(to_sam(asked, no_overlaps=True))
    before, after = np.array(masks_of(plain)), np.array(masks_of(apart))
    assert before.sum(0).max() > 1 and after.sum(0).max() == 1
    assert (after.any(0) == before.any(0)).all()
    scores = [one["mask_per_prediction"][0]["iou_score"] for one in apart["predictions"]]
    best = int(np.argmax(scores))
    assert (after[best] == before[best]).all() and scores != sorted(scores, reverse=True)
    (cleaned,) = answer(to_sam(asked, no_overlaps=True, largest_part=True, fill_holes=True, tight_boxes=True))
    one_part = Cleaning(fill_holes=True, largest_part=True)
    for mask, entry in zip(masks_of(cleaned), cleaned["predictions"], strict=True):
        assert (Cleaning(largest_part=True)(mask) == mask).all()
        assert ("box" in entry["mask_per_prediction"][0]) == mask.any()
    whole = np.array([one_part(mask) for mask in before])
    assert np.sum(masks_of(cleaned), 0).max() == 1 and (masks_of(cleaned)[best] == whole[best]).all()


def test_in_the_pipeline_the_best_mask_is_of_the_best_box_and_quality(answer: Callable[..., Any]) -> None:
    asked = {"score_threshold": 0.05, "max_detections": 6}
    (plain,), (apart,) = (
        answer(to_yolof(PICTURE, **asked, **more), "/pipeline/score") for more in ({}, {"no_overlaps": True})
    )
    before, after = ([mask_of(one["mask_per_prediction"][0]) for one in found["boxes"]] for found in (plain, apart))
    ranks = [one["score"] * one["mask_per_prediction"][0]["iou_score"] for one in plain["boxes"]]
    owner = np.argmax([mask * rank for mask, rank in zip(before, ranks, strict=True)], axis=0)
    for number, mask in enumerate(after):
        assert (mask == (before[number] & (owner == number))).all()
    assert np.sum(before, 0).max() > 1


def test_boxes_around_the_masks(answer: Callable[..., Any]) -> None:
    (found,) = answer(to_sam(row(boxes=BOXES, multimask=True), tight_boxes=True, rotated_boxes=True))
    for one in found["predictions"]:
        for entry in one["mask_per_prediction"]:
            mask = mask_of(entry)
            assert list(entry) == ["encoded_binary_mask", "iou_score", "box", "rotated_box"]
            assert corners(entry["box"]) == list(map(float, box_around(mask)))
            turned = np.array(entry["rotated_box"]).reshape(4, 2) * (WIDTH, HEIGHT)
            ys, xs = np.nonzero(mask)
            middle = np.stack((xs + 0.5, ys + 0.5), 1) - turned[0]
            for side in (turned[1] - turned[0], turned[3] - turned[0]):
                share = middle @ side / (side @ side)
                assert share.min() > 0 and share.max() < 1
    asked = {"score_threshold": 0.05, "max_detections": 3, "tight_boxes": True}
    for params in (asked | {"multimask_output": True, "rotated_boxes": True}, asked | {"mask_format": "rle"}):
        (found,) = answer(to_yolof(PICTURE, **params), "/pipeline/score")
        for box in found["boxes"]:
            entry = max(box["mask_per_prediction"], key=lambda one: one["iou_score"])
            assert not {"box", "rotated_box"} & set(entry) and ("rotated_box" in box) == ("rotated_boxes" in params)
            mask = coco_mask.decode(entry["rle"]) > 0 if "rle" in entry else mask_of(entry)
            assert corners(box["box"]) == pytest.approx(list(map(float, box_around(mask))))


@pytest.mark.parametrize("route", ["/yolof/score", "/pipeline/score"])
def test_boxes_of_unlike_classes_suppress_each_other(answer: Callable[..., Any], route: str) -> None:
    image = encoded(picture(WIDTH, HEIGHT, seed=3))

    def boxes(**params: Any) -> list[dict[str, Any]]:
        found = answer(to_yolof(image, score_threshold=0.01, **params), route)[0]["boxes"]
        return [{key: one[key] for key in ("box", "label", "score")} for one in found]

    plain = boxes(max_detections=100)
    for params, threshold in (({}, 0.7), ({"iou_threshold": 0.3}, 0.3)):
        kept: list[dict[str, Any]] = []
        for one in boxes(max_detections=100, **params):  # the service's own classes have been told apart already
            if all(overlap(one, other) <= threshold for other in kept):
                kept.append(one)
        agnostic = boxes(max_detections=100, class_agnostic_nms=True, **params)
        assert agnostic == kept and len(kept) < len(boxes(max_detections=100, **params)) and kept[0] == plain[0]
        assert boxes(max_detections=3, class_agnostic_nms=True, **params) == kept[:3]


@pytest.mark.parametrize(
    ("route", "request_", "reason"),
    [
        ("/sam/score", to_sam(row(boxes=BOXES), row(boxes=BOXES, multimask=True), no_overlaps=True),
         "row 1, multimask_output: expected false with params.no_overlaps, got true, which asks for three masks"),
        ("/sam/score", to_sam(row(boxes=BOXES, multimask="no"), no_overlaps=True),
         'row 0, multimask_output: expected false with params.no_overlaps, got "no", which asks'),
        ("/pipeline/score", to_yolof(PICTURE, multimask_output=True, no_overlaps=True),
         "params.multimask_output: expected false with params.no_overlaps, got true: three masks"),
        ("/sam/score", to_sam(row(), min_region_area=-1),
         "params.min_region_area: expected a whole number from 0 to 1000000000, got -1"),
        ("/sam/score", to_sam(row(), min_region_area=1.5),
         "params.min_region_area: expected a whole number from 0 to 1000000000, got 1.5"),
        ("/sam/score", to_sam(row(), fill_holes="yes"), 'params.fill_holes: expected true or false, got "yes"'),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(http: httpx.Client, route: str, request_: dict[str, Any], reason: str) -> None:
    refused = http.post(route, json=request_)
    assert refused.status_code == 400 and refused.json()["message"].startswith(reason), refused.text


def test_a_row_without_prompts_may_ask_for_anything(answer: Callable[..., Any]) -> None:
    asked = [row(boxes="[]", multimask=""), row(boxes=BOXES)]
    (empty, found) = answer(to_sam(*asked, no_overlaps=True, largest_part=True, tight_boxes=True))
    assert empty == {"predictions": []} and len(found["predictions"]) == 3
