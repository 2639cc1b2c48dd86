"""docker/cvat: its functions called as Nuclio calls them, with the requests of CVAT, and box2mask behind them."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

from models.demo.scenes import render_scene
from tests.app.conftest import Service, environment, serving

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "docker" / "cvat"
DEMO = REPOSITORY / "weights" / "demo"
KEY = "a-key-for-these-tests-alone"
MODELS = {
    "BOX2MASK_DEVICE": "cpu",
    "BOX2MASK_DETECTOR": str(DEMO / "yolof"),
    "BOX2MASK_SEGMENTER": str(DEMO / "sam"),
    "BOX2MASK_API_KEYS": KEY,
}
BOX, POINT, BESIDE = [[123, 70], [163, 143.5]], [140.5, 100.25], [75.0, 90.0]
HEADERS = {"Authorization": "Bearer " + KEY}
Call = Callable[..., dict[str, Any]]


def scene(seed: int = 4) -> np.ndarray:
    return render_scene(np.random.default_rng(seed), (180, 240), containers=(2, 2)).image


def file_of(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service") / "log", MODELS) as started:
        yield started


@pytest.fixture(scope="module")
def function(cvat_python: str) -> Iterator[Callable[..., Call]]:
    """A function with these settings, in a process of its own; then requests, each with the response to it."""
    with ExitStack() as processes:

        def start(**settings: str) -> Call:
            process = processes.enter_context(
                subprocess.Popen(
                    [cvat_python, str(Path(__file__).parent / "nuclio_process.py"), str(FOLDER)],
                    env=environment(settings),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert process.stdin and process.stdout
            processes.callback(process.stdin.close)

            def call(body: Any, function: str = "handler", content_type: str = "application/json") -> dict[str, Any]:
                text = body if isinstance(body, str) else json.dumps(body)
                line = json.dumps({"function": function, "content_type": content_type, "body": text})
                assert process.stdin and process.stdout
                process.stdin.write(line + "\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            return call

        yield start


@pytest.fixture(scope="module")
def interactor(function: Callable[..., Call], service: Service) -> Call:
    return function(SCORING_URL=service.url, SCORING_KEY=KEY)


def click(photo: bytes, pos: Any = (), neg: Any = (), box: Any = None) -> dict[str, Any]:
    """As CVAT's lambda_manager sends it."""
    return {"image": base64.b64encode(photo).decode(), "pos_points": pos, "neg_points": neg, "obj_bbox": box}


def asked(url: str, photo: bytes, route: str, row: dict[str, Any] | None = None, **params: Any) -> Any:
    whole = {"image": base64.b64encode(photo).decode(), **(row or {})}
    body = {
        "input_data": {"columns": list(whole), "data": [list(whole.values())]},
        "params": {"exif_orientation": True, **params},
    }
    return httpx.post(url + route, json=body, headers=HEADERS, timeout=100).raise_for_status().json()[0]


def pixels(mask: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(mask["encoded_binary_mask"])))) > 0


def expected_mask(service: Service, photo: bytes, points: Any, labels: Any, box: Any) -> np.ndarray:
    row = {"input_points": points, "input_boxes": box, "input_labels": labels, "multimask_output": False}
    answer = asked(service.url, photo, "/sam/score", row, coordinates="absolute")
    return pixels(answer["predictions"][0]["mask_per_prediction"][0])


