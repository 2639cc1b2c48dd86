"""Masks as prompts over HTTP: logits that come with a mask and go back with the next click."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.segmenter.upsampling import binary_masks
from models.square_images import resized_size
from tests.app.same_answers import assert_same
from tests.app.scoring_requests import COLUMNS, OTHER, PICTURE, encoded, mask_of, row, table, to_sam, to_yolof

pytestmark = pytest.mark.any_dtype
BOX = [[10, 10, 90, 50]]
CLICKS = {"points": [[[40, 30], [80, 20]]], "labels": [[1, 0]]}


def with_masks(*rows: tuple[dict[str, Any], Any], **params: Any) -> dict[str, Any]:
    return table([*COLUMNS, "input_masks"], [[*one.values(), masks] for one, masks in rows], params)


def first_of(answered: dict[str, Any]) -> dict[str, Any]:
    return answered["predictions"][0]["mask_per_prediction"][0]


def array_of(logits: str) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(logits, validate=True), "<f2")
    side = round(len(flat) ** 0.5)
    return flat.reshape(side, side)


def test_logits_come_with_each_mask_where_they_are_asked_for(answer: Callable[..., Any], http: httpx.Client) -> None:
    rows = (row(boxes=BOX * 2, multimask=True), row(**CLICKS))
    plain, asked = answer(to_sam(*rows)), answer(to_sam(*rows, return_logits=True))
    masks = [mask for one in asked for prompt in one["predictions"] for mask in prompt["mask_per_prediction"]]
    logits = np.stack([array_of(mask.pop("logits")) for mask in masks])
    assert_same(plain, asked)
    square, size_hw = http.get("/version").json()["segmenter"]["image_size"], (64, 128)
    shown = binary_masks(logits.astype(np.float32), square, resized_size(size_hw, square), size_hw)
    assert shown.shape == (7, 64, 128) and 0 < shown.mean() < 1
    assert (shown == np.stack([mask_of(mask) for mask in masks])).mean() > 0.999


def test_logits_and_masks_go_back_with_the_next_prompt(answer: Callable[..., Any]) -> None:
    first = first_of(answer(to_sam(row(boxes=BOX), return_logits=True))[0])
    logits, picture = first["logits"], first["encoded_binary_mask"]
    rows = [
        (row(**CLICKS), logits),
        (row(**CLICKS), None),
        (row(boxes=BOX * 3), [None, picture, logits]),
        (row(OTHER, boxes=BOX), ""),
        (row(), [logits, logits]),
    ]
    together = answer(with_masks(*rows))
    assert [len(one["predictions"]) for one in together] == [1, 1, 3, 1, 2]
    for one, alone in zip(rows, together, strict=True):
        assert_same(answer(with_masks(one)), [alone])
    # A prompt without a mask is what it is where nobody has one, and one with a mask is something else.
    assert_same([together[1]], answer(to_sam(row(**CLICKS))))
    assert_same([{"predictions": together[2]["predictions"][:1]}], answer(to_sam(row(boxes=BOX))))
    scores = [one["mask_per_prediction"][0]["iou_score"] for one in together[2]["predictions"]]
    assert len({round(score, 4) for score in scores}) == 3
    assert first_of(together[0])["iou_score"] != first_of(together[1])["iou_score"]


def test_the_pipelines_masks_have_logits_too(answer: Callable[..., Any]) -> None:
    params = {"score_threshold": 0, "max_detections": 2, "return_logits": True}
    (answered,) = answer(to_yolof(PICTURE, **params), "/pipeline/score")
    assert answered["boxes"] and all(
        array_of(one["mask_per_prediction"][0]["logits"]).any() for one in answered["boxes"]
    )


def test_a_mask_that_is_none_is_told_with_its_row(http: httpx.Client) -> None:
    mask = encoded(Image.fromarray(np.eye(64, dtype=bool)))
    response = http.post("/sam/score", json=with_masks((row(boxes=BOX), None), (row(boxes=BOX), mask)))
    assert response.status_code == 400
    expected = "row 1, input_masks: mask 0: expected the image's size, 128 x 64 (width x height), got 64 x 64"
    assert response.json() == {"message": expected}
