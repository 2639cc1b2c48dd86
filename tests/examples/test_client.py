"""The Python client against the service, and against servers that are busy, slow, broken, or something else."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from examples import client
from examples.client import (
    AsyncClient,
    Busy,
    Client,
    Detection,
    Mask,
    RequestRejected,
    ScoringError,
    Segment,
    ServiceFailed,
    UnexpectedAnswer,
    Unreachable,
)
from tests.app.same_answers import bounds
from tests.examples.conftest import CLOSE, HANG, scripted

pytestmark = pytest.mark.any_dtype

FILE = Path(__file__).parents[2] / "examples" / "client.py"
ONE_BOX = [
    {"boxes": [{"box": {"topX": 0.25, "topY": 0.5, "bottomX": 0.5, "bottomY": 1.0}, "label": "can", "score": 0.9}]}
]
Ask = Callable[..., Any]


@pytest.fixture(params=[Client, AsyncClient])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Call a method of a client with these settings; every test with it asks by both clients."""

    def call(url: str, method: str, *args: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
        if request.param is Client:
            with Client(url, **settings or {}) as waiting:
                return getattr(waiting, method)(*args, **options)

        async def awaited() -> Any:
            async with AsyncClient(url, **settings or {}) as awaiting:
                return await getattr(awaiting, method)(*args, **options)

        return asyncio.run(awaited())

    return call


@pytest.fixture
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_PAUSE_S", 0.01)


def wire(service: Any, route: str, row: dict[str, Any], **params: Any) -> Any:
    """The answer to one row, as it is."""
    body = {"input_data": {"columns": list(row), "data": [list(row.values())]}, "params": params}
    answer = httpx.post(service.url + route, json=body, timeout=100)
    answer.raise_for_status()
    return answer.json()[0]


def base64_of(photo: Path) -> str:
    return base64.b64encode(photo.read_bytes()).decode()


def png_pixels(mask: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(mask["encoded_binary_mask"]))) as png:
        assert png.mode == "L"
        return np.asarray(png) == 255


