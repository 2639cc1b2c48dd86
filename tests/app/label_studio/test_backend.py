"""The ML backend's routes on a running service, with small models and a stand-in for Label Studio."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from models.data.parsing.brush import unpack
from tests.app.conftest import ModelFolders, Service, serving
from tests.app.label_studio.stub_server import PERSONAL, StubStudio, stub_studio
from tests.app.scoring_requests import filled, mask_of, picture

KEY = "fedcba9876543210" * 2
WIDTH, HEIGHT = 96, 64
LABELS = "".join(f'<Label value="{name}"/>' for name in ("can", "carton", "milk_bottle", "water_bottle"))
IMAGE = '<Image name="image" value="$image"/>'
BRUSH = f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>'
BOXES = f'<RectangleLabels name="box" toName="image">{LABELS}</RectangleLabels>'
OUTLINES = f'<PolygonLabels name="outline" toName="image">{LABELS}</PolygonLabels>'


def config(*controls: str) -> str:
    return f"<View>{IMAGE}{''.join(controls)}</View>"


def file_of(image: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def studio() -> Iterator[StubStudio]:
    with stub_studio() as started:
        photo = picture(WIDTH, HEIGHT, seed=3)
        started.files["/data/upload/1/photo.png"] = file_of(photo)
        exif = photo.getexif()
        exif[0x0112] = 6  # shown after a quarter turn clockwise
        started.files["/data/upload/1/turned.png"] = file_of(photo.rotate(90, expand=True), exif=exif)
        started.files["/data/upload/1/broken.png"] = b"\x89PNG\r\n\x1a\nand then nothing"
        yield started


@pytest.fixture(scope="module")
def settings(studio: StubStudio, model_folders: ModelFolders) -> dict[str, str]:
    return {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(model_folders.detector),
        "BOX2MASK_SEGMENTER": str(model_folders.segmenter),
        "BOX2MASK_LABEL_STUDIO_URL": studio.url,
        "BOX2MASK_LABEL_STUDIO_TOKEN": PERSONAL,
        "BOX2MASK_LABEL_STUDIO_PREDICT_S": "10",
        "BOX2MASK_URL_TIMEOUT_S": "60",
        "BOX2MASK_API_KEYS": KEY,
        "BOX2MASK_MAX_REQUESTS": "2",
    }


@pytest.fixture(scope="module")
def backend(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("backend") / "service.log", settings) as started:
        yield started


@pytest.fixture(scope="module")
def http(backend: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{backend.url}/label-studio", auth=("anybody", KEY), timeout=120) as client:
        yield client


def task(name: str, number: int = 7) -> dict[str, Any]:
    return {"id": number, "data": {"image": f"/data/upload/1/{name}"}, "annotations": [], "more": {"unknown": 1}}


def predict(http: httpx.Client, *tasks: Any, label_config: str, context: Any = None) -> list[Any]:
    params = {"login": None, "password": None, "context": context}
    body = {"tasks": list(tasks), "project": "2.1795884212", "label_config": label_config, "params": params}
    answer = http.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"results"}
    return answer.json()["results"]


def expected(backend: Service, photo: bytes, **params: Any) -> list[dict[str, Any]]:
    body = {"input_data": {"columns": ["image"], "data": [[base64.b64encode(photo).decode()]]}, "params": params}
    headers = {"authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{backend.url}/pipeline/score", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()[0]["boxes"]


def test_a_task_gets_rectangles_and_strokes(http: httpx.Client, backend: Service, studio: StubStudio) -> None:
    photo = studio.files["/data/upload/1/photo.png"]
    (entry,) = predict(http, task("photo.png"), label_config=config(BRUSH, BOXES))
    found = expected(backend, photo)
    boxes = [one for one in entry["result"] if one["type"] == "rectanglelabels"]
    strokes = {one["parentID"]: one for one in entry["result"] if one["type"] == "brushlabels"}
    assert len(boxes) == len(found) > 1 and strokes
    for box, one in zip(boxes, found, strict=True):
        value = box["value"]
        assert value["rectanglelabels"] == [one["label"]] and box["score"] == one["score"]
        assert (box["original_width"], box["original_height"], box["image_rotation"]) == (WIDTH, HEIGHT, 0)
        sides = [value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"]]
        assert sides == pytest.approx([100 * side for side in one["box"].values()], abs=1e-3)
        mask = mask_of(one["mask_per_prediction"][0])
        if mask.any():
            stroke = strokes.pop(box["id"])["value"]
            assert stroke["brushlabels"] == [one["label"]] and stroke["format"] == "rle"
            assert np.array_equal(unpack(stroke["rle"], (HEIGHT, WIDTH), "rle"), mask)
    assert not strokes
    assert entry["score"] == pytest.approx(np.mean([one["score"] for one in found]))  # of objects, not of regions


def test_only_the_controls_of_the_interface_are_used(http: httpx.Client, backend: Service, studio: StubStudio) -> None:
    photo = studio.files["/data/upload/1/photo.png"]

    def kinds(*controls: str) -> set[str]:
        (entry,) = predict(http, task("photo.png"), label_config=config(*controls))
        return {one["type"] for one in entry["result"]}

    assert kinds(BOXES) == {"rectanglelabels"} and kinds(BRUSH) == {"brushlabels"}
    assert kinds(OUTLINES, BRUSH) == {"brushlabels"}  # a brush holds what polygons do not
    assert kinds(BOXES.replace("<Rect", "<KeyPoint", 1).replace("</Rect", "</KeyPoint")) == set()
    assert kinds(BOXES.replace("name=", 'model_skip="true" name=')) == set()
    few = BOXES.replace("name=", 'model_score_threshold="0.9" name=', 1)
    (entry,) = predict(http, task("photo.png"), label_config=config(few))
    assert len(entry["result"]) == sum(one["score"] >= 0.9 for one in expected(backend, photo))

    exact = OUTLINES.replace("name=", 'model_polygon_tolerance="0" name=', 1)
    (entry,) = predict(http, task("photo.png"), label_config=config(exact))
    parts: dict[str, list[list[float]]] = {}
    for one in entry["result"]:
        assert one["value"]["closed"] is True and one["value"]["polygonlabels"]
        ring = [number / 100 for point in one["value"]["points"] for number in point]
        parts.setdefault(one.get("parentID") or one["id"], []).append(ring)
    masks = [mask_of(one["mask_per_prediction"][0]) for one in expected(backend, photo)]
    for rings, mask in zip(parts.values(), [one for one in masks if one.any()], strict=True):
        assert np.array_equal(filled(rings, (HEIGHT, WIDTH)), mask)


def test_labels_beside_their_shapes_are_two_results_of_one_region(http: httpx.Client) -> None:
    controls = f'<Labels name="what" toName="image">{LABELS}</Labels><Rectangle name="shape" toName="image"/>'
    (entry,) = predict(http, task("photo.png"), label_config=config(controls))
    pairs = list(zip(entry["result"][::2], entry["result"][1::2], strict=True))
    assert pairs
    for shape, label in pairs:
        assert (shape["type"], shape["from_name"]) == ("rectangle", "shape")
        assert (label["type"], label["from_name"], label["id"]) == ("labels", "what", shape["id"])
        assert label["value"]["labels"] and "labels" not in shape["value"]


def test_a_turned_photo_is_answered_upright(http: httpx.Client, backend: Service) -> None:
    answers = [predict(http, task(name), label_config=config(BRUSH, BOXES))[0] for name in ("photo.png", "turned.png")]
    assert answers[0]["result"] == answers[1]["result"] and answers[0]["result"]


def test_every_task_has_an_entry_in_order_whatever_becomes_of_it(
    http: httpx.Client, backend: Service, studio: StubStudio
) -> None:
    names = ("photo.png", "none.png", "broken.png", "turned.png")
    tasks: list[Any] = [task(name, number) for number, name in enumerate(names)]
    tasks += [{"id": 4, "data": {}}, {"id": 5}, {"id": 6, "data": {"image": "s3://bucket/a.png"}}]
    studio.resolved["s3://bucket/a.png"] = "http://127.0.0.1:9/secret-place"
    entries = predict(http, *tasks, label_config=config(BOXES))
    assert [bool(entry) for entry in entries] == [True, False, False, True, False, False, False]
    assert entries[0]["result"] == entries[3]["result"]
    log = backend.log()
    for number, reason in (
        (1, "Label Studio answered 404"),
        (2, "the PNG image is truncated"),
        (4, "expected the address of an image"),
        (6, "public addresses only"),
    ):
        assert any(f"task {number} has no prediction" in line and reason in line for line in log.splitlines()), reason
    assert "secret-place" not in log and PERSONAL not in log and all(access not in log for access in studio.access)


def test_a_smart_tool_gets_one_entry(http: httpx.Client, backend: Service) -> None:
    sides = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
    clicks = [
        {
            "type": "keypointlabels",
            "is_positive": positive,
            "value": {"x": x, "y": 50, "keypointlabels": ["can"]},
            **sides,
        }
        for x, positive in ((40, True), (90, False))
    ]
    for control, kind in ((BRUSH, "brushlabels"), (OUTLINES, "polygonlabels"), (BOXES, "rectanglelabels")):
        (entry,) = predict(http, task("photo.png"), label_config=config(control), context={"result": clicks})
        assert {one["type"] for one in entry["result"]} == {kind}
        assert all(one["value"][kind] == ["can"] for one in entry["result"])
    identities = set()
    for _ in range(2):
        (entry,) = predict(http, task("photo.png"), label_config=config(BRUSH), context={"result": clicks})
        identities |= {one["id"] for one in entry["result"]}
    assert len(identities) == 2  # an annotation may have both
    assert (
        predict(http, task("photo.png"), label_config=config(BRUSH), context={"result": clicks[1:]})[0]["result"] == []
    )


def test_a_click_on_a_known_photo_asks_label_studio_for_nothing(http: httpx.Client, studio: StubStudio) -> None:
    click = {"type": "keypointlabels", "to_name": "image", "value": {"x": 40, "y": 50, "keypointlabels": ["can"]}}
    before = None
    for _ in range(2):
        predict(http, task("photo.png"), label_config=config(BRUSH), context={"result": [click]})
        assert before in (None, len(studio.asked))
        before = len(studio.asked)


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"tasks": []}, 400, "tasks: expected a list of tasks"),
        ({"tasks": [3]}, 400, "tasks: expected a list of tasks"),
        ({"label_config": None}, 400, "label_config: expected the labelling interface"),
        ({"label_config": "<View>"}, 400, "label_config, line 1: not XML"),
        ({"params": {"context": 3}}, 400, "params.context: expected an object or null, got int"),
        ({"params": {"context": {"result": 3}}}, 400, "params.context.result: expected a list"),
        ({"tasks": [task("photo.png")] * 2}, 400, "tasks: expected one with params.context, got 2"),
        ({"tasks": [task("none.png")]}, 400, "task 7, data.image: Label Studio answered 404"),
        (
            {"label_config": config()},
            400,
            "expected BrushLabels, PolygonLabels or RectangleLabels with the label 'can'",
        ),
    ],
)
def test_a_mistake_is_told_and_the_next_request_is_answered(
    http: httpx.Client, change: dict[str, Any], status: int, told: str
) -> None:
    click = {"type": "keypointlabels", "to_name": "image", "value": {"x": 40, "y": 50, "keypointlabels": ["can"]}}
    body = {"tasks": [task("photo.png")], "label_config": config(BRUSH), "params": {"context": {"result": [click]}}}
    answer = http.post("/predict", json=body | change)
    assert (answer.status_code, told in answer.json()["message"]) == (status, True), answer.text
    assert http.post("/predict", json=body).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told(http: httpx.Client, content: bytes) -> None:
    for path in ("/predict", "/setup"):
        answer = http.post(path, content=content)
        assert answer.status_code == 400 and "expected" in answer.json()["message"]


def test_setup_health_and_versions(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "UP", "model_class": "box2mask"}
    setup = {"project": "1.1", "hostname": "http://localhost:8080", "access_token": "x", "extra_params": None}
    versions = [
        http.post("/setup", json=setup | {"schema": schema}).json()["model_version"]
        for schema in (
            config(BRUSH),
            config(BRUSH),
            config(BRUSH.replace("name=", 'model_score_threshold="0.6" name=')),
        )
    ]
    assert versions[0] == versions[1] != versions[2]
    (entry,) = predict(http, task("photo.png"), label_config=config(BRUSH))
    assert entry["model_version"] == versions[0]
    assert {versions[0], versions[2]} <= set(http.get("/versions").json()["versions"])
    assert http.post("/setup", json={}).json()["model_version"].startswith("box2mask-")
    assert http.post("/setup", json=setup | {"schema": "<View"}).status_code == 200  # it is told of with the tasks


def test_the_version_is_another_for_other_models(http: httpx.Client, settings: dict[str, str], tmp_path: Path) -> None:
    with (
        serving(tmp_path / "service.log", settings | {"BOX2MASK_DETECTOR": "none"}) as other,
        httpx.Client(base_url=f"{other.url}/label-studio", auth=("x", KEY), timeout=120) as client,
    ):
        schema = {"schema": config(BRUSH)}
        mine, its = (one.post("/setup", json=schema).json()["model_version"] for one in (http, client))
        assert mine != its
        # There is nobody to find anything: an empty prediction, which keeps Label Studio from asking again.
        (entry,) = predict(client, task("photo.png"), label_config=config(BRUSH))
        assert entry == {"result": [], "model_version": its}


def test_keys_come_as_a_password_and_webhooks_without(backend: Service) -> None:
    url = f"{backend.url}/label-studio"
    wrong = ("", KEY[:-1]), (KEY, ""), ("", "")
    for auth in wrong:
        assert httpx.get(f"{url}/health", auth=auth).status_code == 401
    assert httpx.get(f"{url}/health").status_code == httpx.post(f"{url}/predict", json={}).status_code == 401
    assert httpx.get(f"{url}/health", headers={"authorization": "Basic !"}).status_code == 401
    assert httpx.get(f"{url}/health", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert httpx.get(f"{backend.url}/version", auth=("", KEY)).status_code == 401  # nowhere else
    answer = httpx.post(f"{url}/webhook", json={"action": "START_TRAINING", "padding": "x" * 1_000_000})
    assert (answer.status_code, answer.json()) == (200, {})


def test_setup_and_health_answer_while_no_request_has_room(
    http: httpx.Client, backend: Service, studio: StubStudio
) -> None:
    """All places are taken by predictions whose photo does not come."""
    studio.release.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(predict, http, task("slow.png"), label_config=config(BRUSH)) for _ in range(2)]
        assert all(studio.waiting.acquire(timeout=60) for _ in waiting)  # both are inside
        refused = http.post("/predict", json={"tasks": [task("photo.png")], "label_config": config(BRUSH)})
        assert refused.status_code == 429
        assert http.get("/health").status_code == 200
        assert http.post("/setup", json={"schema": config(BRUSH)}).status_code == 200
        assert http.get("/versions").status_code == 200
        assert httpx.post(f"{backend.url}/label-studio/webhook", json={}).status_code == 200
        studio.release.set()
        assert [one.result() for one in waiting] == [[[]], [[]]]


def test_what_is_not_done_in_time_is_left_for_the_next_time(
    http: httpx.Client, backend: Service, studio: StubStudio
) -> None:
    studio.release.clear()
    entries = predict(http, task("photo.png"), task("slow.png"), label_config=config(BOXES))
    studio.release.set()
    assert entries[0]["result"] and entries[1] == []
    assert "1 of 2 tasks were not done in 10 s: ask again" in backend.log()
