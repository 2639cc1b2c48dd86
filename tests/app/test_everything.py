"""Everything mode over HTTP: `params` on `/sam/score`, and Hugging Face's form on `/score` and `/`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from pycocotools import mask as coco_mask

from app.contract import grid_params, schemas
from app.contract.hugging_face import found_boxes
from app.errors import BadRequest
from app.settings import Settings
from models.demo.scenes import render_scene
from models.rle import decode_rle
from models.segmenter.everything import FoundMask, everything
from models.segmenter.grid import Grid
from models.segmenter.sam import Sam
from models.types import Detections
from tests.app.scoring_requests import PICTURE, converse, encoded, mask_of, row, to_sam, to_yolof

REPOSITORY = Path(__file__).parents[2]
GRID: dict[str, Any] = {"points_per_side": 4, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.7}
CROPS = GRID | {"crops_n_layers": 1}
IN_PIPELINES_NAMES = {"points_per_crop": 4, "points_per_batch": 3, "unknown": 1} | {
    name: value for name, value in GRID.items() if name != "points_per_side"
}
SCENE = Image.fromarray(render_scene(np.random.default_rng(5), (96, 128)).image)
BOX = [[20, 10, 90, 50]]


def on_its_side() -> str:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(SCENE, exif=exif)


def to_pipeline(inputs: Any, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters}


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "everything": ("/sam/score", to_sam(row(encoded(SCENE)), **GRID)),
    "crops": ("/sam/score", to_sam(row(encoded(SCENE)), **CROPS)),
    "as RLE": ("/sam/score", to_sam(row(encoded(SCENE)), **GRID, mask_format="rle")),
    "unprompted": ("/sam/score", to_sam(row(encoded(SCENE)))),
    "prompted": ("/sam/score", to_sam(row(encoded(SCENE), boxes=BOX))),
    "mixed": (
        "/sam/score",
        to_sam(row(encoded(SCENE), boxes=[]), row(encoded(SCENE), boxes=BOX), row(encoded(SCENE)), **GRID),
    ),
    "pipeline at /": ("/", to_pipeline(encoded(SCENE), **IN_PIPELINES_NAMES)),
    "pipeline at /score": ("/score", to_pipeline(encoded(SCENE), **IN_PIPELINES_NAMES)),
    "list": ("/", to_pipeline([encoded(SCENE)] * 2, **IN_PIPELINES_NAMES)),
    "empty list": ("/", {"inputs": []}),
    "on its side": ("/", to_pipeline(on_its_side(), **IN_PIPELINES_NAMES)),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What a service with the demo weights says to all of them."""
    said: dict[str, Any] = {}

    async def conversation(http: httpx.AsyncClient, app: FastAPI) -> None:
        for name, (path, content) in REQUESTS.items():
            response = await http.post(path, json=content)
            assert response.status_code == 200, response.text
            said[name] = response.json()

    converse(Settings(detector="none", segmenter="demo-sam", device="cpu"), conversation)
    return said


@pytest.fixture(scope="module")
def expected() -> Callable[..., list[FoundMask]]:
    segmenter = Sam.load(REPOSITORY / "weights" / "demo" / "sam")
    return lambda image=SCENE, **grid: everything(segmenter, np.asarray(image), Grid(**grid))


def check_same(masks: list[np.ndarray], scores: list[float], found: list[FoundMask]) -> None:
    assert len(masks) == len(found) > 1
    np.testing.assert_allclose(scores, [one.score for one in found], atol=1e-4)
    for mask, one in zip(masks, found, strict=True):
        assert mask.shape == tuple(one.rle["size"]) and np.mean(mask == decode_rle(one.rle)) >= 0.999


@pytest.mark.parametrize(("name", "grid"), [("everything", GRID), ("crops", CROPS)])
def test_a_row_without_prompts_gets_all_masks_if_params_ask(
    answers: dict[str, Any], expected: Callable[..., list[FoundMask]], name: str, grid: dict[str, Any]
) -> None:
    (given,) = answers[name]
    each = [one["mask_per_prediction"] for one in given["predictions"]]
    assert {len(masks) for masks in each} == {1}
    check_same([mask_of(mask) for (mask,) in each], [mask["iou_score"] for (mask,) in each], expected(**grid))