def same_pixels(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """But for a few at the edge, which the last bit of a number decides: it is another one in another batch."""
    return ours.shape == theirs.shape and (ours != theirs).mean() <= bounds().pixels


def same_masks(ours: tuple[Mask, ...], theirs: tuple[Mask, ...]) -> bool:
    return [mask.iou_score for mask in ours] == pytest.approx(
        [mask.iou_score for mask in theirs], abs=max(1e-3, bounds().number)
    ) and all(same_pixels(one.pixels, other.pixels) for one, other in zip(ours, theirs, strict=True))


def same(ours: list[Detection], theirs: list[Detection]) -> bool:
    return len(ours) == len(theirs) and all(
        (one.label, one.size_hw) == (other.label, other.size_hw)
        and (one.score, *one.box_normalized)
        == pytest.approx((other.score, *other.box_normalized), abs=max(1e-3, bounds().number))
        and same_masks(one.masks, other.masks)
        for one, other in zip(ours, theirs, strict=True)
    )


# Answers of the service


def test_boxes_are_those_of_the_answer_in_both_frames(service: Any, photo: Path, ask: Ask) -> None:
    row = wire(service, "/yolof/score", {"image": base64_of(photo)}, score_threshold=0.2)
    with scripted((200, {}, [row])) as replayed:
        found = ask(replayed.url, "detect", photo, score_threshold=0.2)
    boxes = row["boxes"]
    assert len(found) == len(boxes) >= 2
    for one, box in zip(found, boxes, strict=True):
        assert (one.label, one.score, one.masks) == (box["label"], box["score"], ())
        assert one.box_normalized == tuple(box["box"][key] for key in ("topX", "topY", "bottomX", "bottomY"))
        assert one.size_hw == (360, 480)
        assert one.box_xyxy == pytest.approx(np.multiply(one.box_normalized, (480, 360, 480, 360)))
    assert same(found, ask(service.url, "detect", photo, score_threshold=0.2))
    assert len(ask(service.url, "detect", photo)) > len(found)  # the model's own threshold is lower


def test_masks_are_the_answers_pngs(service: Any, photo: Path, ask: Ask) -> None:
    boxes = [[60, 80, 200, 300], [220.5, 90, 400, 310]]
    row = {"image": base64_of(photo), "input_points": None, "input_boxes": boxes, "input_labels": None}
    for multimask, count in ((False, 1), (True, 3)):
        content = wire(service, "/sam/score", row | {"multimask_output": multimask})
        with scripted((200, {}, [content])) as replayed:
            segments = ask(replayed.url, "segment", photo, boxes_xyxy=boxes, multimask=multimask)
        answer = content["predictions"]
        assert len(segments) == len(answer) == 2
        for segment, prediction in zip(segments, answer, strict=True):
            assert len(segment.masks) == count
            for mask, one in zip(segment.masks, prediction["mask_per_prediction"], strict=True):
                assert mask.pixels.dtype == bool and mask.pixels.shape == (360, 480)
                assert np.array_equal(mask.pixels, png_pixels(one)) and mask.pixels.any()
                assert mask.iou_score == one["iou_score"]
        asked = ask(service.url, "segment", photo, boxes_xyxy=boxes, multimask=multimask)
        assert all(same_masks(one.masks, other.masks) for one, other in zip(asked, segments, strict=True))


def test_points_and_labels_reach_the_service(service: Any, photo: Path, ask: Ask) -> None:
    points = [[[130, 180], [310, 200]]]
    row = {"image": base64_of(photo), "input_points": points, "input_boxes": None, "multimask_output": False}
    for labels in (None, [[1, 0]]):
        (prediction,) = wire(service, "/sam/score", row | {"input_labels": labels})["predictions"]
        (segment,) = ask(service.url, "segment", photo, points_xy=np.array(points), labels=labels)
        assert same_pixels(segment.masks[0].pixels, png_pixels(prediction["mask_per_prediction"][0]))
    each = ask(service.url, "segment", photo, points_xy=points[0], labels=[1, 1])
    assert len(each) == 2 and not same_masks(each[0].masks, each[1].masks)
    both = ask(service.url, "segment", photo, boxes_xyxy=[[60, 80, 200, 300]], points_xy=[[130, 180]])
    assert len(both) == 1
    assert len(ask(service.url, "segment", photo)) == 1  # SAM's unprompted prediction


def test_no_boxes_have_no_masks_and_cost_no_request(ask: Ask, photo: Path) -> None:
    with scripted((200, {}, [{"boxes": []}])) as server:
        nothing: list[Any] = [[], np.empty((0, 4))]
        for none in nothing:
            assert ask(server.url, "segment", photo, boxes_xyxy=none) == []
        assert ask(server.url, "segment", photo, points_xy=np.empty((0, 2))) == []
        assert server.came == []
        assert ask(server.url, "detect_and_segment", photo) == []
        assert len(server.came) == 1


def test_every_form_of_the_answer_gives_the_same_objects(service: Any, photo: Path, ask: Ask) -> None:
    found = ask(service.url, "detect_and_segment", photo)
    assert len(found) >= 2 and all(one.masks[0].pixels.shape == (360, 480) for one in found)
    assert same(found, ask(service.url, "detect_and_segment", photo, settings={"params": {"mask_format": "rle"}}))
    # A route where the columns decide takes two requests, in either schema.
    for schema in ("card", "live"):
        settings = {"params": {"response_schema": schema}}
        columns = ask(f"{service.url}/score", "detect_and_segment", photo, settings=settings)
        assert [one.label for one in columns] == [one.label for one in found]
        for one, other in zip(columns, found, strict=True):
            assert same_masks(one.masks, other.masks)


def test_three_masks_to_an_object_where_they_are_asked_for(service: Any, photo: Path, ask: Ask) -> None:
    for url in (service.url, f"{service.url}/score"):
        assert {len(one.masks) for one in ask(url, "detect_and_segment", photo, multimask=True)} == {3}


def test_every_form_of_an_image_gives_the_same_objects(service: Any, photo: Path, tmp_path: Path, ask: Ask) -> None:
    picture = Image.open(photo).convert("RGB")
    path = tmp_path / "photo.png"
    picture.save(path)
    found = ask(service.url, "detect", path)
    assert found
    for image in (str(path), path.read_bytes(), np.asarray(picture), picture, picture.convert("RGBA")):
        assert same(found, ask(service.url, "detect", image))
    with scripted((200, {"Content-Type": "image/png"}, path.read_bytes())) as server:
        by_url = ask(service.url, "detect", f"{server.url}/photo.png")
        assert [(one.label, one.size_hw) for one in by_url] == [(one.label, None) for one in found]
        with pytest.raises(ValueError, match="URL"):
            by_url[0].box_xyxy  # noqa: B018
        (segmented, *_) = ask(service.url, "detect_and_segment", f"{server.url}/photo.png")
        assert segmented.size_hw == (360, 480)


# Pillow itself turns a TIFF, and no other format, upright as it opens it.
@pytest.mark.parametrize(("name", "opened_hw"), [("turned.jpg", (360, 480)), ("turned.tif", (480, 360))])
def test_a_photo_that_exif_turns_is_measured_as_the_service_saw_it(
    service: Any, photo: Path, tmp_path: Path, name: str, opened_hw: tuple[int, int]
) -> None:
    turned = tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).save(turned, exif=exif)
    for params, size_hw in (({}, (360, 480)), ({"exif_orientation": True}, (480, 360))):
        with Client(service.url, params=params) as waiting:
            assert {one.size_hw for one in waiting.detect(turned)} == {size_hw}
            assert {one.size_hw for one in waiting.detect_and_segment(turned, 0.05)} == {size_hw}
    # A picture that is open already goes as its pixels are.
    with Client(service.url, params={"exif_orientation": True}) as waiting, Image.open(turned) as opened:
        assert {one.size_hw for one in waiting.detect(opened)} == {opened_hw}


