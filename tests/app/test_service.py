"""The service over HTTP: every form of request it takes or refuses, its answers, its headers, its errors."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pycocotools import mask as coco_mask

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import web_server

# pycocotools' decode() has not learnt numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
REQUESTS = Path(__file__).parents[3] / "shared" / "requests"
FORMATS = "JPEG, PNG, WebP, BMP, GIF or TIFF image"
IMAGE_EXPECTED = f"expected base64 or an http(s) URL of a {FORMATS}"
POINTS_EXPECTED = "row 0, input_points: expected (point_batch, points_per_prompt, 2)"
BOXES_EXPECTED = "row 0, input_boxes: expected (num_boxes, 4)"
LABELS_EXPECTED = "row 0, input_labels: expected (point_batch, points_per_prompt)"


# Pictures and requests


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coloured blocks, so that no place looks like another."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> str:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = encoded(picture(128, 64))
OTHER = encoded(picture(100, 75, seed=1))


def table(columns: list[str], data: list[Any], params: Any = None, **more: Any) -> dict[str, Any]:
    return {"input_data": {"columns": columns, "data": data} | more, "params": params}


def to_yolof(*images: Any, **params: Any) -> dict[str, Any]:
    return table(["image"], list(images), params)


def row(
    image: Any = PICTURE, points: Any = "", boxes: Any = "", labels: Any = "", multimask: Any = False
) -> dict[str, Any]:
    return dict(zip(COLUMNS, (image, points, boxes, labels, multimask), strict=True))


def to_sam(*rows: dict[str, Any], **params: Any) -> dict[str, Any]:
    return table(COLUMNS, [list(one.values()) for one in rows], params)


def mask_of(answered: dict[str, Any]) -> np.ndarray:
    """A mask (H, W) bool out of its PNG, which must be as the model card says."""
    with Image.open(BytesIO(base64.b64decode(answered["encoded_binary_mask"], validate=True))) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        values = np.array(image)
    assert set(np.unique(values)) <= {0, 255}
    return values > 0


def assert_alike(got: Any, expected: Any, key: str = "") -> None:
    """Equal but for the last bits of the networks' numbers, which depend on what shared a batch."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for name in expected:
            assert_alike(got[name], expected[name], name)
    elif isinstance(expected, list):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_alike(one, other, key)
    elif key == "encoded_binary_mask":
        one, other = (mask_of({key: text}) for text in (got, expected))
        assert one.shape == other.shape and np.mean(one != other) < 0.005
    else:
        assert got == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


def masks_of(answer: dict[str, Any]) -> list[np.ndarray]:
    """The first mask of every prediction of a row."""
    return [mask_of(one["mask_per_prediction"][0]) for one in answer["predictions"]]


def filled(polygons: list[list[float]], size_hw: tuple[int, int]) -> np.ndarray:
    """What polygons in 0..1 cover, by pycocotools."""
    height, width = size_hw
    drawn = np.zeros(size_hw, bool)
    for polygon in polygons:
        assert len(polygon) >= 6 and min(polygon) >= 0 and max(polygon) <= 1
        flat = (np.array(polygon).reshape(-1, 2) * (width, height)).ravel().tolist()
        drawn |= coco_mask.decode(coco_mask.frPyObjects([flat], height, width))[..., 0] > 0
    return drawn


