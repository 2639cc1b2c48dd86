"""Small objects in large photos: with `params.tiles` the answers are those about the tiles, in pixels of the photo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from pycocotools import mask as coco_mask

from app.errors import BadRequest
from app.scoring.cost import AnswerCost, AnswerLimits
from app.settings import Settings
from models.detector.tiles import merged
from models.segmenter.tiles import reaches_on
from models.tiles import Part, Tiling
from models.types import Detections
from tests.app.same_answers import assert_same, assert_same_pixels
from tests.app.scoring_requests import COLUMNS, converse, encoded, mask_of, masks_of, picture, row, to_sam, to_yolof

WIDTH, HEIGHT = 128, 96
PHOTO = picture(WIDTH, HEIGHT, seed=4)
IMAGE = encoded(PHOTO)
TILES = {"tiles": 64, "tile_overlap": 0.5}
TILING = Tiling(64, 0.5)
BOX, ITS_TILE = (76, 10, 92, 30), Part((64, 0, 128, 64))
LARGE_BOX = (10, 10, 110, 80)
NAMES = ["can", "carton", "milk_bottle", "water_bottle"]


def part_of(part: Part) -> str:
    return encoded(Image.fromarray(part.of(np.asarray(PHOTO))))


def moved(points: list[int], part: Part) -> list[int]:
    return [int(value - part.box_xyxy[place % 2]) for place, value in enumerate(points)]


def test_without_tiles_and_with_one_nothing_is_different(answer: Callable[..., Any]) -> None:
    for path, request in (
        ("/yolof/score", lambda **params: to_yolof(IMAGE, **params)),
        ("/pipeline/score", lambda **params: to_yolof(IMAGE, score_threshold=0.1, max_detections=4, **params)),
        ("/sam/score", lambda **params: to_sam(row(IMAGE, boxes=[BOX, LARGE_BOX]), **params)),
    ):
        plain = answer(request(), path)
        for params in ({"tiles": 0}, {"tiles": None, "tile_overlap": 0.5}, {"tiles": 128}, {"tiles": 65536}):
            assert_same(answer(request(**params), path), plain)


@pytest.mark.parametrize("merge", ["nms", "fusion"])
def test_boxes_are_those_of_the_tiles_and_the_whole_photo(answer: Callable[..., Any], merge: Any) -> None:
    parts = [Part((0, 0, WIDTH, HEIGHT)), *TILING.tiles((HEIGHT, WIDTH))]
    assert len(parts) == 1 + 3 * 2
    views = []
    for part in parts:
        (found,) = answer(to_yolof(part_of(part), score_threshold=0.1), "/yolof/score")
        height, width = part.size_hw
        corners = [[one["box"][name] for name in ("topX", "topY", "bottomX", "bottomY")] for one in found["boxes"]]
        boxes = np.array(corners, np.float32).reshape(-1, 4) * np.array((width, height) * 2, np.float32)
        scores = np.array([one["score"] for one in found["boxes"]], np.float32)
        labels = np.array([NAMES.index(one["label"]) for one in found["boxes"]], np.int64)
        views.append((part, Detections(boxes, scores, labels, part.size_hw)))
    expected = merged(views, (HEIGHT, WIDTH), merge=merge)
    asked = to_yolof(IMAGE, IMAGE, score_threshold=0.1, tile_merge=merge, **TILES)
    (first, second) = answer(asked, "/yolof/score")
    assert first == second and len(first["boxes"]) == len(expected) > len(views[0][1])
    found = [
        (
            *(one["box"][name] for name in ("topX", "topY", "bottomX", "bottomY")),
            one["score"],
            NAMES.index(one["label"]),
        )
        for one in first["boxes"]
    ]
    corners = expected.boxes_xyxy / np.array((WIDTH, HEIGHT, WIDTH, HEIGHT), np.float32)
    wanted = np.column_stack([corners, expected.scores, expected.labels])
    # Scores may be equal, or change places by their last digits: so each row has one beside it in the other list.
    apart = np.abs(np.array(found)[:, None] - wanted).max(-1)
    assert apart.min(0).max() < 1e-3 and apart.min(1).max() < 1e-3
    (few,) = answer(to_yolof(IMAGE, score_threshold=0.1, max_detections=2, tile_merge=merge, **TILES), "/yolof/score")
    assert_same(few["boxes"], first["boxes"][:2])


def test_a_small_boxs_mask_is_that_of_its_tile(answer: Callable[..., Any]) -> None:
    asked = row(IMAGE, boxes=[LARGE_BOX, BOX])
    (found,), (plain,) = answer(to_sam(asked, **TILES)), answer(to_sam(asked))
    (in_tile,) = answer(to_sam(row(part_of(ITS_TILE), boxes=[moved([*BOX], ITS_TILE)])))
    large, small = masks_of(found)
    assert_same_pixels(large, masks_of(plain)[0])
    assert_same_pixels(small, ITS_TILE.in_image(masks_of(in_tile)[0], (HEIGHT, WIDTH)))
    assert (small != masks_of(plain)[1]).mean() > 0.01
    (alone,) = answer(to_sam(row(IMAGE, boxes=[BOX]), **TILES))
    assert_same(alone["predictions"][0], found["predictions"][1])


def test_a_clicks_mask_is_that_of_its_tile_unless_it_goes_on_outside(answer: Callable[..., Any]) -> None:
    click = [100, 20]
    for labels in ([[1]], [[0]]):
        asked = row(IMAGE, points=[[click]], labels=labels, multimask=True)
        (in_tile,) = answer(
            to_sam(row(part_of(ITS_TILE), points=[[moved(click, ITS_TILE)]], labels=labels, multimask=True))
        )
        (found,), (plain,) = answer(to_sam(asked, **TILES)), answer(to_sam(asked))
        of_tile = in_tile["predictions"][0]["mask_per_prediction"]
        best = max(of_tile, key=lambda mask: mask["iou_score"])
        outside = reaches_on(mask_of(best), ITS_TILE, (HEIGHT, WIDTH))
        for number, one in enumerate(found["predictions"][0]["mask_per_prediction"]):
            whole = mask_of(plain["predictions"][0]["mask_per_prediction"][number])
            placed = ITS_TILE.in_image(mask_of(of_tile[number]), (HEIGHT, WIDTH))
            assert_same_pixels(mask_of(one), whole if outside else placed)


def test_forms_cleaning_and_rows_go_with_tiles(answer: Callable[..., Any]) -> None:
    rows = [row(IMAGE, boxes=[BOX, LARGE_BOX]), row(IMAGE, boxes=[]), row(IMAGE, points=[[[20, 20]]]), row(IMAGE)]
    plain = answer(to_sam(*rows, **TILES))
    as_rle = answer(to_sam(*rows, mask_format="rle", no_overlaps=True, tight_boxes=True, **TILES))
    assert [len(one["predictions"]) for one in plain] == [2, 0, 1, 1]
    for one in as_rle:
        masks = [coco_mask.decode(each["mask_per_prediction"][0]["rle"]) for each in one["predictions"]]
        assert all(mask.shape == (HEIGHT, WIDTH) for mask in masks) and (not masks or np.sum(masks, 0).max() == 1)
    for number, asked in enumerate(rows):
        assert_same(answer(to_sam(asked, **TILES)), [plain[number]])
    fractions = [[x / WIDTH if place % 2 == 0 else x / HEIGHT for place, x in enumerate(BOX)]]
    (normalized,) = answer(to_sam(row(IMAGE, boxes=fractions), coordinates="normalized", **TILES))
    assert_same_pixels(masks_of(normalized)[0], masks_of(plain[0])[0])


def test_the_pipelines_masks_are_those_of_its_boxes(answer: Callable[..., Any]) -> None:
    asked = {"score_threshold": 0.1, "max_detections": 5, **TILES}
    (found,), (alone,) = (answer(to_yolof(IMAGE, **asked), path) for path in ("/pipeline/score", "/yolof/score"))
    boxes = [[one["box"][name] for name in ("topX", "topY", "bottomX", "bottomY")] for one in found["boxes"]]
    assert_same([{**one, "mask_per_prediction": []} for one in alone["boxes"]],
                [{**one, "mask_per_prediction": []} for one in found["boxes"]])  # fmt: skip
    (masks,) = answer(to_sam(row(IMAGE, boxes=boxes), coordinates="normalized", **TILES))
    for one, mask in zip(found["boxes"], masks_of(masks), strict=True):
        assert_same_pixels(mask_of(one["mask_per_prediction"][0]), mask)


def test_tiles_are_encoded_once(sam_only: Callable[..., Settings]) -> None:
    async def conversation(http: httpx.AsyncClient, app: FastAPI) -> None:
        counts = []
        for boxes in ([BOX, BOX, [100, 20, 110, 30]], [BOX], [[5, 5, 20, 20]], [LARGE_BOX]):
            response = await http.post("/sam/score", json=to_sam(row(IMAGE, boxes=boxes), **TILES))
            assert response.status_code == 200, response.text
            counts.append(app.state.serving.scorer.engine.cache.stats().misses)
        assert counts == [1, 1, 2, 3]  # one tile, the same, another one, the whole photo

    converse(sam_only(), conversation)


@pytest.mark.parametrize(
    ("path", "request_", "reason"),
    [
        ("/yolof/score", to_yolof(IMAGE, tiles=15),
         "params.tiles: expected 0, or the side of a tile in whole pixels from 16 to 65536, got 15"),
        ("/sam/score", to_sam(row(IMAGE, boxes=[BOX]), tiles="1024"), "params.tiles: expected 0, or the side of a"),
        ("/score", to_yolof(IMAGE, tiles=True), "params.tiles: expected 0, or the side of a tile"),
        ("/score", to_yolof(IMAGE, tiles=64, tile_overlap=1), "params.tile_overlap: expected a number from 0 to 0.9"),
        ("/score", to_yolof(IMAGE, tiles=64, tile_overlap=10**400), "params.tile_overlap: expected a number from 0"),
        ("/score", to_yolof(IMAGE, tiles=64, tile_merge="wbf"),
         'params.tile_merge: expected "nms" or "fusion", got "wbf"'),
        ("/yolof/score", to_yolof(IMAGE, tiles=16, tile_overlap=0.9),
         "row 0: params.tiles: expected at most 1024 tiles in all images of a request, got 9153, with a side of 16 and "
         "an overlap of 0.9 in an image of 128 x 96 (width x height): take tiles of "),
        ("/sam/score", to_sam(row(IMAGE, boxes=[BOX]), tiles=64, return_logits=True),
         "params.return_logits: expected false with params.tiles, got true"),
        ("/sam/score", to_sam(row(IMAGE), tiles=64, points_per_side=4),
         "params.tiles: expected it without params.points_per_side"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(http: httpx.Client, path: str, request_: dict[str, Any], reason: str) -> None:
    refused = http.post(path, json=request_)
    assert refused.status_code == 400 and refused.json()["message"].startswith(reason), refused.text


def test_the_smallest_tiles_that_are_told_are_enough() -> None:
    def refused(side: int, limits: AnswerLimits, size_hw: tuple[int, int]) -> str:
        try:
            AnswerCost(limits).plan_tiles(Tiling(side, 0.3), size_hw, 3)
        except BadRequest as error:
            return error.message
        return ""

    for limits, size_hw in (
        (AnswerLimits(), (3000, 4000)),
        (AnswerLimits(tiles=7), (100, 90)),
        (AnswerLimits(), (1, 9000)),
    ):
        message = refused(16, limits, size_hw) or refused(2, limits, size_hw)
        assert message.startswith("row 3: params.tiles: expected at most")
        smallest = int(message.split("take tiles of ")[1].split()[0])
        assert not refused(smallest, limits, size_hw) and refused(smallest - 1, limits, size_hw)


def test_prompts_in_many_tiles_are_refused(http: httpx.Client) -> None:
    cost = AnswerCost(AnswerLimits(tiles=5))
    cost.plan_prompts(3, 0)
    with pytest.raises(
        BadRequest, match="row 1: params.tiles: expected prompts in at most 5 tiles in a request, got 6"
    ):
        cost.plan_prompts(3, 1)
    boxes = [[x, y, x + 4, y + 4] for x in range(0, 120, 3) for y in range(0, 90, 4)]
    refused = http.post("/sam/score", json=to_sam(*[row(IMAGE, boxes=boxes)] * 2, tiles=16, tile_overlap=0.9))
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("row 1: params.tiles: expected prompts in at most 1024 tiles")


def test_masks_as_prompts_are_refused(http: httpx.Client) -> None:
    request = to_sam(row(IMAGE, boxes=[BOX]), tiles=64)
    request["input_data"]["columns"] = [*COLUMNS, "input_masks"]
    mask = Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8))
    request["input_data"]["data"][0].append([encoded(mask)])
    refused = http.post("/sam/score", json=request)
    assert refused.status_code == 400
    assert refused.json()["message"].startswith("row 0, input_masks: expected none with params.tiles, got 1, which are")