def placed(rows: Any, bounds: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """The mask as CVAT's page reads it: rows of its bounds, whose right and bottom are in it."""
    left, top, right, bottom = bounds
    mask = np.zeros(shape, bool)
    mask[top : bottom + 1, left : right + 1] = np.array(rows, bool)
    return mask


def decoded(points: list[float], shape: tuple[int, ...]) -> np.ndarray:
    """A mask as CVAT stores it: runs row by row, of 0 first, and the bounds."""
    *runs, left, top, right, bottom = (int(value) for value in points)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return placed(flat.reshape(bottom + 1 - top, -1), [left, top, right, bottom], shape)


def test_points_and_a_box_give_the_mask_of_the_service(interactor: Call, service: Service) -> None:
    photo, box = file_of(scene(), "JPEG"), [BOX[0] + BOX[1]]
    cases = [
        (click(photo, pos=[POINT]), ([[POINT]], [[1]], "")),
        (click(photo, pos=[POINT], neg=[BESIDE], box=[]), ([[POINT, BESIDE]], [[1, 0]], "")),
        (click(photo, box=BOX), ("", "", box)),
        (click(photo, pos=[POINT], neg=[BESIDE], box=BOX), ([[POINT, BESIDE]], [[1, 0]], box)),
        (click(photo, pos=[[0.25, 0.5]]), ([[[0.25, 0.5]]], [[1]], "")),
        (click(photo, box=[[0, 0], [240, 180]]), ("", "", [[0, 0, 240, 180]])),
    ]
    for body, prompts in cases:
        response = interactor(body)
        assert (response["status_code"], response["content_type"]) == (200, "application/json")
        answer = json.loads(response["body"])
        expected = expected_mask(service, photo, *prompts)
        assert expected.any()
        mask = placed(answer["mask"], answer["bounds"], expected.shape)
        assert np.array_equal(mask, expected)
        ys, xs = np.nonzero(expected)
        assert answer["bounds"] == [xs.min(), ys.min(), xs.max(), ys.max()]
        (shape,) = answer["shapes"]
        assert shape["type"] == "mask" and np.array_equal(decoded(shape["points"], expected.shape), expected)


def test_where_there_is_nothing_to_show_the_mask_is_empty(interactor: Call) -> None:
    photo = file_of(scene())
    for body in (click(photo), click(photo, neg=[BESIDE])):
        answer = json.loads(interactor(body)["body"])
        assert answer == {"mask": [[0]], "bounds": [0, 0, 0, 0], "points": [], "shapes": []}


def test_a_frame_is_sent_once(interactor: Call, service: Service) -> None:
    photo = file_of(scene(seed=12))
    before = service.log().count("POST /images")
    for _ in range(3):
        assert interactor(click(photo, box=BOX))["status_code"] == 200
    assert service.log().count("POST /images") - before == 1


def test_a_photo_on_its_side_is_answered_as_it_is_shown(interactor: Call, service: Service) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, lying = file_of(scene()), file_of(np.rot90(scene()), exif=exif)
    with Image.open(io.BytesIO(lying)) as opened:
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(opened)), scene())
    assert interactor(click(lying, box=BOX))["body"] == interactor(click(upright, box=BOX))["body"]


