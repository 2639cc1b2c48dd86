"""A service that computes in bfloat16, end to end, beside one in float32: the default on GPUs and some processors."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from app.settings import Settings
from models.demo.scenes import render_scene
from tests.app.scoring_requests import converse, encoded, mask_of, row, to_sam, to_yolof

SIZE_HW = (192, 256)


@pytest.fixture(scope="module")
def answers() -> dict[str, list[Any]]:
    """By the numbers: what is served, and the answers of the pipeline and to a click."""
    photo = encoded(Image.fromarray(render_scene(np.random.default_rng(5), SIZE_HW, containers=(3, 3)).image))
    said: dict[str, list[Any]] = {}

    for dtype in ("float32", "bfloat16"):
        found = said[dtype] = []

        async def conversation(client: httpx.AsyncClient, app: FastAPI, found: list[Any] = found) -> None:
            found.append((await client.get("/version")).json())
            for path, content in (
                ("/pipeline/score", to_yolof(photo, score_threshold=0.5)),
                ("/sam/score", to_sam(row(photo, boxes=[[20, 20, 120, 150]], multimask=True))),
            ):
                response = await client.post(path, json=content)
                assert response.status_code == 200, response.text
                found.append(response.json()[0])

        converse(Settings(detector="demo-yolof", segmenter="demo-sam", device="cpu", dtype=dtype), conversation)
    return said


def test_it_is_served_in_the_numbers_that_were_asked_for(answers: dict[str, list[Any]]) -> None:
    for dtype, (version, *_) in answers.items():
        assert version["detector"]["dtype"] == version["segmenter"]["dtype"] == dtype


def test_boxes_are_near_those_of_float32(answers: dict[str, list[Any]]) -> None:
    """Within 1 px and 0.01, as docs/performance.md has it of the demo weights."""
    fine, coarse = (answers[dtype][1]["boxes"] for dtype in ("float32", "bfloat16"))
    assert [one["label"] for one in coarse] == [one["label"] for one in fine] != []
    for one, other in zip(coarse, fine, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=0.01)
        for key, length in (("topX", 256), ("topY", 192), ("bottomX", 256), ("bottomY", 192)):
            assert one["box"][key] * length == pytest.approx(other["box"][key] * length, abs=1)


def test_masks_are_near_those_of_float32(answers: dict[str, list[Any]]) -> None:
    ious = []
    for part, key in ((1, "boxes"), (2, "predictions")):
        for one, other in zip(answers["bfloat16"][part][key], answers["float32"][part][key], strict=True):
            for mask, expected in zip(one["mask_per_prediction"], other["mask_per_prediction"], strict=True):
                assert mask["iou_score"] == pytest.approx(expected["iou_score"], abs=0.05)
                ours, theirs = mask_of(mask), mask_of(expected)
                ious.append((ours & theirs).sum() / (ours | theirs).sum())
    assert len(ious) >= 4 and np.mean(ious) > 0.97 and min(ious) > 0.9
