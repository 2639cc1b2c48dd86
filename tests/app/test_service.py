"""The service over HTTP: what it answers with boxes, masks and both."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from pycocotools import mask as coco_mask

from app.settings import Settings
from tests.app.same_answers import assert_same, assert_same_pixels, bounds
from tests.app.scoring_requests import (
    OTHER,
    PICTURE,
    converse,
    encoded,
    filled,
    mask_of,
    masks_of,
    picture,
    row,
    to_sam,
    to_yolof,
)

pytestmark = pytest.mark.any_dtype

REQUESTS = Path(__file__).parents[3] / "shared" / "requests"


# Detections


def test_boxes_are_azures(answer: Callable[..., Any]) -> None:
    (answered,) = answer(to_yolof(PICTURE))
    assert list(answered) == ["boxes"] and answered["boxes"]
    for one in answered["boxes"]:
        assert set(one) == {"box", "label", "score"}
        box = one["box"]
        assert list(box) == ["topX", "topY", "bottomX", "bottomY"]
        assert 0 <= box["topX"] <= box["bottomX"] <= 1 and 0 <= box["topY"] <= box["bottomY"] <= 1
        assert one["label"] in ("can", "carton", "milk_bottle", "water_bottle")
    scores = [one["score"] for one in answered["boxes"]]
    assert scores == sorted(scores, reverse=True) and 0.05 < scores[-1] < scores[0] <= 1


def test_rows_are_answered_in_order_as_each_alone(answer: Callable[..., Any]) -> None:
    images = [PICTURE, OTHER, PICTURE, encoded(picture(60, 90, seed=2))]
    alone = [answer(to_yolof(image))[0]["boxes"] for image in images]
    together = [answered["boxes"] for answered in answer(to_yolof(*images))]
    assert [len(boxes) for boxes in together] == [len(boxes) for boxes in alone]
    for one, other in zip(alone, together, strict=True):
        assert [box["label"] for box in one] == [box["label"] for box in other]
        for key in ("topX", "topY", "bottomX", "bottomY"):
            np.testing.assert_allclose([b["box"][key] for b in one], [b["box"][key] for b in other], atol=1e-4)


def test_thresholds_narrow_what_is_answered(answer: Callable[..., Any]) -> None:
    def boxes(**params: Any) -> list[dict[str, Any]]:
        return answer(to_yolof(PICTURE, **params))[0]["boxes"]

    default = boxes()
    middle = sorted(one["score"] for one in default)[len(default) // 2]
    assert boxes(score_threshold=middle) == [one for one in default if one["score"] > middle] != []
    assert boxes(score_threshold=1) == []
    assert boxes(max_detections=3) == default[:3]
    fewer, as_set, all_of_them = (len(boxes(iou_threshold=iou, max_detections=1000)) for iou in (0, 0.6, 1))
    assert fewer < as_set < all_of_them
    assert len(boxes(iou_threshold=1)) == 100 < all_of_them
    assert boxes(iou_threshold=0.6, score_threshold=0.05, max_detections=100) == default


# Masks


def test_the_model_cards_form_is_the_default(answer: Callable[..., Any]) -> None:
    (answered,) = answer(to_sam(row(boxes="[[10, 10, 90, 50]]")))
    assert list(answered) == ["predictions"]
    assert list(answered["predictions"][0]) == ["mask_per_prediction"]
    (mask,) = answered["predictions"][0]["mask_per_prediction"]
    assert set(mask) == {"encoded_binary_mask", "iou_score"} and isinstance(mask["iou_score"], float)


def test_the_live_form_says_the_same(answer: Callable[..., Any]) -> None:
    rows = (row(points="[[[20, 20]], [[90, 40]]]", multimask=True), row(boxes="[[10, 10, 90, 50]]"))
    card, live = answer(to_sam(*rows)), answer(to_sam(*rows, response_schema="live"))
    assert_same(answer(to_sam(*rows, response_schema="card")), card)
    expected = [
        {
            "response": {
                "predictions": [{"masks_per_prediction": one["mask_per_prediction"]} for one in a["predictions"]]
            }
        }
        for a in card
    ]
    assert_same(live, expected)


def test_there_is_a_prediction_for_every_prompt_in_order(answer: Callable[..., Any]) -> None:
    points, boxes = [[[20, 20]], [[90, 40]], [[5, 60]]], [[10, 10, 90, 50], [60, 5, 120, 60], [0, 0, 30, 30]]
    alone: dict[str, list[Any]] = {"points": [], "boxes": [], "both": []}
    for point, box in zip(points, boxes, strict=True):
        rows = (row(points=[point]), row(boxes=[box]), row(points=[point], boxes=[box]))
        for kind, answered in zip(alone, answer(to_sam(*rows)), strict=True):
            alone[kind] += masks_of(answered)
    together = answer(to_sam(row(points=points), row(boxes=boxes), row(points=points, boxes=boxes)))
    for kind, answered in zip(alone, together, strict=True):
        found = masks_of(answered)
        assert len(found) == 3
        assert len({mask.tobytes() for mask in found}) == 3  # the prompts matter
        for mask, expected in zip(found, alone[kind], strict=True):
            assert_same_pixels(mask, expected)


def test_masks_have_the_images_size(answer: Callable[..., Any]) -> None:
    sizes = [(128, 64), (63, 101), (1, 1), (300, 2)]  # width, height
    rows = [row(encoded(picture(*size)), points="[[[0.5, 0.5]]]", multimask=True) for size in sizes]
    for (width, height), answered in zip(sizes, answer(to_sam(*rows, coordinates="absolute")), strict=True):
        for mask in answered["predictions"][0]["mask_per_prediction"]:
            assert mask_of(mask).shape == (height, width)


def test_rows_of_one_image_are_answered_as_if_sent_alone(answer: Callable[..., Any]) -> None:
    rows = [
        row(points="[[[20, 20]]]"),
        row(OTHER, boxes="[[10, 10, 90, 50]]"),
        row(boxes="[[10, 10, 90, 50]]", multimask=True),
        row(points="[[[20, 20]]]", boxes="[[10, 10, 90, 50]]", labels="[[0]]"),
    ]
    assert_same(answer(to_sam(*rows)), [answer(to_sam(one))[0] for one in rows])


def test_normalized_coordinates_equal_absolute_ones(answer: Callable[..., Any]) -> None:
    absolute = row(points="[[[32, 16], [96, 48]]]", boxes="[[16, 8, 112, 60]]", labels="[[1, 0]]")
    fractions = row(points="[[[0.25, 0.25], [0.75, 0.75]]]", boxes="[[0.125, 0.125, 0.875, 0.9375]]", labels="[[1, 0]]")
    expected = answer(to_sam(absolute))
    assert_same(answer(to_sam(fractions, coordinates="normalized")), expected)
    assert_same(answer(to_sam(absolute, coordinates="absolute")), expected)


def test_every_mask_format_decodes_to_the_same_pixels(answer: Callable[..., Any]) -> None:
    rows = [row(points="[[[20, 20]], [[90, 40]]]", multimask=True), row(OTHER, boxes="[[10, 10, 90, 50]]")]
    png, rle, polygon = (answer(to_sam(*rows, mask_format=name)) for name in ("png", "rle", "polygon"))
    assert_same(png, answer(to_sam(*rows)))
    some = 0
    for three in zip(png, rle, polygon, strict=True):
        for predictions in zip(*(one["predictions"] for one in three), strict=True):
            for a, b, c in zip(*(one["mask_per_prediction"] for one in predictions), strict=True):
                mask = mask_of(a)
                some += 0 < mask.mean() < 1
                assert set(b) == {"rle", "iou_score"} and set(c) == {"polygon", "iou_score"}
                assert a["iou_score"] == pytest.approx(b["iou_score"], abs=bounds().number)
                assert a["iou_score"] == pytest.approx(c["iou_score"], abs=bounds().number)
                assert b["rle"]["size"] == list(mask.shape)
                assert_same_pixels(coco_mask.decode(b["rle"]) > 0, mask)
                assert np.mean(filled(c["polygon"], mask.shape) != mask) < 0.005 + bounds().pixels
    assert some > 3  # not all empty or full, which would prove little


# The pipeline


def test_the_pipeline_is_yolof_then_sam(answer: Callable[..., Any]) -> None:
    params = {"score_threshold": 0.1, "max_detections": 7}
    images = [PICTURE, encoded(picture(64, 128, seed=3))]
    found = answer(to_yolof(*images, **params))
    boxes = [[list(one["box"].values()) for one in answered["boxes"]] for answered in found]
    assert [len(one) for one in boxes] == [7, 7]
    by_hand = answer(
        to_sam(*(row(image, boxes=one) for image, one in zip(images, boxes, strict=True)), coordinates="normalized")
    )
    pipeline = answer(to_yolof(*images, **params), "/pipeline/score")
    for answered, detected, segmented in zip(pipeline, found, by_hand, strict=True):
        boxes_and_masks = zip(detected["boxes"], segmented["predictions"], strict=True)
        assert_same(answered, {"boxes": [box | mask for box, mask in boxes_and_masks]})


def test_the_pipeline_leaves_out_guesses(answer: Callable[..., Any]) -> None:
    scores = [one["score"] for one in answer(to_yolof(PICTURE))[0]["boxes"]]
    assert min(scores) < 0.3 < max(scores)
    answered = [one["score"] for one in answer(to_yolof(PICTURE), "/pipeline/score")[0]["boxes"]]
    assert answered == [score for score in scores if score > 0.3]
    assert answer(to_yolof(PICTURE, score_threshold=1), "/pipeline/score") == [{"boxes": []}]


def test_the_pipeline_answers_three_masks_when_asked(answer: Callable[..., Any]) -> None:
    for asked, count in ((None, 1), (False, 1), (True, 3)):
        answered = answer(to_yolof(PICTURE, multimask_output=asked, max_detections=2), "/pipeline/score")
        assert [len(one["mask_per_prediction"]) for one in answered[0]["boxes"]] == [count, count]


def test_the_pipelines_polygons_stand_beside_the_boxes(answer: Callable[..., Any]) -> None:
    asked: dict[str, Any] = {"max_detections": 3, "multimask_output": True}
    boxes = answer(to_yolof(PICTURE, **asked, mask_format="polygon"), "/pipeline/score")[0]["boxes"]
    as_png = answer(to_yolof(PICTURE, **asked), "/pipeline/score")[0]["boxes"]
    for one, png in zip(boxes, as_png, strict=True):
        assert set(one) == {"box", "label", "score", "polygon", "mask_per_prediction"}
        best = max(png["mask_per_prediction"], key=lambda mask: mask["iou_score"])
        assert np.mean(filled(one["polygon"], (64, 128)) != mask_of(best)) < 0.005 + bounds().pixels
        assert one["polygon"] in [mask["polygon"] for mask in one["mask_per_prediction"]]


# EXIF orientation


def test_orientation_is_ignored_unless_asked_for(answer: Callable[..., Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it to the right
    as_stored = picture(128, 64)
    photo = encoded(as_stored, "JPEG", exif=exif)
    with Image.open(BytesIO(base64.b64decode(photo))) as decoded:
        stored, upright = encoded(decoded), encoded(decoded.transpose(Image.Transpose.ROTATE_270))
    assert answer(to_yolof(photo)) == answer(to_yolof(photo, exif_orientation=False)) == answer(to_yolof(stored))
    assert answer(to_yolof(photo, exif_orientation=True)) == answer(to_yolof(upright)) != answer(to_yolof(stored))

    lying, standing = "[[70, 10, 120, 60]]", "[[10, 70, 60, 120]]"  # each outside the other frame
    for box, asked, image, size_hw in ((lying, False, stored, (64, 128)), (standing, True, upright, (128, 64))):
        (answered,) = answer(to_sam(row(photo, boxes=box), exif_orientation=asked))
        assert_same([answered], answer(to_sam(row(image, boxes=box))))
        assert masks_of(answered)[0].shape == size_hw
    piped = answer(to_yolof(photo, exif_orientation=True, max_detections=2), "/pipeline/score")
    assert_same(piped, answer(to_yolof(upright, max_detections=2), "/pipeline/score"))


def test_concurrent_requests_get_their_own_answers(answer: Callable[..., Any]) -> None:
    requests = [to_yolof(encoded(picture(64, 64, seed)), max_detections=5) for seed in range(4)]
    requests += [to_sam(row(boxes=[[4 * i, 2, 60 + 4 * i, 60]])) for i in range(4)]
    alone = [answer(request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        assert_same(list(pool.map(answer, requests * 2)), alone * 2)


# Embeddings


@pytest.mark.parametrize("megabytes", [0, 64])
def test_a_photo_is_encoded_once_for_all_its_clicks(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    """By its content: the rest of the request may differ. Without a cache, once for a request."""

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        segmenter = app.state.serving.scorer.engine.segmenter
        embed, encoded_photos = segmenter.embed, []

        def count(samples: Any, between: Any) -> Any:
            encoded_photos.extend(samples)
            return embed(samples, between)

        monkeypatch.setattr(segmenter, "embed", count)
        rows = [row(boxes=f"[[10, 10, {right}, 50]]") for right in (60, 90)]
        wrapped = row("data:image/png;base64," + "\n".join(re.findall(".{1,76}", PICTURE)), boxes="[[10, 10, 60, 50]]")
        first, second = (await client.post("/score", json=to_sam(*rows))).json()
        assert len(encoded_photos) == 1
        (again,) = (await client.post("/score", json=to_sam(rows[1]))).json()
        (as_data_url,) = (await client.post("/score", json=to_sam(wrapped))).json()
        assert_same([again, as_data_url], [second, first])
        assert len(encoded_photos) == (1 if megabytes else 3)
        turned = await client.post("/score", json=to_sam(rows[0], exif_orientation=True))
        other = await client.post("/score", json=to_sam(row(OTHER, boxes="[[10, 10, 90, 50]]")))
        assert turned.status_code == other.status_code == 200
        assert len(encoded_photos) == (3 if megabytes else 5)

    converse(sam_only(embedding_cache_mb=megabytes), conversation)


def test_embeddings_on_disk_survive_a_restart(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers, encoded_photos = [], []

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        segmenter = app.state.serving.scorer.engine.segmenter
        embed = segmenter.embed

        def count(samples: Any, between: Any) -> Any:
            encoded_photos.extend(samples)
            return embed(samples, between)

        monkeypatch.setattr(segmenter, "embed", count)
        answers.append((await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))).json())

    for _ in range(2):
        converse(sam_only(embedding_cache_dir=tmp_path / "embeddings"), conversation)
    assert_same(answers[0], answers[1])
    assert len(encoded_photos) == 1


# The requests of the original endpoints' own samples


@pytest.mark.skipif(not REQUESTS.is_dir(), reason="needs the original sample requests")
def test_the_original_sample_requests_are_answered_by_the_demo_weights() -> None:
    def read(name: str) -> tuple[bytes, list[str]]:
        body = (REQUESTS / name).read_bytes()
        data = json.loads(body)["input_data"]["data"]
        return body, [one if isinstance(one, str) else one[0] for one in data]

    def size_hw(image: str) -> tuple[int, int]:
        with Image.open(BytesIO(base64.b64decode(image))) as opened:
            return opened.height, opened.width

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        for name, predictions, masks in (("sam_card.json", [1], 1), ("sam_notebook.json", [2, 1, 1, 1, 1], 3)):
            body, images = read(name)
            response = await client.post("/score", content=body)
            assert response.status_code == 200, response.text
            assert [len(one["predictions"]) for one in response.json()] == predictions
            for image, answered in zip(images, response.json(), strict=True):
                for prediction in answered["predictions"]:
                    found = [mask_of(mask) for mask in prediction["mask_per_prediction"]]
                    assert [mask.shape for mask in found] == [size_hw(image)] * masks
        body, images = read("yolof_card.json")
        for path in ("/score", "/pipeline/score"):
            response = await client.post(path, content=body)
            assert response.status_code == 200, response.text
            assert [list(one) for one in response.json()] == [["boxes"]] * len(images)
        assert (await client.get("/version")).json()["demo_weights"] is True

    converse(Settings(detector="demo-yolof", segmenter="demo-sam", device="cpu"), conversation)