def test_crops_find_more(answers: dict[str, Any]) -> None:
    assert len(answers["crops"][0]["predictions"]) > len(answers["everything"][0]["predictions"])


def test_masks_have_the_form_that_is_asked_for(answers: dict[str, Any]) -> None:
    (pngs,), (rles,) = answers["everything"], answers["as RLE"]
    for png, rle in zip(pngs["predictions"], rles["predictions"], strict=True):
        assert (coco_mask.decode(rle["mask_per_prediction"][0]["rle"]) == mask_of(png["mask_per_prediction"][0])).all()


def test_without_these_params_and_with_prompts_nothing_changes(answers: dict[str, Any]) -> None:
    assert len(answers["unprompted"][0]["predictions"]) == 1
    nothing, prompted, everything_of_it = answers["mixed"]
    assert nothing == {"predictions": []}
    assert [prompted] == answers["prompted"] and [everything_of_it] == answers["everything"]


def test_hugging_faces_form_is_answered_as_the_pipeline_answers(
    answers: dict[str, Any], expected: Callable[..., list[FoundMask]]
) -> None:
    given = answers["pipeline at /"]
    assert set(given) == {"results"} and {tuple(one) for one in given["results"]} == {("mask", "score")}
    masks = [mask_of({"encoded_binary_mask": one["mask"]}) for one in given["results"]]
    scores = [one["score"] for one in given["results"]]
    check_same(masks, scores, expected(**GRID))
    assert scores == sorted(scores, reverse=True)
    assert answers["pipeline at /score"] == given
    assert answers["list"] == [given, given] and answers["empty list"] == []


def test_a_photo_on_its_side_is_turned_upright_as_transformers_opens_it(
    answers: dict[str, Any], expected: Callable[..., list[FoundMask]]
) -> None:
    results = answers["on its side"]["results"]
    masks = [mask_of({"encoded_binary_mask": one["mask"]}) for one in results]
    assert masks[0].shape == (128, 96)
    check_same(masks, [one["score"] for one in results], expected(SCENE.transpose(Image.Transpose.ROTATE_270), **GRID))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("/score", {"inputs": 3}, 'inputs: expected "<base64 or URL of an image>", or a list of such, got a number'),
        ("/score", {"inputs": [None]}, "got null among them"),
        ("/score", {"inputs": PICTURE, "parameters": []}, "parameters: expected an object, got a list"),
        ("/score", {"inputs": PICTURE, "input_data": {}}, "expected inputs or input_data in the body, got both"),
        ("/score", {"inputs": "no image!"}, "inputs: expected base64 or an http(s) URL of a JPEG"),
        ("/", {"inputs": [PICTURE, "no image!"]}, "inputs[1]: expected base64 or an http(s) URL of a JPEG"),
        ("/score", {"inputs": [PICTURE] * 257}, "inputs: expected at most 256 images, got 257"),
        ("/", {"inputs": PICTURE, "parameters": {"threshold": 0.5}}, "for boxes send input_data to /yolof/score"),
        (
            "/",
            {"inputs": PICTURE, "parameters": {"points_per_batch": 0}},
            "parameters.points_per_batch: expected a whole",
        ),
        ("/sam/score", {"inputs": PICTURE}, "expected input_data in the body, got inputs; inputs is the form of"),
        (
            "/sam/score",
            to_sam(row(), pred_iou_thresh="1"),
            'params.pred_iou_thresh: expected a number from 0 to 1, got "1"',
        ),
    ],
)
def test_what_cannot_be_answered_is_said(http: httpx.Client, path: str, content: Any, message: str) -> None:
    response = http.post(path, json=content)
    assert response.status_code == 400 and message in response.json()["message"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"points_per_side": 2.5}, "params.points_per_side: expected a whole number from 1 to 256, got 2.5"),
        ({"points_per_side": 10**400}, "params.points_per_side: expected a whole number from 1 to 256, got 1000"),
        ({"crop_n_layers": 4}, "params.crop_n_layers: expected a whole number from 0 to 3, got 4"),
        ({"crop_overlap_ratio": True}, "params.crop_overlap_ratio: expected a number from 0 to 1, got true"),
        ({"mask_threshold": float("nan")}, "params.mask_threshold: expected a number from -1000 to 1000, got NaN"),
        (
            {"box_nms_thresh": 0.7, "crop_nms_thresh": 0.6},
            "params.crop_nms_thresh: expected one value with params.box_nms_thresh, .* same here, got 0.6 and 0.7",
        ),
        (
            {"points_per_crop": 64, "crops_n_layers": 3},
            "params.points_per_crop: expected at most 100000 points .*348160",
        ),
    ],
)
def test_params_out_of_bounds_are_said(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message.replace("(", r"\(")):
        schemas.parse_params(params)