def test_many_at_a_time_are_each_answered(service: Any, photo: Path) -> None:
    async def ask_for_all() -> list[list[Detection]]:
        async with AsyncClient(service.url) as awaiting:
            return await asyncio.gather(*(awaiting.detect(photo, threshold) for threshold in (0.05, 0.5, 0.9, 0.05)))

    low, middle, high, again = asyncio.run(ask_for_all())
    assert same(low, again) and len(low) > len(middle) >= len(high)


# The catalog's own notebooks read an answer with these calls, one after the other.


def test_the_catalogs_way_to_read_a_mask_reads_ours(service: Any, photo: Path) -> None:
    pandas = pytest.importorskip("pandas")
    body = {
        "input_data": {
            "columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],
            "index": [0],
            "data": [[base64_of(photo), "", "[[60, 80, 200, 300]]", "", False]],
        },
        "params": {"response_schema": "live"},
    }
    text = httpx.post(f"{service.url}/score", json=body, timeout=100).raise_for_status().text
    table = pandas.read_json(io.StringIO(text))
    entry = table["response"][0]["predictions"][0]["masks_per_prediction"][0]
    mask = np.array(Image.open(io.BytesIO(base64.b64decode(entry["encoded_binary_mask"])))) > 0
    shown = mask.reshape(*mask.shape[-2:], 1) * np.array([0.1, 0.5, 1.0, 0.6]).reshape(1, 1, -1)  # what is drawn of it
    with Client(service.url) as waiting:
        (segment,) = waiting.segment(photo, [[60, 80, 200, 300]])
    assert mask.any() and same_pixels(mask, segment.masks[0].pixels)
    assert shown.shape == (360, 480, 4) and f"{entry['iou_score']:.3f}"


# Errors


def test_what_the_service_rejects_is_said_and_the_next_request_works(service: Any, photo: Path, ask: Ask) -> None:
    with pytest.raises(RequestRejected, match=r"^400: row 0, image: .*\(request [0-9a-f-]{36}\)$") as caught:
        ask(service.url, "detect", b"no image")
    assert caught.value.status == 400 and caught.value.message.startswith("row 0, image: ")
    with pytest.raises(RequestRejected, match="row 0, input_boxes: .* got \\[200, 80, 60, 300\\]"):
        ask(service.url, "segment", photo, boxes_xyxy=[[200, 80, 60, 300]])
    with pytest.raises(RequestRejected, match="404: there is nothing at /nowhere"):
        ask(f"{service.url}/nowhere", "detect", photo)
    assert ask(service.url, "detect", photo)