def test_the_detector_gives_shapes_that_cvat_stores_as_the_services(
    function: Callable[..., Call], service: Service
) -> None:
    detector = function(SCORING_URL=service.url, SCORING_KEY=KEY)
    boxes = function(SCORING_URL=service.url, SCORING_KEY=KEY, SHAPES="boxes", SCORE_THRESHOLD="0.1")
    for seed in (4, 5, 6):
        photo = file_of(scene(seed))
        image = {"image": base64.b64encode(photo).decode()}
        expected = asked(service.url, photo, "/pipeline/score", score_threshold=0.1)["boxes"]
        response = detector({**image, "threshold": 0.1}, function="detect")
        found = json.loads(response["body"])
        assert expected and [one["label"] for one in found] == [one["label"] for one in expected]
        assert [float(one["confidence"]) for one in found] == [one["score"] for one in expected]
        for one, polygon, box in zip(
            response["shapes"]["as they are"], response["shapes"]["polygons"], expected, strict=True
        ):
            mask = pixels(box["mask_per_prediction"][0])
            assert one["type"] == "mask" and np.array_equal(decoded(one["points"], mask.shape), mask)
            assert polygon["type"] == "polygon" and len(polygon["points"]) >= 6
            assert not {*polygon["points"]} & {value for value in polygon["points"] if not 0 <= value <= 240}
        usual = json.loads(detector(image, function="detect")["body"])
        assert len(usual) == sum(one["score"] >= 0.3 for one in expected)
        rectangles = json.loads(boxes(image, function="detect")["body"])
        assert [one["type"] for one in rectangles] == ["rectangle"] * len(expected)
        for one, other in zip(rectangles, expected, strict=True):
            corners = [other["box"][side] for side in ("topX", "topY", "bottomX", "bottomY")]
            assert one["points"] == pytest.approx(np.multiply(corners, (240, 180, 240, 180)), abs=0.005)
    nothing = {"image": base64.b64encode(file_of(np.zeros((50, 50, 3), np.uint8))).decode(), "threshold": 1}
    assert json.loads(detector(nothing, function="detect")["body"]) == []


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"image": None}, 400, "image: expected the base64 of an image file"),
        ({"image": "abc"}, 400, "image: expected the base64 of an image file .*padding"),
        ({"image": base64.b64encode(b"no image").decode()}, 400, "answered 400: row 0, image: "),
        ({"pos_points": [[1]]}, 400, r"pos_points: expected \[\[x, y\], ...\], got \[\[1\]\]"),
        ({"neg_points": "x"}, 400, "neg_points: expected"),
        ({"obj_bbox": [[1, 2]]}, 400, "obj_bbox: expected two corners, got 1"),
        ({"obj_bbox": [[9, 9], [3, 3]]}, 400, "answered 400: row 0, input_boxes"),
    ],
)
def test_a_bad_request_is_named_and_the_next_one_works(
    interactor: Call, change: dict[str, Any], status: int, said: str
) -> None:
    good = click(file_of(scene()), box=BOX)
    response = interactor({**good, **change})
    assert response["status_code"] == status
    with pytest.raises(ValueError, match=said):
        raise ValueError(json.loads(response["body"])["message"])
    assert interactor(good)["status_code"] == 200


def test_any_content_type_is_read_and_what_is_no_json_is_told(interactor: Call) -> None:
    good = click(file_of(scene()), box=BOX)
    assert interactor(good, content_type="text/plain")["body"] == interactor(good)["body"]
    response = interactor("{", content_type="text/plain")
    assert response["status_code"] == 400 and "expected JSON" in response["body"]


def test_a_wrong_key_and_wrong_settings_are_told(
    function: Callable[..., Call], service: Service, cvat_python: str
) -> None:
    keyless = function(SCORING_URL=service.url)
    response = keyless(click(file_of(scene()), box=BOX))
    assert response["status_code"] == 502 and "answered 401" in response["body"]
    for settings, said in (
        ({}, "SCORING_URL: expected the address of box2mask"),
        ({"SCORING_URL": service.url, "SHAPES": "circles"}, "SHAPES: expected masks or boxes, got 'circles'"),
    ):
        done = subprocess.run(
            [cvat_python, str(Path(__file__).parent / "nuclio_process.py"), str(FOLDER)],
            env=environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and said in done.stderr


def test_the_yaml_files_say_what_cvat_asks_of_them() -> None:
    for name, kind in (("function.yaml", "interactor"), ("detector.yaml", "detector")):
        content = yaml.safe_load((FOLDER / name).read_text())
        notes = content["metadata"]["annotations"]
        assert notes["type"] == kind and all(isinstance(value, str) for value in notes.values())
        module, function = content["spec"]["handler"].split(":")
        assert re.search(rf"^def {function}\(context", (FOLDER / f"{module}.py").read_text(), re.MULTILINE)
        env = {one["name"]: one["value"] for one in content["spec"]["env"]}
        assert re.match("https?://", env["SCORING_URL"])
        # CVAT has the page of segment-anything decode in the browser for functions of these names.
        assert not content["metadata"]["name"].startswith("pth-")
        labels = json.loads(notes["spec"] or "[]")
        if kind == "interactor":
            assert labels == [] and int(notes["version"]) >= 2
            assert (int(notes["min_pos_points"]), int(notes["min_neg_points"])) == (0, 0)
        else:
            assert {one["type"] for one in labels} == {"mask"}
            assert [one["id"] for one in labels] == list(range(len(labels)))


def test_the_function_needs_nothing_but_python() -> None:
    """Its image has the standard library alone."""
    tree = ast.parse((FOLDER / "main.py").read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert names <= sys.stdlib_module_names