@pytest.fixture(scope="session")
def http(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def answer(http: httpx.Client) -> Callable[..., Any]:
    """The JSON that a request is answered with, which must be a 200."""

    def post(content: dict[str, Any], path: str = "/score") -> Any:
        response = http.post(path, json=content)
        assert response.status_code == 200, response.text
        return response.json()

    return post


def converse(settings: Settings, conversation: Callable[[httpx.AsyncClient, FastAPI], Awaitable[None]]) -> None:
    """Talk to a service in this process, for what takes a hand inside it or other settings."""

    async def run() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                await conversation(client, app)

    asyncio.run(run())


@pytest.fixture
def sam_only(model_folders: Any) -> Callable[..., Settings]:
    """Settings of a service with a segmenter and no detector."""
    return partial(Settings, detector="none", segmenter=str(model_folders.segmenter), device="cpu")


# Forms of a request


def test_only_input_data_is_needed(answer: Callable[..., Any]) -> None:
    bare = {"input_data": {"columns": ["image"], "data": [[PICTURE]]}}
    expected = answer(bare)
    assert len(expected) == 1 and expected[0]["boxes"]
    for more in ({"params": None}, {"params": {}}, {"params": {"nobody_knows": 1}}, {"extra": [1], "params": {}}):
        assert answer(bare | more) == expected
    for index in ([0], ["a"], [None], None):
        assert answer(table(["image"], [[PICTURE]], index=index, more=1)) == expected


def test_a_single_column_may_be_flat(answer: Callable[..., Any]) -> None:
    flat = answer(table(["image"], [PICTURE, OTHER]))
    assert flat == answer(table(["image"], [[PICTURE], [OTHER]]))
    assert len(flat) == 2 and flat[0] != flat[1]


def test_no_rows_are_answered_with_none(answer: Callable[..., Any]) -> None:
    for path in ("/score", "/yolof/score", "/pipeline/score"):
        assert answer(table(["image"], [], index=[]), path) == []
    for path in ("/score", "/sam/score"):
        assert answer(table(COLUMNS, []), path) == []


def test_columns_come_in_any_order_among_others(answer: Callable[..., Any]) -> None:
    boxes = "[[10, 10, 90, 50]]"
    expected = answer(to_sam(row(boxes=boxes)))
    columns = ["multimask_output", "note", "input_labels", "input_boxes", "image", "input_points"]
    assert_alike(answer(table(columns, [[False, {"any": 1}, "", boxes, PICTURE, ""]])), expected)
    expected = answer(to_yolof(PICTURE))
    assert answer(table(["note", "image"], [[1, PICTURE]])) == expected


def test_the_columns_decide_who_answers(answer: Callable[..., Any]) -> None:
    prompts, images = to_sam(row(boxes="[[10, 10, 90, 50]]")), to_yolof(PICTURE)
    assert_alike(answer(prompts, "/score"), answer(prompts, "/sam/score"))
    assert answer(images, "/score") == answer(images, "/yolof/score")
    assert "boxes" in answer(prompts, "/yolof/score")[0]  # to which the prompts are extra columns


def test_prompts_are_lists_or_literals_of_lists(answer: Callable[..., Any]) -> None:
    points, boxes, labels = [[[20, 20], [90.5, 40]]], [[10, 10, 90, 50]], [[1, 0]]
    expected = answer(to_sam(row(points=points, boxes=boxes, labels=labels)))
    spellings: list[Callable[[Any], Any]] = [
        str,
        json.dumps,
        lambda value: f" {value}\n",
        lambda value: str(value).replace("[", "(").replace("]", ",)"),
    ]
    for spelt in spellings:
        assert_alike(answer(to_sam(row(points=spelt(points), boxes=spelt(boxes), labels=spelt(labels)))), expected)
    with pytest.raises(AssertionError):  # the labels do arrive
        assert_alike(answer(to_sam(row(points=points, boxes=boxes))), expected)


@pytest.mark.parametrize("nothing", ["", None, "None", "null", "nan", "NaN", "  ", float("nan")])
def test_no_prompt_has_many_spellings(http: httpx.Client, answer: Callable[..., Any], nothing: object) -> None:
    def post(**columns: Any) -> Any:
        # httpx refuses to write NaN, which pandas writes for a missing value.
        response = http.post("/score", content=json.dumps(to_sam(row(**columns))))
        assert response.status_code == 200, response.text
        return response.json()

    assert post(points=nothing, boxes="[[10, 10, 90, 50]]", labels=nothing) == post(boxes="[[10, 10, 90, 50]]")
    assert post(points="[[[20, 20]]]", boxes=nothing) == post(points="[[[20, 20]]]")
    unprompted = post(points=nothing, boxes=nothing, labels=nothing)
    assert len(unprompted[0]["predictions"]) == 1


@pytest.mark.parametrize(
    ("value", "count"), [(True, 3), (False, 1), (None, 3), ("False", 3), ("", 3), (0, 3), (1, 3), ([], 3)]
)
def test_multimask_output_is_three_masks_unless_it_is_false(
    answer: Callable[..., Any], value: object, count: int
) -> None:
    (answered,) = answer(to_sam(row(points="[[[20, 20]], [[90, 40]]]", multimask=value)))
    assert [len(one["mask_per_prediction"]) for one in answered["predictions"]] == [count, count]


def test_an_image_is_base64_in_any_wrapping_or_a_url(answer: Callable[..., Any], model_folders: Any) -> None:
    data = base64.b64decode(PICTURE)

    expected = answer(to_yolof(PICTURE))
    for image in (base64.encodebytes(data).decode(), f"data:image/png;base64,{PICTURE}"):
        assert answer(to_yolof(image)) == expected

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        response = await client.post("/score", json=to_yolof(url))
        assert response.status_code == 200, response.text
        assert_alike(response.json(), expected)

    with web_server({"/picture.png": data}) as root:
        url = f"{root}/picture.png"
        detector = str(model_folders.detector)
        converse(Settings(detector=detector, segmenter="none", device="cpu", image_urls="any"), conversation)


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
    assert_alike(answer(to_sam(*rows, response_schema="card")), card)
    expected = [
        {
            "response": {
                "predictions": [{"masks_per_prediction": one["mask_per_prediction"]} for one in a["predictions"]]
            }
        }
        for a in card
    ]
    assert_alike(live, expected)


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
            assert (mask == expected).mean() > 0.999


def test_masks_have_the_images_size(answer: Callable[..., Any]) -> None:
    sizes = [(128, 64), (63, 101), (1, 1), (300, 2)]  # width, height
    rows = [row(encoded(picture(*size)), points="[[[0.5, 0.5]]]", multimask=True) for size in sizes]
    for (width, height), answered in zip(sizes, answer(to_sam(*rows)), strict=True):
        for mask in answered["predictions"][0]["mask_per_prediction"]:
            assert mask_of(mask).shape == (height, width)


def test_rows_of_one_image_are_answered_as_if_sent_alone(answer: Callable[..., Any]) -> None:
    rows = [
        row(points="[[[20, 20]]]"),
        row(OTHER, boxes="[[10, 10, 90, 50]]"),
        row(boxes="[[10, 10, 90, 50]]", multimask=True),
        row(points="[[[20, 20]]]", boxes="[[10, 10, 90, 50]]", labels="[[0]]"),
    ]
    assert_alike(answer(to_sam(*rows)), [answer(to_sam(one))[0] for one in rows])


def test_normalized_coordinates_equal_absolute_ones(answer: Callable[..., Any]) -> None:
    absolute = row(points="[[[32, 16], [96, 48]]]", boxes="[[16, 8, 112, 60]]", labels="[[1, 0]]")
    fractions = row(points="[[[0.25, 0.25], [0.75, 0.75]]]", boxes="[[0.125, 0.125, 0.875, 0.9375]]", labels="[[1, 0]]")
    expected = answer(to_sam(absolute))
    assert_alike(answer(to_sam(fractions, coordinates="normalized")), expected)
    assert_alike(answer(to_sam(absolute, coordinates="absolute")), expected)


def test_every_mask_format_decodes_to_the_same_pixels(answer: Callable[..., Any]) -> None:
    rows = [row(points="[[[20, 20]], [[90, 40]]]", multimask=True), row(OTHER, boxes="[[10, 10, 90, 50]]")]
    png, rle, polygon = (answer(to_sam(*rows, mask_format=name)) for name in ("png", "rle", "polygon"))
    assert_alike(png, answer(to_sam(*rows)))
    some = 0
    for three in zip(png, rle, polygon, strict=True):
        for predictions in zip(*(one["predictions"] for one in three), strict=True):
            for a, b, c in zip(*(one["mask_per_prediction"] for one in predictions), strict=True):
                mask = mask_of(a)
                some += 0 < mask.mean() < 1
                assert set(b) == {"rle", "iou_score"} and set(c) == {"polygon", "iou_score"}
                assert a["iou_score"] == pytest.approx(b["iou_score"], abs=1e-4)
                assert a["iou_score"] == pytest.approx(c["iou_score"], abs=1e-4)
                assert b["rle"]["size"] == list(mask.shape)
                assert np.mean(coco_mask.decode(b["rle"]) != mask) < 0.005
                assert np.mean(filled(c["polygon"], mask.shape) != mask) < 0.005
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
        assert_alike(answered, {"boxes": [box | mask for box, mask in boxes_and_masks]})


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
        assert np.mean(filled(one["polygon"], (64, 128)) != mask_of(best)) < 0.005
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
        assert_alike([answered], answer(to_sam(row(image, boxes=box))))
        assert masks_of(answered)[0].shape == size_hw
    piped = answer(to_yolof(photo, exif_orientation=True, max_detections=2), "/pipeline/score")
    assert_alike(piped, answer(to_yolof(upright, max_detections=2), "/pipeline/score"))


# Headers and the other routes

SERVER_VERSION = re.compile(r"box2mask/\d+\.\d+")


def check_headers(response: httpx.Response, *, failed: bool = False) -> None:
    """What AzureML's scoring server says with every answer."""
    assert response.headers["x-request-id"] == response.headers["x-ms-request-id"] != ""
    assert response.headers["x-ms-run-function-failed"] == str(failed)
    assert SERVER_VERSION.match(response.headers["x-ms-server-version"])
    if response.status_code == 200 and response.request.method == "POST":
        assert re.fullmatch(r"\d+\.\d{3}", response.headers["x-ms-run-fn-exec-ms"])
    else:
        assert "x-ms-run-fn-exec-ms" not in response.headers


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/score", to_yolof(PICTURE), 200),
        ("POST", "/score", {}, 400),
        ("POST", "/nowhere", {}, 404),
        ("GET", "/score", None, 405),
        ("GET", "/", None, 200),
    ],
)
def test_every_answer_has_the_scoring_servers_headers(
    http: httpx.Client, method: str, path: str, content: Any, status: int
) -> None:
    response = http.request(method, path, json=content)
    assert response.status_code == status
    check_headers(response)
    uuid.UUID(response.headers["x-request-id"])
    assert "x-ms-client-request-id" not in response.headers

    named = {"x-request-id": "mine-1", "x-ms-client-request-id": "Their_2"}
    response = http.request(method, path, json=content, headers=named)
    check_headers(response)
    assert {name: response.headers[name] for name in named} == named