@pytest.mark.parametrize("status", [429, 424])
def test_a_busy_service_is_asked_again_when_it_says(ask: Ask, status: int, photo: Path) -> None:
    busy = {"Retry-After": "1", "ms-azureml-model-error-statuscode": "429"}
    with scripted((status, busy, {"message": "full"}), (200, {}, ONE_BOX)) as server:
        (found,) = ask(server.url, "detect", photo)
    assert found.box_xyxy == (120, 180, 240, 360)
    (first, before, asked), (second, after, again) = server.came
    assert second - first >= 1
    assert asked == again and before["X-Request-ID"] == after["X-Request-ID"]


def test_a_busy_service_is_given_up_in_time(ask: Ask, photo: Path, quick_pauses: None) -> None:
    busy = {"x-request-id": "theirs"}
    with scripted((429, busy | {"Retry-After": "60"}, {"message": "full"})) as server:
        began = time.monotonic()
        with pytest.raises(Busy, match=r"429: full \(request theirs\)") as caught:
            ask(server.url, "detect", photo, settings={"deadline_s": 30})
        assert time.monotonic() - began < 20 and len(server.came) == 1
        assert (caught.value.status, caught.value.request_id) == (429, "theirs")
    with scripted((429, busy, {"message": "full"})) as server:  # no word of when: pauses that grow
        with pytest.raises(Busy):
            ask(server.url, "detect", photo, settings={"deadline_s": 2.4, "retries": 0})
        times = [when for when, _, _ in server.came]
        assert 4 <= len(times) <= 9
        assert all(
            later - sooner >= 0.01 * 2**n for n, (sooner, later) in enumerate(zip(times, times[1:], strict=False))
        )


@pytest.mark.parametrize("broken", [CLOSE, (503, {}, {"message": "stopping"}), (502, {}, b"<html>")])
def test_a_broken_connection_is_tried_again_so_often(ask: Ask, broken: Any, photo: Path, quick_pauses: None) -> None:
    with scripted(broken, broken, (200, {}, ONE_BOX)) as server:
        assert ask(server.url, "detect", photo, settings={"retries": 2})[0].label == "can"
        assert len(server.came) == 3
    with scripted(broken) as server:
        with pytest.raises(Unreachable if broken == CLOSE else ServiceFailed) as caught:
            ask(server.url, "detect", photo, settings={"retries": 2})
        assert len(server.came) == 3
        assert caught.value.status == (None if broken == CLOSE else broken[0])
        assert caught.value.request_id == server.came[0][1]["X-Request-ID"]


def test_a_silent_service_is_not_waited_for_nor_asked_twice(ask: Ask, photo: Path) -> None:
    with scripted(HANG) as server:
        for settings in ({"timeout_s": 0.3}, {"deadline_s": 0.3}):
            began = time.monotonic()
            with pytest.raises(Unreachable) as caught:
                ask(server.url, "detect", photo, settings=settings)
            assert time.monotonic() - began < 15
            assert isinstance(caught.value.__cause__, httpx.ReadTimeout) and caught.value.status is None
        assert len(server.came) == 2


def test_no_service_at_all_is_unreachable(ask: Ask, photo: Path, quick_pauses: None) -> None:
    with scripted(CLOSE) as server:
        pass
    with pytest.raises(Unreachable):
        ask(server.url, "detect", photo)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (401, {}, RequestRejected),
        (404, {}, RequestRejected),
        (408, {}, ServiceFailed),
        (424, {}, ServiceFailed),
        (424, {"ms-azureml-model-error-statuscode": "400"}, RequestRejected),
        (500, {}, ServiceFailed),
        (504, {}, ServiceFailed),
        (301, {"Location": "https://elsewhere.invalid/"}, UnexpectedAnswer),
    ],
)
def test_other_statuses_are_told_once(ask: Ask, photo: Path, status: int, headers: dict[str, str], kind: type) -> None:
    with scripted((status, headers, b"not JSON")) as server:
        with pytest.raises(ScoringError, match="not JSON") as caught:
            ask(server.url, "detect", photo)
        assert type(caught.value) is kind and len(server.came) == 1
        assert caught.value.status == int(headers.get("ms-azureml-model-error-statuscode", status))