def test_both_names_of_a_param_are_read_and_null_is_none() -> None:
    assert grid_params.read_grid({"points_per_side": None, "mask_format": "rle"}) is None
    asked = {"points_per_side": 16.0, "crop_n_layers": 1, "box_nms_thresh": 0.5, "crop_nms_thresh": 0.5}
    assert grid_params.read_grid(asked) == Grid(16, crops_nms_thresh=0.5, crops_n_layers=1)


def test_clicks_run_in_between(sam_only: Callable[..., Settings]) -> None:
    async def conversation(http: httpx.AsyncClient, app: FastAPI) -> None:
        many = asyncio.create_task(http.post("/sam/score", json=to_sam(row(), points_per_side=40)))
        compute = app.state.serving.scorer.engine._devices[0].compute
        while not compute.load:
            await asyncio.sleep(0)
        click = await http.post("/sam/score", json=to_sam(row(points=[[[30, 30]]])))
        assert click.status_code == 200 and not many.done()
        many.cancel()
        await asyncio.gather(many, return_exceptions=True)

    converse(sam_only(), conversation)


def test_more_masks_than_an_answer_may_have_are_refused(sam_only: Callable[..., Settings]) -> None:
    all_of_them = {"points_per_side": 3, "pred_iou_thresh": 0, "stability_score_thresh": 0, "crops_nms_thresh": 1}

    async def conversation(http: httpx.AsyncClient, app: FastAPI) -> None:
        response = await http.post("/sam/score", json=to_sam(row(), **all_of_them))
        assert response.status_code == 400
        assert "expected at most 9000 pixels in all masks of a request" in response.json()["message"]

    converse(sam_only(max_mask_pixels=9000), conversation)


def test_a_detector_alone_answers_as_the_object_detection_pipeline() -> None:
    async def conversation(http: httpx.AsyncClient, app: FastAPI) -> None:
        boxes = (await http.post("/", json={"inputs": PICTURE, "parameters": {"threshold": 0.01}})).json()
        theirs = (await http.post("/yolof/score", json=to_yolof(PICTURE, score_threshold=0.01))).json()[0]["boxes"]
        assert len(boxes) == len(theirs) > 0
        for one, other in zip(boxes, theirs, strict=True):
            assert (one["score"], one["label"]) == (other["score"], other["label"])
            corners = [other["box"][name] for name in ("topX", "topY", "bottomX", "bottomY")]
            expected = np.array(corners) * (128, 64, 128, 64)
            assert list(one["box"]) == ["xmin", "ymin", "xmax", "ymax"]
            assert all(isinstance(value, int) for value in one["box"].values())
            np.testing.assert_allclose(list(one["box"].values()), expected, atol=1)
        (rest,) = (await http.post("/score", json={"inputs": [PICTURE]})).json()
        assert rest == [one for one in boxes if one["score"] >= 0.5]

    converse(Settings(detector="demo-yolof", segmenter="none", device="cpu"), conversation)


def test_a_pipelines_boxes_are_cut_to_whole_pixels() -> None:
    found = Detections(
        np.array([[1.9, 2.1, 9.99, 8.0]], np.float32), np.array([0.5], np.float32), np.array([1]), (10, 12)
    )
    box = {"xmin": 1, "ymin": 2, "xmax": 9, "ymax": 8}
    assert found_boxes(found, ("can", "carton")) == [{"score": 0.5, "label": "carton", "box": box}]