def test_identifiers_that_could_do_harm_are_not_echoed(http: httpx.Client) -> None:
    response = http.get("/", headers={"x-request-id": "two words", "x-ms-client-request-id": "a;b"})
    uuid.UUID(response.headers["x-request-id"])
    assert "x-ms-client-request-id" not in response.headers
    longest, too_long = "c" * 40, "c" * 41
    assert http.get("/", headers={"x-ms-client-request-id": longest}).headers["x-ms-client-request-id"] == longest
    assert "x-ms-client-request-id" not in http.get("/", headers={"x-ms-client-request-id": too_long}).headers


@pytest.mark.parametrize(("path", "text"), [("/", "Healthy"), ("/health/live", "Healthy"), ("/health/ready", "Ready")])
def test_probes_are_answered(http: httpx.Client, path: str, text: str) -> None:
    response = http.get(path)
    assert (response.status_code, response.text) == (200, text)
    response = http.head(path)
    assert (response.status_code, response.content) == (200, b"")


def test_version_says_what_is_served(http: httpx.Client) -> None:
    said = http.get("/version").json()
    assert said["detector"]["classes"] == ["can", "carton", "milk_bottle", "water_bottle"]
    assert min(said["detector"]["input_scale"]) > 0 and said["detector"]["channel_order"] == "bgr"
    assert said["segmenter"]["image_size"] == 128
    for model in ("detector", "segmenter"):
        assert said[model]["name"] == model and said[model]["demo_weights"] is False
        assert (said[model]["device"], said[model]["dtype"], said[model]["fast"]) == ("cpu", "float32", True)
        assert re.fullmatch("[0-9a-f]{64}", said[model]["sha256"])
    assert said["max_prompts"] == 1024
    assert said["demo_weights"] is False and said["response_schema"] == "card"
    assert {"torch", "mmdet", "transformers"} <= set(said["packages"])