@pytest.mark.parametrize(
    "content",
    [
        b"<html>hello</html>",
        {"boxes": []},
        [],
        [{"boxes": []}, {"boxes": []}],
        [{"predictions": []}],
        [{"boxes": [{"box": [0, 0, 1, 1], "label": "can", "score": 1}]}],
        [
            {
                "boxes": [
                    ONE_BOX[0]["boxes"][0] | {"mask_per_prediction": [{"encoded_binary_mask": "AAAA", "iou_score": 1}]}
                ]
            }
        ],
        [{"boxes": [ONE_BOX[0]["boxes"][0] | {"mask_per_prediction": [{"rle": {"size": [2, 2], "counts": "1"}}]}]}],
    ],
)
def test_an_answer_of_another_kind_is_shown(ask: Ask, photo: Path, content: Any) -> None:
    with scripted((200, {"x-request-id": "theirs"}, content)) as server:
        with pytest.raises(UnexpectedAnswer, match="expected a list with one answer, got '.") as caught:
            ask(server.url, "detect", photo)
        assert (caught.value.status, caught.value.request_id, len(server.came)) == (200, "theirs", 1)


# Requests


def test_an_azure_endpoint_gets_key_deployment_and_prompts_as_strings(ask: Ask, photo: Path) -> None:
    (found,) = ONE_BOX[0]["boxes"]
    png = io.BytesIO()
    Image.new("L", (3, 2), 255).save(png, "PNG")
    mask = base64.b64encode(png.getvalue()).decode()
    segmented = [
        {"response": {"predictions": [{"masks_per_prediction": [{"encoded_binary_mask": mask, "iou_score": 1}]}]}}
    ]
    with scripted((200, {}, [{"boxes": [found]}]), (200, {}, segmented)) as server:
        settings = {"key": "secret", "deployment": "green", "params": {"exif_orientation": True}}
        (one,) = ask(f"{server.url}/score", "detect_and_segment", photo, settings=settings)
    assert one.masks[0].pixels.tolist() == [[True] * 3] * 2
    for _, headers, _ in server.came:
        assert headers["Authorization"] == "Bearer secret" and headers["azureml-model-deployment"] == "green"
    (_, _, detect), (_, _, segment) = server.came
    assert detect["input_data"]["columns"] == ["image"] and detect["params"]["score_threshold"] == 0.3
    assert segment["params"] == {"exif_orientation": True}
    assert dict(zip(segment["input_data"]["columns"], segment["input_data"]["data"][0], strict=True)) == {
        "image": base64_of(photo),
        "input_points": "",
        "input_boxes": "[[120.0, 180.0, 240.0, 360.0]]",
        "input_labels": "",
        "multimask_output": False,
    }
    assert "secret" not in repr(Client("http://localhost", key="secret"))


def test_without_a_key_there_is_none(ask: Ask, photo: Path) -> None:
    with scripted((200, {}, ONE_BOX)) as server:
        ask(server.url, "detect", photo)
    ((_, headers, _),) = server.came
    assert "Authorization" not in headers and "azureml-model-deployment" not in headers


