"""The predictors: this process and a service give the same answers, to many threads, and say what they cannot."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from app.prediction import PredictedObject, PredictionError, PredictorError
from app.predictor import LocalPredictor, ServicePredictor
from app.settings import Settings, SettingsError
from models.demo.scenes import render_scene
from tests.app.conftest import web_server
from tests.app.same_answers import bounds

pytestmark = pytest.mark.any_dtype

BOXES = np.array([[10.0, 8.0, 90.5, 70.25], [0.0, 0.0, 120.0, 90.0], [30.0, 20.0, 31.0, 21.0]])


def scene(seed: int, size_hw: tuple[int, int] = (90, 120), file_format: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(render_scene(np.random.default_rng(seed), size_hw).image).save(buffer, file_format)
    return buffer.getvalue()


def settings_of(model_folders: Any, **changes: Any) -> Settings:
    folders = {"detector": str(model_folders.detector), "segmenter": str(model_folders.segmenter)}
    return Settings(**({"device": "cpu"} | folders | changes))


def assert_close(some: list[PredictedObject], others: list[PredictedObject]) -> None:
    assert [one.label for one in some] == [one.label for one in others]
    for one, other in zip(some, others, strict=True):
        assert one.box_xyxy == pytest.approx(other.box_xyxy, abs=1e-2)  # pixels
        assert one.score == (None if other.score is None else pytest.approx(other.score, abs=bounds().number))
        assert (one.rle is None) == (other.rle is None)
        if one.rle is None:
            continue
        assert one.iou_score == pytest.approx(other.iou_score, abs=bounds().number)
        assert (coco_mask.decode(one.rle) != coco_mask.decode(other.rle)).mean() < max(0.01, bounds().pixels)


@pytest.fixture(scope="module")
def local(model_folders: Any) -> Iterator[LocalPredictor]:
    with LocalPredictor(settings_of(model_folders)) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def remote(service: Any) -> Iterator[ServicePredictor]:
    with ServicePredictor(service.url + "/") as predictor:
        yield predictor


def test_this_process_and_a_service_give_the_same_answers(
    local: LocalPredictor, remote: ServicePredictor, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(scene(0, (75, 100), "JPEG"))
    for image in (scene(1), photo):
        found = local.detect(image)
        assert len(found) > 5 and found == remote.detect(image)
        best = found[2].score - 1e-6
        assert local.detect(image, best) == remote.detect(image, best) == [one for one in found if one.score >= best]
        both = local.detect_and_segment(image, best)
        assert len(both) == 3 and both == remote.detect_and_segment(image, best)
        prompted = local.segment(image, BOXES)
        assert prompted == remote.segment(image, BOXES)
    assert local.class_names == remote.class_names and len(local.class_names) == 4


def test_boxes_are_in_pixels_and_masks_are_those_of_the_boxes(local: LocalPredictor) -> None:
    image = scene(2)
    found = local.detect_and_segment(image, local.detect(image)[4].score - 1e-6)  # random weights are sure of nothing
    assert len(found) == 5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    boxes = np.array([one.box_xyxy for one in found])
    assert (boxes == boxes.astype(np.float32)).all()  # the detector's own numbers, not what the wire made of them
    assert (boxes >= 0).all() and (boxes <= (120, 90, 120, 90)).all() and boxes.max() > 1
    assert {one.label for one in found} <= set(local.class_names)
    again = local.segment(image, boxes)
    assert [(one.rle, one.iou_score, one.box_xyxy) for one in again] == [
        (one.rle, one.iou_score, one.box_xyxy) for one in found
    ]
    assert all(one.label is None and one.score is None for one in again)
    assert {coco_mask.decode(one.rle).shape for one in found} == {(90, 120)}
    assert all(one.rle is None and one.iou_score is None for one in local.detect(image))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 1)])
def test_answers_are_for_the_image_as_it_is_shown(
    local: LocalPredictor, orientation: int, turns: int, file_format: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    stored = np.rot90(np.asarray(Image.open(BytesIO(scene(3)))), turns)
    Image.fromarray(np.ascontiguousarray(stored)).save(buffer, file_format, exif=exif)
    assert local.detect(buffer.getvalue()) == local.detect(scene(3))
    assert local.segment(buffer.getvalue(), BOXES) == local.segment(scene(3), BOXES)


def test_no_boxes_are_no_objects_and_boxes_of_another_shape_are_a_fault(local: LocalPredictor) -> None:
    assert local.segment(scene(0), np.zeros((0, 4))) == []
    with pytest.raises(ValueError, match=r"expected boxes \(N, 4\), got \(4,\)"):
        local.segment(scene(0), np.array([1, 2, 3, 4]))


def test_more_boxes_than_a_request_may_have_come_in_several(
    local: LocalPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = local.segment(scene(4), BOXES)
    monkeypatch.setattr("app.predictor.PROMPTS_AT_ONCE", 2)
    assert_close(local.segment(scene(4), BOXES), at_once)


def test_threads_may_ask_at_the_same_time(local: LocalPredictor) -> None:
    images = [scene(seed, (60 + seed, 80)) for seed in range(6)]
    ask = lambda image: local.segment(image, BOXES) + local.detect(image)[:5]  # noqa: E731
    alone = [ask(image) for image in images]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, images * 2))
    for one, other in zip(together, alone * 2, strict=True):
        assert_close(one, other)  # images that are computed in one batch differ in their last digits


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"no image", r"^expected a JPEG, .* got 8 bytes that start with b'no image'"),
        (scene(0)[:200], r"^the PNG image is truncated"),
        (Path("missing.jpg"), r"^cannot be read: No such file"),
    ],
)
def test_an_image_that_cannot_be_answered_says_why(
    local: LocalPredictor, remote: ServicePredictor, image: Any, reason: str
) -> None:
    for predictor in (local, remote):
        with pytest.raises(PredictionError, match=reason):
            predictor.detect(image)
    assert local.detect(scene(0))  # the next one is none the worse


def test_the_callers_own_urls_may_lead_to_its_own_network(local: LocalPredictor, model_folders: Any) -> None:
    with web_server({"/scene.png": scene(0)}) as root:
        url = f"{root}/scene.png"
        assert_close(local.detect(url), local.detect(scene(0)))
        with (
            LocalPredictor(settings_of(model_folders, segmenter="none", image_urls="off")) as predictor,
            pytest.raises(PredictionError, match="does not fetch URLs"),
        ):
            predictor.detect(url)


def test_a_box_outside_the_image_says_which(local: LocalPredictor, remote: ServicePredictor) -> None:
    boxes = np.array([[1.0, 1, 5, 5], [500, 500, 600, 600]])
    for predictor in (local, remote):
        with pytest.raises(PredictionError, match=r"^input_boxes: box 1: expected a box that meets the image of 120 x"):
            predictor.segment(scene(0), boxes)


def test_a_model_that_is_not_there_is_said(model_folders: Any) -> None:
    with LocalPredictor(settings_of(model_folders, segmenter="none", max_image_mb=0.001)) as predictor:
        assert predictor.identity()["segmenter"] is None
        with pytest.raises(PredictorError, match="there is no segmenter"):
            predictor.segment(b"", BOXES)
        with pytest.raises(PredictionError, match="expected an image of at most 1048 bytes"):
            predictor.detect(scene(0))
    with pytest.raises(SettingsError, match="there is nothing to serve"):
        LocalPredictor(settings_of(model_folders, segmenter="none", detector="none"))


def test_a_file_over_the_limit_is_not_read(model_folders: Any, tmp_path: Path, local: LocalPredictor) -> None:
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(2**40)  # a hole: reading it would end this process
    with pytest.raises(PredictionError, match=f"at most {64 * 2**20} bytes, got {2**40}"):
        local.detect(large)


def test_identity_is_what_answers_depend_on(local: LocalPredictor, remote: ServicePredictor, scripted: Any) -> None:
    identity = local.identity()
    dtype = os.environ["BOX2MASK_DTYPE"]
    assert re.fullmatch(rf"detector \({dtype}, fast, bgr, sha256 [0-9a-f]{{16}}\)", identity["detector"])
    assert re.fullmatch(rf"segmenter \({dtype}, fast, sha256 [0-9a-f]{{16}}\)", identity["segmenter"])
    assert remote.identity() == identity
    described = dict(local.description)
    others = set()
    for change in ({"sha256": "f" * 64}, {"dtype": "float16"}, {"channel_order": "rgb"}, {"fast": False}):
        version = (200, {}, described | {"detector": described["detector"] | change})
        with ServicePredictor(scripted(version)) as predictor:
            others.add(predictor.identity()["detector"])
    assert len(others | {identity["detector"]}) == 5


class Answers(BaseHTTPRequestHandler):
    """A service that says what `script` holds: (status, headers, body) for each request in turn."""

    script: list[tuple[int, dict[str, str], str]]

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, headers, body = self.script.pop(0)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Any]:
    servers = []

    def start(*script: tuple[int, dict[str, str], Any]) -> str:
        handler = type(
            "Scripted", (Answers,), {"script": [(one, two, json.dumps(three)) for one, two, three in script]}
        )
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


DETECTOR = {"name": "d", "dtype": "float32", "classes": ["a"]}
VERSION = (200, {}, {"box2mask": "1", "detector": DETECTOR, "segmenter": None})


def test_a_busy_service_is_asked_again(scripted: Any) -> None:
    url = scripted(VERSION, (429, {"retry-after": "0"}, {"message": "busy"}), (200, {}, [{"boxes": []}]))
    with ServicePredictor(url) as predictor:
        assert predictor.detect(scene(0)) == []


def test_a_service_gets_no_more_prompts_than_it_takes(scripted: Any) -> None:
    mask = {"mask_per_prediction": [{"rle": {"size": [90, 120], "counts": ""}, "iou_score": 0.5}]}
    answers = [(200, {}, [{"predictions": [mask] * count}]) for count in (2, 1)]
    with ServicePredictor(scripted((200, {}, VERSION[2] | {"max_prompts": 2}), *answers)) as predictor:
        assert [one.box_xyxy for one in predictor.segment(scene(0), BOXES)] == [tuple(box) for box in BOXES]


def test_no_proxy_is_asked_for_what_runs_here(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    url = scripted(VERSION, VERSION)
    for address in (url, url.replace("127.0.0.1", "localhost")):
        ServicePredictor(address).close()
    with pytest.raises(PredictorError, match="there is no box2mask service"):
        ServicePredictor("http://198.51.100.1:5001")  # another machine: this proxy refuses


def test_a_failing_service_fails_the_image_and_an_absent_model_all_of_them(scripted: Any) -> None:
    url = scripted(VERSION, (503, {}, {"message": "too little memory"}), (404, {}, {"message": "this service has no"}))
    with ServicePredictor(url) as predictor:
        with pytest.raises(PredictionError, match=r"too little memory \(503 from http"):
            predictor.detect(scene(0))
        with pytest.raises(PredictorError, match="this service has no") as raised:
            predictor.detect(scene(0))
        assert not isinstance(raised.value, PredictionError)


def test_what_is_no_service_is_said(scripted: Any) -> None:
    with pytest.raises(PredictorError, match="expected the URL of a service"):
        ServicePredictor("localhost:5001")
    with pytest.raises(PredictorError, match="expected the URL of a service"):
        ServicePredictor("http://localhost:port")
    with pytest.raises(PredictorError, match="this is no box2mask service: /version answered 404"):
        ServicePredictor(scripted((404, {}, {"message": "?"})))
    with pytest.raises(PredictorError, match="this is no box2mask service"):
        ServicePredictor(scripted((200, {}, {"version": "of another"})))
    url = scripted(VERSION)
    with ServicePredictor(url) as predictor:
        predictor._client = httpx.Client(base_url="http://127.0.0.1:1")
        with pytest.raises(PredictorError, match="is gone"):
            predictor.detect(scene(0))
    with pytest.raises(PredictorError, match="there is no box2mask service"):
        ServicePredictor("http://127.0.0.1:1")