def test_the_service_describes_itself(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert http.get("/swagger.json").json() == http.get("/swagger.json?version=2").json()
    assert http.get("/swagger.json?version=2").json()["swagger"] == "2.0"
    assert http.get("/swagger.json?version=3").json()["openapi"] == "3.0.3"
    assert http.get("/swagger.json?version=3.1").json()["openapi"] == "3.1.0"
    response = http.get("/swagger.json?version=4")
    assert response.status_code == 404
    assert response.json() == {"message": "version: expected 2 or 3 or 3.1, got '4'"}
    assert "swagger-ui" in http.get("/docs").text


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/nowhere", 404, "there is nothing at /nowhere"),
        ("POST", "/score/", 404, "there is nothing at /score/"),
        ("GET", "/score", 405, "/score does not answer GET"),
        ("PUT", "/pipeline/score", 405, "/pipeline/score does not answer PUT"),
        ("POST", "/", 405, "/ does not answer POST"),
    ],
)
def test_the_routers_errors_have_the_same_form(
    http: httpx.Client, method: str, path: str, status: int, message: str
) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.json()) == (status, {"message": message})
    assert (status == 405) == ("allow" in response.headers)


def test_concurrent_requests_get_their_own_answers(answer: Callable[..., Any]) -> None:
    requests = [to_yolof(encoded(picture(64, 64, seed)), max_detections=5) for seed in range(4)]
    requests += [to_sam(row(boxes=[[4 * i, 2, 60 + 4 * i, 60]])) for i in range(4)]
    alone = [answer(request) for request in requests]
    with ThreadPoolExecutor(8) as pool:
        assert_alike(list(pool.map(answer, requests * 2)), alone * 2)


# Bad input

NESTED = "[" * 900 + "]" * 900
JPEG = base64.b64decode(encoded(picture(128, 64), "JPEG"))
UNPICKLED = "__import__('os').system('touch harm')"


def column(**values: Any) -> dict[str, Any]:
    return to_sam(row(**values))