def test_what_cannot_be_sent_is_said_and_not_sent(ask: Ask, photo: Path, tmp_path: Path) -> None:
    with scripted((200, {}, ONE_BOX)) as server:
        for image, message in (
            (np.zeros((4, 4, 3), np.float32), r"image: expected \(H, W, 3\) uint8, got \(4, 4, 3\) float32"),
            (np.zeros((4, 4), np.uint8), r"image: expected \(H, W, 3\) uint8, got \(4, 4\) uint8"),
            (Image.new("I;16", (4, 4)), "image: expected 8 bits to a channel, got Pillow's mode I;16"),
        ):
            with pytest.raises(ValueError, match=message):
                ask(server.url, "detect", image)
        with pytest.raises(FileNotFoundError):
            ask(server.url, "detect", tmp_path / "absent.jpg")
        for prompts, message in (
            ({"boxes_xyxy": [1, 2, 3, 4]}, r"boxes_xyxy: expected \(N, 4\), got \(4,\)"),
            ({"points_xy": [[1, 2, 3]]}, r"points_xy: expected \(N, P, 2\) or \(N, 2\), got \(1, 3\)"),
            ({"points_xy": [[1, 2]], "labels": [1, 0]}, r"labels: expected one for each point, \(1,\), got \(2,\)"),
            ({"boxes_xyxy": [[1, 2, 3, 4]], "labels": [1]}, r"labels: expected one for each point, \(\), got \(1,\)"),
        ):
            with pytest.raises(ValueError, match=message):
                ask(server.url, "segment", photo, **prompts)
        assert server.came == []
    for url in ("localhost:5001", "ftp://host", "http://", "https:///score"):
        with pytest.raises(ValueError, match="expected the URL of a service"):
            Client(url)
    with pytest.raises(ValueError, match="params.mask_format: expected png or rle"):
        Client("http://localhost", params={"mask_format": "polygon"})


# Masks and pictures


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (7, 1), (13, 5), (97, 203)])
def test_run_lengths_are_read_as_pycocotools_does(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 0.98, 1.0):
        mask = rng.random(size_hw) < share
        counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert np.array_equal(client.decode_rle(counts, size_hw), mask)
    large = np.zeros((400, 3000), bool)  # runs of many digits
    large[100:, 40:2900] = True
    counts = coco_mask.encode(np.asfortranarray(large.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(client.decode_rle(counts, large.shape), large)


def test_the_overlay_tints_the_best_mask_and_nothing_else() -> None:
    picture = np.full((120, 200, 3), 100, np.uint8)
    best, other = np.zeros((2, 120, 200), bool)
    best[60:100, 50:150] = True
    other[5:10, 5:10] = True
    masks = (Mask(other, 0.1), Mask(best, 0.9))
    drawn = np.asarray(client.overlay(picture, [Segment(masks)]))
    assert np.array_equal((drawn != picture).any(axis=2), best)
    assert len(np.unique(drawn[best], axis=0)) == 1
    boxed = np.asarray(client.overlay(picture, [Detection("can", 0.5, (0.25, 0.5, 0.75, 0.9), (120, 200), masks)]))
    assert np.array_equal(boxed[65:95, 60:140], drawn[65:95, 60:140])
    assert (boxed[60, 60:140] == client._COLORS[0]).all() and (boxed[108, 60:140] == client._COLORS[0]).all()
    assert (picture == 100).all()
    with pytest.raises(ValueError, match=r"expected a picture of \(200, 120\), as the mask, got \(120, 200\)"):
        client.overlay(picture.transpose(1, 0, 2).copy(), [Segment(masks)])
    with pytest.raises(ValueError, match="its URL"):
        client.overlay("http://localhost/photo.jpg", [])


def test_the_command_draws_a_photo(service: Any, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "overlay.png"
    command = [sys.executable, FILE, photo, "--url", service.url, "--out", out]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.match(r"[1-9]\d* objects: ", done.stdout)
    with Client(service.url) as waiting:
        found = waiting.detect_and_segment(photo)
    drawn, expected = np.asarray(Image.open(out)), np.asarray(client.overlay(photo, found))
    assert same_pixels(drawn, expected) and not same_pixels(drawn, np.asarray(Image.open(photo)))


def test_the_command_says_what_went_wrong(service: Any, tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    for photo, message in ((text, "400: row 0, image: "), (tmp_path / "absent.jpg", "No such file")):
        command = [sys.executable, FILE, photo, "--url", service.url, "--out", tmp_path / "overlay.png"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "overlay.png").exists()