BAD: dict[str, tuple[bytes | dict[str, Any], str]] = {
    # the body
    "empty body": (
        b"",
        'expected a JSON body {"input_data": {"columns": [...], "data": [...]}}, got an empty one',
    ),
    "blank body": (
        b" \n",
        'expected a JSON body {"input_data": {"columns": [...], "data": [...]}}, got an empty one',
    ),
    "not JSON": (
        b"image=x",
        "the body is not JSON: Expecting value: line 1 column 1 (char 0)",
    ),
    "bad UTF-8": (
        b'{"input_data": "\xff"}',
        "the body is not JSON: 'utf-8' codec can't decode byte 0xff in position 16: invalid start byte",
    ),
    "nested too deeply": (b"[" * 100_000, "the body is not JSON: it is nested too deeply"),
    "top-level list": (b"[]", "expected a JSON object with input_data, got a list"),
    "top-level string": (b'"x"', "expected a JSON object with input_data, got a string"),
    "dataframe_split": (
        {"dataframe_split": {"columns": ["image"], "data": [PICTURE]}},
        "expected input_data in the body, got dataframe_split",
    ),
    "inputs": ({"inputs": [PICTURE]}, "expected input_data in the body, got inputs"),
    "instances": ({"instances": [PICTURE], "params": {}}, "expected input_data in the body, got instances, params"),
    "empty object": ({}, "expected input_data in the body, got an empty object"),
    "names that are no text": (b'{"\\ud800": 1}', "expected input_data in the body, got \ud800"),
    # the table
    "records": (
        {"input_data": [{"image": PICTURE}]},
        "input_data: expected an object with columns and data, got a list",
    ),
    "no columns": ({"input_data": {"data": []}}, "input_data: expected columns and data, got data"),
    "no data": ({"input_data": {"columns": ["image"]}}, "input_data: expected columns and data, got columns"),
    "columns null": (table(None, []), "input_data.columns: expected a list, got null"),  # type: ignore[arg-type]
    "data text": (table(["image"], PICTURE), "input_data.data: expected a list, got a string"),  # type: ignore[arg-type]
    "a column's number": (table([0], []), "input_data.columns: expected names, got a number among them"),  # type: ignore[list-item]
    "a column twice": (
        table(["image", "image"], []),
        "input_data.columns: expected every name once, got image more than once",
    ),
    "index too long": (
        table(["image"], [PICTURE], index=[0, 1]),
        "input_data.index: expected one entry per row (1), got 2 entries",
    ),
    "index no list": (
        table(["image"], [PICTURE], index="0"),
        "input_data.index: expected one entry per row (1), got a string",
    ),
    "too many rows": (table(["image"], [""] * 257), "input_data.data: expected at most 256 rows, got 257"),
    "no image column": (
        table(["picture"], [PICTURE]),
        "input_data.columns: expected image, got picture: image missing",
    ),
    "missing columns": (
        table(["image", "input_boxes"], [[PICTURE, ""]]),
        "input_data.columns: expected image, input_points, input_boxes, input_labels, multimask_output, "
        "got image, input_boxes: input_points, input_labels, multimask_output missing",
    ),
    "a row too short": (table(COLUMNS, [[PICTURE]]), "row 0: expected one value per column (5), got 1"),
    "a row too long": (
        table(["image"], [PICTURE, [PICTURE, 1]]),
        "row 1: expected one value per column (1), got 2",
    ),
    "a row that is none": (table(COLUMNS, [PICTURE]), "row 0: expected one value per column (5), got a string"),
    # params
    "params list": (table(["image"], [], [1]), "params: expected an object, got a list"),
    "score_threshold text": (
        to_yolof(score_threshold="0.3"),
        'params.score_threshold: expected a number from 0 to 1, got "0.3"',
    ),
    "score_threshold too high": (
        to_yolof(score_threshold=30),
        "params.score_threshold: expected a number from 0 to 1, got 30",
    ),
    "iou_threshold boolean": (
        to_yolof(iou_threshold=True),
        "params.iou_threshold: expected a number from 0 to 1, got true",
    ),
    "iou_threshold deep": (
        b'{"input_data": {"columns": ["image"], "data": []}, "params": {"iou_threshold": %s}}' % NESTED.encode(),
        "params.iou_threshold: expected a number from 0 to 1, got a list",
    ),
    "max_detections": (
        to_yolof(max_detections=0),
        "params.max_detections: expected a whole number from 1 to 1000, got 0",
    ),
    "max_detections fraction": (
        to_yolof(max_detections=1.5),
        "params.max_detections: expected a whole number from 1 to 1000, got 1.5",
    ),
    "multimask_output": (
        to_yolof(multimask_output=1),
        "params.multimask_output: expected true or false, got 1",
    ),
    "exif_orientation": (
        to_yolof(exif_orientation="yes"),
        'params.exif_orientation: expected true or false, got "yes"',
    ),
    "coordinates": (
        to_sam(coordinates="relative"),
        'params.coordinates: expected "absolute" or "normalized", got "relative"',
    ),
    "mask_format": (
        to_sam(mask_format="PNG"),
        'params.mask_format: expected "png" or "rle" or "polygon", got "PNG"',
    ),
    "response_schema": (
        to_sam(response_schema={}),
        'params.response_schema: expected "card" or "live", got an object',
    ),
    # prompts
    "box of three, row 3": (
        to_sam(row(), row(), row(), row(boxes="[[1, 2, 3], [4, 5, 6]]")),
        "row 3, input_boxes: expected (num_boxes, 4), got (2, 3)",
    ),
    "flat box": (column(boxes="[1, 2, 3, 4]"), f"{BOXES_EXPECTED}, got (4,)"),
    "no box": (column(boxes="[]"), f"{BOXES_EXPECTED}, got (0,)"),
    "empty box": (column(boxes="[[]]"), f"{BOXES_EXPECTED}, got (1, 0)"),
    "flat points": (column(points="[[20, 20]]"), f"{POINTS_EXPECTED}, got (1, 2)"),
    "points of three": (column(points="[[[1, 2, 3]]]"), f"{POINTS_EXPECTED}, got (1, 1, 3)"),
    "flat labels": (column(points="[[[1, 2]]]", labels="[1]"), f"{LABELS_EXPECTED}, got (1,)"),
    "ragged boxes": (
        column(boxes="[[1, 2, 3, 4], [1, 2, 3]]"),
        f"{BOXES_EXPECTED}, got a ragged list of (3,) and (4,)",
    ),
    "ragged points": (
        column(points="[[[1, 2], [3, 4]], [[5, 6]]]"),
        f"{POINTS_EXPECTED}, got a ragged list of (1, 2) and (2, 2)",
    ),
    "half-nested": (column(boxes="[[1, 2, 3, 4], 5]"), f"{BOXES_EXPECTED}, got a ragged list of numbers and (4,)"),
    "too deep": (column(boxes="[[[[[[1]]]]]]"), f"{BOXES_EXPECTED}, got a list nested too deeply"),
    "far too deep": (
        column(boxes="[" * 5000),
        f"{BOXES_EXPECTED}, got '{'[' * 60}...', which is not a list of numbers",
    ),
    "far too long": (
        column(boxes="1" * 1_000_001),
        f"{BOXES_EXPECTED}, got 1000001 characters, more than 1000000",
    ),
    "points against boxes": (
        column(points="[[[1, 2]], [[3, 4]], [[5, 6]]]", boxes="[[1, 2, 30, 40], [1, 2, 30, 40]]"),
        "row 0, input_boxes: expected one box per point prompt (3), got 2 boxes",
    ),
    "points against labels": (
        column(points="[[[1, 2], [3, 4]]]", labels="[[1]]"),
        "row 0, input_labels: expected (1, 2), one per point, got (1, 1)",
    ),
    "labels without points": (
        column(boxes="[[1, 2, 30, 40]]", labels="[[1]]"),
        "row 0, input_labels: expected input_points to go with the labels, got none",
    ),
    "unknown label": (
        column(points="[[[1, 2]]]", labels="[[2]]"),
        "row 0, input_labels: expected labels 1, 0, -1 or -10, got 2",
    ),
    "half a label": (
        column(points="[[[1, 2]]]", labels="[[0.5]]"),
        f"{LABELS_EXPECTED}, got a label that is not a whole number",
    ),
    "NaN in text": (
        column(boxes="[[nan, 0, 1, 1]]"),
        f"{BOXES_EXPECTED}, got '[[nan, 0, 1, 1]]', which is not a list of numbers",
    ),
    "NaN in JSON": (
        json.dumps(column(boxes=[[float("nan"), 0, 1, 1]])).encode(),
        f"{BOXES_EXPECTED}, got nan, which is not from -1e9 to 1e9",
    ),
    "infinity": (column(boxes="[[1e999, 0, 1, 1]]"), f"{BOXES_EXPECTED}, got inf, which is not from -1e9 to 1e9"),
    "beyond float": (
        column(points=[[[10**400, 0]]]),
        f"{POINTS_EXPECTED}, got a number, which is not from -1e9 to 1e9",
    ),
    "text in a list": (column(boxes=[["1", 2, 3, 4]]), f"{BOXES_EXPECTED}, got a string among the numbers"),
    "null in a list": (column(boxes=[[None, 2, 3, 4]]), f"{BOXES_EXPECTED}, got null among the numbers"),
    "true in a list": (column(boxes=[[True, 2, 3, 4]]), f"{BOXES_EXPECTED}, got a boolean among the numbers"),
    "an object": (column(boxes={"x": 1}), f"{BOXES_EXPECTED}, got an object"),
    "a number": (column(points=5), f"{POINTS_EXPECTED}, got a number"),
    "a literal of a number": (column(points="5"), f"{POINTS_EXPECTED}, got a number"),
    "a boolean": (column(labels=True), f"{LABELS_EXPECTED}, got a boolean"),
    "code": (
        column(boxes=UNPICKLED),
        f'{BOXES_EXPECTED}, got "{UNPICKLED}", which is not a list of numbers',
    ),
    "arithmetic": (
        column(boxes="[[2 ** 99, 0, 1, 1]]"),
        f"{BOXES_EXPECTED}, got '[[2 ** 99, 0, 1, 1]]', which is not a list of numbers",
    ),
    "no text at all": (
        b'{"input_data": {"columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],'
        b' "data": [["", "", "\\ud800\\u0000", "", true]]}}',
        f"{BOXES_EXPECTED}, got '\\ud800\\x00', which is not a list of numbers",
    ),
    "reversed box": (
        column(boxes="[[1, 2, 30, 40], [90, 2, 30, 40]]"),
        "row 0, input_boxes: box 1: expected x1 < x2 and y1 < y2, got [90, 2, 30, 40]",
    ),
    "box of no area": (
        column(boxes="[[1, 2, 30, 2]]"),
        "row 0, input_boxes: box 0: expected x1 < x2 and y1 < y2, got [1, 2, 30, 2]",
    ),
    "box outside": (
        to_sam(row(), row(boxes="[[128, 2, 200, 40]]")),
        "row 1, input_boxes: box 0: expected a box that meets the image of 128 x 64 (width x height), "
        "got [128, 2, 200, 40]",
    ),
    "box outside, normalized": (
        to_sam(row(boxes="[[-0.5, 0, 0, 1]]"), coordinates="normalized"),
        "row 0, input_boxes: box 0: expected a box that meets the image of 128 x 64 (width x height), "
        "got [-64, 0, 0, 64]",
    ),
    "too many prompts": (
        column(points=[[[1, 2]]] * 1025),
        "row 0, input_points: expected at most 1024 prompts, got 1025",
    ),
    # images
    "image null": (to_yolof(PICTURE, None), f"row 1, image: {IMAGE_EXPECTED}, got null"),
    "image an object": (to_yolof({"bytes": PICTURE}), f"row 0, image: {IMAGE_EXPECTED}, got an object"),
    "image empty": (to_yolof(""), f"row 0, image: expected a {FORMATS}, got 0 bytes"),
    "not base64": (
        to_yolof(PICTURE, "photo.jpg"),
        f"row 1, image: {IMAGE_EXPECTED}, got 9 characters, 'photo.jpg' (Only base64 data is allowed)",
    ),
    "not an image": (
        column(image=base64.b64encode(b"%PDF-1.7 and more").decode()),
        f"row 0, image: expected a {FORMATS}, got 17 bytes that start with b'%PDF-1.7 and mor'",
    ),
    "truncated image": (
        to_yolof(base64.b64encode(JPEG[: len(JPEG) // 2]).decode()),
        f"row 0, image: the JPEG image is truncated, damaged or of an unsupported kind ({len(JPEG) // 2} bytes)",
    ),
    "URL of an inner host": (
        to_yolof("http://127.0.0.1:9/photo.jpg"),
        "row 0, image: expected an image URL whose host has public addresses only, '127.0.0.1' has not",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_explained_and_harms_nobody(http: httpx.Client, answer: Callable[..., Any], case: str) -> None:
    content, message = BAD[case]
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = http.post("/score", content=body)
    assert (response.status_code, response.json()) == (400, {"message": message})
    assert response.headers["content-type"] == "application/json"
    check_headers(response)
    (answered,) = answer(to_sam(row(boxes="[[10, 10, 90, 50]]")))
    assert len(answered["predictions"]) == 1


@pytest.mark.parametrize("path", ["/yolof/score", "/sam/score", "/pipeline/score"])
def test_every_scoring_route_explains_bad_input(http: httpx.Client, path: str) -> None:
    columns = COLUMNS if path == "/sam/score" else ["image"]
    response = http.post(path, json=table(columns, [["hello"] + [""] * (len(columns) - 1)]))
    assert response.status_code == 400
    assert response.json()["message"].startswith(f"row 0, image: {IMAGE_EXPECTED}, got 5 characters, 'hello'")


def test_messages_do_not_grow_with_the_request(http: httpx.Client) -> None:
    many = [f"{'x' * 1000}{number}" for number in range(1000)]
    for content in (dict.fromkeys(many), {"input_data": dict.fromkeys(many)}, table(many, []), table(many * 2, [])):
        response = http.post("/score", json=content)
        assert response.status_code == 400 and len(response.text) < 1000


# Other settings, and faults of the server's own


@pytest.mark.parametrize(
    ("served", "missing", "purpose"),
    [
        ("segmenter", "detector", "requests with only images"),
        ("detector", "segmenter", "requests with points and boxes"),
    ],
)
def test_a_service_with_one_model_says_so_on_the_others_routes(
    model_folders: Any, served: str, missing: str, purpose: str
) -> None:
    own, other = to_sam(row(boxes="[[10, 10, 90, 50]]")), to_yolof(PICTURE)
    own_route, other_route = "/sam/score", "/yolof/score"
    if served == "detector":
        own, other, own_route, other_route = other, own, other_route, own_route

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        for path in ("/score", own_route):
            assert (await client.post(path, json=own)).status_code == 200
        for path, content in (("/score", other), (other_route, other), ("/pipeline/score", to_yolof(PICTURE))):
            response = await client.post(path, json=content)
            assert response.status_code == 404
            assert response.json() == {
                "message": f"this service has no {missing}, which answers {purpose}: "
                f"start it with BOX2MASK_{missing.upper()}"
            }
            check_headers(response)
        said = (await client.get("/version")).json()
        assert said[missing] is None and said[served]["name"] == served

    folders = {"detector": "none", "segmenter": "none"} | {served: str(getattr(model_folders, served))}
    converse(Settings(**folders, device="cpu"), conversation)


def test_the_live_form_can_be_the_services_default(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        one = row(boxes="[[10, 10, 90, 50]]")
        (live,) = (await client.post("/score", json=to_sam(one))).json()
        (card,) = (await client.post("/score", json=to_sam(one, response_schema="card"))).json()
        masks = card["predictions"][0]["mask_per_prediction"]
        assert live == {"response": {"predictions": [{"masks_per_prediction": masks}]}}
        assert (await client.get("/version")).json()["response_schema"] == "live"

    converse(sam_only(response_schema="live"), conversation)


def test_a_body_over_the_limit_is_a_413(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()
        limit = 16 * 1024
        assert (await client.post("/score", content=content.ljust(limit))).status_code == 200
        response = await client.post("/score", content=content.ljust(limit + 1))
        assert response.status_code == 413
        assert response.json() == {"message": f"expected a body of at most {limit} bytes, got more"}
        check_headers(response)
        assert (await client.post("/score", content=content)).status_code == 200

    converse(sam_only(max_body_mb=16 / 1024), conversation)


def test_requests_over_the_limit_are_a_429(sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        segmenter = app.state.scorer.engine.segmenter
        embed, entered, may_go_on = segmenter.embed, threading.Event(), threading.Event()

        def slowly(samples: Any, between: Any) -> Any:
            entered.set()
            assert may_go_on.wait(30)
            return embed(samples, between)

        monkeypatch.setattr(segmenter, "embed", slowly)
        content = to_sam(row(boxes="[[10, 10, 90, 50]]"))
        first = asyncio.create_task(client.post("/score", json=content))
        assert await asyncio.to_thread(entered.wait, 30)
        refused = await client.post("/score", json=content)
        probe = await client.get("/health/ready")
        may_go_on.set()
        assert (await first).status_code == 200
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json() == {"message": "1 requests are in work or waiting; try again in 1 s"}
        check_headers(refused)
        assert probe.status_code == 200
        assert (await client.post("/score", json=content)).status_code == 200

    converse(sam_only(max_requests=1), conversation)


def test_a_client_that_would_be_refused_is_told_before_it_has_sent_its_body(
    sam_only: Callable[..., Settings],
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        async def never() -> AsyncIterator[bytes]:
            raise AssertionError("the body was asked for")
            yield b""

        with app.state.admission.admit():
            assert (await client.post("/score", content=never())).status_code == 429
        assert (await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))).status_code == 200

    converse(sam_only(max_requests=1), conversation)


def test_a_body_that_does_not_come_takes_no_place_and_is_a_408(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()
        begun = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield content[:10]
            begun.set()
            await asyncio.Event().wait()

        slow = asyncio.create_task(client.post("/score", content=slowly()))
        await begun.wait()
        assert (await client.post("/score", content=content)).status_code == 200  # the only place there is
        response = await slow
        assert response.status_code == 408
        assert response.json() == {"message": "expected the body within 3 s, it did not come"}
        assert response.headers["connection"] == "close"
        assert app.state.intake.held_bytes == 0

    converse(sam_only(max_requests=1, client_timeout_s=3), conversation)


def test_bodies_together_take_no_more_memory_than_they_may(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()
        intake = app.state.intake
        assert len(content) > intake.most_bytes
        assert (await client.post("/score", content=content)).status_code == 200  # a single one may be larger
        with intake.body() as other:
            other.grow(1)
            response = await client.post("/score", content=content)
        assert response.status_code == 429 and response.headers["retry-after"] == "1"
        assert response.json() == {"message": "the requests in work leave no memory for this one's body"}
        assert intake.held_bytes == 0

    converse(sam_only(max_bodies_mb=64 / 2**20), conversation)


def test_masks_that_would_be_too_many_pixels_are_refused_before_they_are_made(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        def never(*args: Any) -> Any:
            raise AssertionError("a network ran")

        box = [10, 10, 90, 50]
        fits = to_sam(row(boxes=[box] * 2), row(boxes=[box], multimask=True))
        too_many = to_sam(row(boxes=[box] * 3), row(boxes=[box], multimask=True))
        assert (await client.post("/score", json=fits)).status_code == 200
        with monkeypatch.context() as patched:
            patched.setattr(app.state.scorer.engine.segmenter, "embed", never)
            patched.setattr(app.state.scorer.engine.segmenter, "decode_batch", never)
            response = await client.post("/score", json=too_many)
        assert response.status_code == 400
        assert response.json() == {
            "message": "expected at most 40960 pixels in all masks of a request, got more with 1 prompts x 3 masks x "
            "128 x 64 (width x height)"
        }

    converse(sam_only(max_mask_pixels=5 * 128 * 64), conversation)


@pytest.mark.parametrize(("mask_format", "most"), [("png", 4096), ("rle", 4096), ("polygon", 2**17)])
def test_masks_larger_than_a_response_may_be_are_refused(
    sam_only: Callable[..., Settings], mask_format: str, most: int
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        boxes = [[10 + step, 10, 90, 50] for step in range(40)]
        one, many = (to_sam(row(boxes=boxes[:number]), mask_format=mask_format) for number in (1, 40))
        assert (await client.post("/score", json=one)).status_code == 200
        response = await client.post("/score", json=many)
        assert response.status_code == 400
        assert response.json()["message"].startswith(f"expected at most {most} bytes of masks in a response, got more:")
        assert (await client.post("/score", json=one)).status_code == 200

    converse(sam_only(max_response_mb=most / 2**20), conversation)


def test_a_service_that_is_stopping_refuses_new_requests(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        app.state.stopping = True
        response = await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))
        assert response.status_code == 503
        assert response.json() == {"message": "this service is stopping"}
        assert response.headers["connection"] == "close"
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200

    converse(sam_only(), conversation)


class Endless:
    """An encoder that goes on as long as anybody waits for it."""

    def __init__(self) -> None:
        self.entered, self.left = threading.Event(), threading.Event()

    def __call__(self, samples: Any, between: Callable[[], None]) -> Any:
        self.entered.set()
        try:
            while True:
                between()
        finally:
            self.left.set()


def test_a_request_that_takes_too_long_is_a_504_and_its_work_is_dropped(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content, endless = to_sam(row(boxes="[[10, 10, 90, 50]]")), Endless()
        with monkeypatch.context() as patched:
            patched.setattr(app.state.scorer.engine.segmenter, "embed", endless)
            response = await client.post("/score", json=content)
        assert response.status_code == 504
        assert response.json() == {"message": "not answered within 0.5 s"}
        check_headers(response, failed=True)
        assert await asyncio.to_thread(endless.left.wait, 30)
        assert (await client.post("/score", json=content)).status_code == 200

    converse(sam_only(request_timeout_s=0.5), conversation)


def test_the_work_of_a_client_that_has_gone_is_dropped(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real socket: closing it is how a client goes."""
    settings = sam_only()
    body = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()

    async def run() -> None:
        app = create_app(settings)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning", lifespan="on"))
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=url, timeout=60) as client:
            while not server.started:
                await asyncio.sleep(0.01)
            endless = Endless()
            with monkeypatch.context() as patched:
                patched.setattr(app.state.scorer.engine.segmenter, "embed", endless)
                _, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
                writer.write(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
                assert await asyncio.to_thread(endless.entered.wait, 30)
                assert app.state.admission.inside == 1
                writer.close()
                assert await asyncio.to_thread(endless.left.wait, 30)
            assert (await client.post("/score", content=body)).status_code == 200
            assert app.state.admission.inside == 0
            server.should_exit = True
        await serving

    asyncio.run(run())


def test_a_device_that_has_stopped_computing_is_told_by_the_probes(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        assert (await client.get("/health/ready")).status_code == 200
        app.state.scorer.engine._devices[0].compute.close()
        for path in ("/health/ready", "/health/live", "/"):
            probe = await client.get(path)
            assert (probe.status_code, probe.text) == (503, "a device has stopped computing")
        response = await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))
        assert response.status_code == 503
        assert response.json() == {"message": "the compute thread has ended"}

    converse(sam_only(), conversation)


@pytest.mark.parametrize("megabytes", [0, 64])
def test_a_photo_is_encoded_once_for_all_its_clicks(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    """By its content: the rest of the request may differ. Without a cache, once for a request."""

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        segmenter = app.state.scorer.engine.segmenter
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
        assert_alike([again, as_data_url], [second, first])
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
        segmenter = app.state.scorer.engine.segmenter
        embed = segmenter.embed

        def count(samples: Any, between: Any) -> Any:
            encoded_photos.extend(samples)
            return embed(samples, between)

        monkeypatch.setattr(segmenter, "embed", count)
        answers.append((await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))).json())

    for _ in range(2):
        converse(sam_only(embedding_cache_dir=tmp_path / "embeddings"), conversation)
    assert_alike(answers[0], answers[1])
    assert len(encoded_photos) == 1


def test_a_fault_of_the_servers_is_a_500_that_tells_only_the_log(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(samples: Any, between: Any) -> Any:
        raise RuntimeError("the secret of /models/sam")

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = to_sam(row(boxes="[[10, 10, 90, 50]]"))
        with monkeypatch.context() as patched:
            patched.setattr(app.state.scorer.engine.segmenter, "embed", broken)
            response = await client.post("/score", json=content, headers={"x-request-id": "mine-1"})
        assert response.status_code == 500
        assert response.json() == {"message": "internal error; the server's log has it as request mine-1"}
        check_headers(response, failed=True)
        assert (await client.post("/score", json=content)).status_code == 200

    with caplog.at_level(logging.ERROR, logger="box2mask"):
        converse(sam_only(), conversation)
    assert "request mine-1 failed" in caplog.text and "the secret of /models/sam" in caplog.text


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
