"""examples/cvat_function.py in cvat-cli itself, with a stand-in for CVAT's server and box2mask as it is."""

from __future__ import annotations

import base64
import io
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from models.demo.scenes import render_scene
from tests.app.conftest import environment, serving
from tests.examples.conftest import CLOSE, DEMO_WEIGHTS, scripted
from tests.examples.cvat_server import FUNCTION, TASK, Cvat, cvat_server

FILE = Path(__file__).parents[2] / "examples" / "cvat_function.py"
CLASSES = ("can", "carton", "milk_bottle", "water_bottle")
ANY = dict.fromkeys(CLASSES, "any")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def picture(seed: int, form: str = "JPEG", size_hw: tuple[int, int] = (180, 240), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(render_scene(np.random.default_rng(seed), size_hw, containers=(2, 2)).image).save(
        file, form, **options
    )
    return file.getvalue()


PHOTOS = {"shelf/a.jpg": picture(3), "b.png": picture(4, "PNG"), "c.jpg": picture(5)}


def upright(photo: bytes) -> np.ndarray:
    """(H, W, 3), as CVAT shows it."""
    with Image.open(io.BytesIO(photo)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def asked(url: str, photo: bytes, route: str, row: Mapping[str, Any] | None = None, **params: Any) -> Any:
    """What the service itself says of the pixels of a photo."""
    file = io.BytesIO()
    Image.fromarray(upright(photo)).save(file, "PNG")
    whole = {"image": base64.b64encode(file.getvalue()).decode(), **(row or {})}
    body = {"input_data": {"columns": list(whole), "data": [list(whole.values())]}, "params": params}
    return httpx.post(url + route, json=body, timeout=100).raise_for_status().json()[0]


def pixels(mask: Mapping[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(mask["encoded_binary_mask"])))) > 0


def decoded(points: list[float], size_hw: tuple[int, int]) -> np.ndarray:
    """A mask of CVAT's: runs row by row, of 0 first, then left, top, right and bottom, which are in it."""
    *runs, left, top, right, bottom = (int(value) for value in points)
    mask = np.zeros(size_hw, bool)
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : bottom + 1, left : right + 1] = flat.reshape(bottom + 1 - top, right + 1 - left)
    return mask


@pytest.fixture
def cvat_cli(cvat_python: str, tmp_path: Path) -> Run:
    """Run cvat-cli's command with the example and its parameters, as strings of cvat-cli's own form."""

    def run(
        cvat: Cvat, *command: str, parameters: Mapping[str, str], settings: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = [part for name, value in parameters.items() for part in ("-p", f"{name}={value}")]
        folders = {name: str(tmp_path / name) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        return subprocess.run(
            [cvat_python, "-m", "cvat_cli", "--server-host", cvat.url, *command, "--function-file", str(FILE), *given],
            env=environment({**folders, "CVAT_ACCESS_TOKEN": "token", **(settings or {})}),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def annotate(cvat_cli: Run, service: Any) -> Callable[..., Cvat]:
    """Annotate the task; gives what the server then has. An error is one of the test."""

    def run(
        *options: str, photos: Mapping[str, bytes] = PHOTOS, labels: Mapping[str, str] = ANY, **parameters: str
    ) -> Cvat:
        with cvat_server(photos, labels) as cvat:
            done = cvat_cli(
                cvat,
                *("task", "auto-annotate", str(TASK)),
                *options,
                parameters={"url": f"str:{service.url}", **parameters},
            )
            assert done.returncode == 0, done.stderr
            return cvat

    return run


@pytest.fixture
def refused(cvat_cli: Run) -> Callable[..., str]:
    """What the command says that must fail, and upload nothing."""

    def run(*options: str, labels: Mapping[str, str] = ANY, photos: Mapping[str, bytes] = PHOTOS, **params: str) -> str:
        with cvat_server(photos, labels) as cvat:
            done = cvat_cli(cvat, "task", "auto-annotate", str(TASK), *options, parameters=params)
            assert done.returncode == 1 and cvat.uploaded == []
            return done.stderr.strip().splitlines()[-1]

    return run


def test_every_photo_of_a_task_gets_the_masks_of_the_service(annotate: Callable[..., Cvat], service: Any) -> None:
    cvat = annotate()
    (upload,) = cvat.uploaded
    assert upload["how"] == "create" and upload["tags"] == []
    for number, photo in enumerate(PHOTOS.values()):
        found = [shape for shape in upload["shapes"] if shape["frame"] == number]
        expected = asked(service.url, photo, "/pipeline/score")["boxes"]
        assert found and [cvat.label_of(shape) for shape in found] == [one["label"] for one in expected]
        for shape, one in zip(found, expected, strict=True):
            assert (shape["type"], shape["source"]) == ("mask", "auto")
            assert np.array_equal(decoded(shape["points"], (180, 240)), pixels(one["mask_per_prediction"][0]))


def test_boxes_and_a_threshold(annotate: Callable[..., Cvat], service: Any) -> None:
    labels = {"water_bottle": "rectangle", **dict.fromkeys(CLASSES, "rectangle")}  # in another order
    cvat = annotate("--conf-threshold", "0.05", "--clear-existing", labels=labels, shapes="str:boxes")
    (upload,) = cvat.uploaded
    assert upload["how"] == "replace"
    expected = [
        (number, one["label"], [one["box"][side] for side in ("topX", "topY", "bottomX", "bottomY")])
        for number, photo in enumerate(PHOTOS.values())
        for one in asked(service.url, photo, "/yolof/score", score_threshold=0.05)["boxes"]
    ]
    assert len(expected) > 10
    assert [(shape["frame"], cvat.label_of(shape)) for shape in upload["shapes"]] == [one[:2] for one in expected]
    assert {shape["type"] for shape in upload["shapes"]} == {"rectangle"}
    for shape, (_, _, box) in zip(upload["shapes"], expected, strict=True):
        assert shape["points"] == pytest.approx(np.multiply(box, (240, 180, 240, 180)).tolist())
    fewer = annotate("--conf-threshold", "0.6", shapes="str:boxes", score="float:0.05").uploaded[0]["shapes"]
    alone = annotate(shapes="str:boxes", score="float:0.6").uploaded[0]["shapes"]
    assert 0 < len(fewer) < len(upload["shapes"]) and alone == fewer


def test_masks_become_polygons_where_cvat_wants_polygons(annotate: Callable[..., Cvat], service: Any) -> None:
    labels = dict.fromkeys(CLASSES, "polygon")
    cvat = annotate("--conv-mask-to-poly", labels=labels, polygon_tolerance="float:0", score="float:0.1")
    shapes = cvat.uploaded[0]["shapes"]
    assert {shape["type"] for shape in shapes} == {"polygon"}
    for number, photo in enumerate(PHOTOS.values()):
        expected = asked(service.url, photo, "/pipeline/score", score_threshold=0.1)["boxes"]
        here = iter([shape for shape in shapes if shape["frame"] == number])
        groups = []
        for one in expected:
            mask = pixels(one["mask_per_prediction"][0])
            filled, group = np.zeros_like(mask), None
            while not np.array_equal(filled, mask):  # one polygon for each part
                shape = next(here)
                assert cvat.label_of(shape) == one["label"]
                assert group in (None, shape.get("group", 0))
                group = shape.get("group", 0)
                filled |= inside(shape["points"], mask.shape)
            groups.append(group)
        assert list(here) == []
        several = [group for group in groups if group]
        assert len(set(several)) == len(several)
    assert any(shape.get("group") for shape in shapes)
    few = annotate(shapes="str:polygons", polygon_tolerance="float:3", score="float:0.1").uploaded[0]["shapes"]
    assert len(few) == len(shapes)
    assert sum(len(shape["points"]) for shape in few) < 0.3 * sum(len(shape["points"]) for shape in shapes)


def inside(points: list[float], shape: tuple[int, ...]) -> np.ndarray:
    """The pixels whose centres are in a polygon along the edges of pixels, by the rule of even and odd."""
    corners = np.rint(np.reshape(points, (-1, 2))).astype(int)
    assert np.abs(corners - np.reshape(points, (-1, 2))).max() < 0.01
    flips = np.zeros((shape[0], shape[1] + 1), int)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if x1 == x2:
            flips[min(y1, y2) : max(y1, y2), x1] += 1
    return np.cumsum(flips, 1)[:, :-1] % 2 == 1


def test_labels_that_the_task_lacks(annotate: Callable[..., Cvat], refused: Callable[..., str], service: Any) -> None:
    some = {"carton": "mask"}
    assert "label 'can' is not in dataset" in refused(labels=some, url=f"str:{service.url}")
    shapes = annotate("--allow-unmatched-labels", labels=some).uploaded[0]["shapes"]
    assert shapes and {shape["label_id"] for shape in shapes} == {101}
    wrong = refused(labels=dict.fromkeys(CLASSES, "rectangle"), url=f"str:{service.url}")
    assert "label 'can' has type 'mask' in the function, but 'rectangle' in the dataset" in wrong


def test_a_photo_on_its_side_gets_masks_as_it_is_shown(annotate: Callable[..., Cvat], service: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.fromarray(np.rot90(upright(PHOTOS["b.png"])))
    file = io.BytesIO()
    lying.save(file, "PNG", exif=exif)
    photos = {"b.png": PHOTOS["b.png"], "lying.png": file.getvalue()}
    assert np.array_equal(upright(photos["lying.png"]), upright(photos["b.png"]))
    shapes = annotate(photos=photos).uploaded[0]["shapes"]
    by_frame = [[shape["points"] for shape in shapes if shape["frame"] == frame] for frame in (0, 1)]
    assert by_frame[0] and by_frame[0] == by_frame[1]


def test_further_params_of_the_service(annotate: Callable[..., Cvat], service: Any) -> None:
    params = {"min_region_area": 60, "fill_holes": True, "class_agnostic_nms": True}
    shapes = annotate(params='str:{"min_region_area": 60, "fill_holes": true, "class_agnostic_nms": true}').uploaded[0]
    expected = [
        pixels(one["mask_per_prediction"][0])
        for photo in PHOTOS.values()
        for one in asked(service.url, photo, "/pipeline/score", **params)["boxes"]
    ]
    masks = [decoded(shape["points"], (180, 240)) for shape in shapes["shapes"]]
    assert np.array_equal(masks, expected)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"shapes": "str:circles"}, "parameter shapes: expected masks, boxes or polygons, got 'circles'"),
        ({"kind": "str:tracker"}, "parameter kind: expected detector or interactor, got 'tracker'"),
        ({"score": "float:30"}, "parameter score: expected 0 to 1, got 30.0"),
        ({"url": "str:localhost:5001"}, "parameter url: expected http://HOST:PORT, got 'localhost:5001'"),
        ({"params": "str:tiles"}, "parameter params: expected JSON, got 'tiles'"),
        ({"params": "str:7"}, "parameter params: expected an object in JSON, got '7'"),
        ({"url": "str:http://127.0.0.1:1"}, "no answer from box2mask at http://127.0.0.1:1: "),
        (
            {"texts": "str:can,cup"},
            "shelf/a.jpg: box2mask at .* answered 400: params.texts: this detector finds its own",
        ),
        ({"params": 'str:{"tiles": 3}'}, "shelf/a.jpg: box2mask at .* answered 400: params.tiles: expected"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_uploaded(
    refused: Callable[..., str], service: Any, parameters: dict[str, str], said: str
) -> None:
    options = ["--allow-unmatched-labels"] if "texts" in parameters else []
    last = refused(*options, **{"url": f"str:{service.url}", **parameters})
    assert "BadFunctionError: " in last
    with pytest.raises(ValueError, match=said):
        raise ValueError(last)


def float_photo() -> bytes:
    """Values that no rule reads: the service refuses such a file."""
    file = io.BytesIO()
    Image.fromarray(np.full((90, 120), -1, np.float32)).save(file, "TIFF")
    return file.getvalue()


def test_a_photo_that_the_service_refuses_ends_the_run_or_is_left_out(
    refused: Callable[..., str], annotate: Callable[..., Cvat], service: Any
) -> None:
    photos = {"a.png": PHOTOS["b.png"], "dark.tif": float_photo(), "c.jpg": PHOTOS["c.jpg"]}
    last = refused(photos=photos, url=f"str:{service.url}")
    assert "dark.tif: box2mask at http" in last and "answered 400: row 0, image: " in last
    shapes = annotate(photos=photos, skip_bad="bool:true").uploaded[0]["shapes"]
    assert {shape["frame"] for shape in shapes} == {0, 2}


def test_a_photo_of_16_bits_is_sent_as_it_is(annotate: Callable[..., Cvat], service: Any) -> None:
    grey = np.asarray(Image.fromarray(upright(PHOTOS["b.png"])).convert("L")).astype(np.uint16) * 257
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    shapes = annotate(photos={"deep.png": file.getvalue()}, score="float:0.1").uploaded[0]["shapes"]
    row = {"image": base64.b64encode(file.getvalue()).decode()}
    expected = asked(service.url, PHOTOS["b.png"], "/pipeline/score", row, score_threshold=0.1)["boxes"]
    assert expected and len(shapes) == len(expected)
    for shape, one in zip(shapes, expected, strict=True):
        assert np.array_equal(decoded(shape["points"], (180, 240)), pixels(one["mask_per_prediction"][0]))


def test_a_busy_service_is_asked_again_with_the_key(cvat_cli: Run) -> None:
    box = {"topX": 0.25, "topY": 0.5, "bottomX": 0.5, "bottomY": 1.0}
    found = (200, {}, [{"boxes": [{"box": box, "label": "can", "score": 0.9}]}])
    busy = (429, {"Retry-After": "0"}, {"message": "64 requests are here already"})
    for key, given in (({"key": "str:secret"}, {}), ({}, {"SCORING_KEY": "secret"})):
        with scripted(busy, CLOSE, found) as server, cvat_server({"a.jpg": PHOTOS["c.jpg"]}, {"can": "any"}) as cvat:
            server.described = {"detector": {"classes": ["can"], "has_masks": False}, "segmenter": None}
            parameters = {"url": f"str:{server.url}", "shapes": "str:boxes", **key}
            done = cvat_cli(cvat, "task", "auto-annotate", str(TASK), parameters=parameters, settings=given)
        assert done.returncode == 0, done.stderr
        assert [shape["points"] for shape in cvat.uploaded[0]["shapes"]] == [[60.0, 90.0, 120.0, 180.0]]
        assert [headers["Authorization"] for _, headers, _ in server.came] == ["Bearer secret"] * 3


@pytest.mark.parametrize(
    ("described", "parameters", "said"),
    [
        ({"detector": None, "segmenter": {}}, {}, "serves no detector, only clicks: -p kind=str:interactor"),
        (
            {"detector": {"classes": ["can"], "has_masks": False}, "segmenter": None},
            {},
            "serves a detector of boxes alone: -p shapes=str:boxes",
        ),
        ({"detector": {"classes": [], "has_masks": True}}, {}, "finds what texts name: -p texts="),
        ({"detector": {}, "segmenter": None}, {"kind": "str:interactor"}, "serves no segmenter"),
    ],
)
def test_a_service_without_the_model_is_told_at_the_start(
    refused: Callable[..., str], described: Any, parameters: dict[str, str], said: str
) -> None:
    with scripted() as server:
        server.described = described
        assert said in refused(url=f"str:{server.url}", **parameters)


# Clicks, by cvat-cli's agent


BOX, POINT, BESIDE = [[123, 70], [163, 143.5]], [140.5, 100.25], [75.0, 90.0]


def click(frame: int, pos: Any = (), neg: Any = (), box: Any = (), number: int = 0) -> dict[str, Any]:
    """A request of CVAT's, as its agents get it."""
    params = {"type": "interact", "task": TASK, "frame": frame, "pos_points": pos, "neg_points": neg, "obj_bbox": box}
    return {"ar_id": f"request {number}", "ar_params": params}


@pytest.fixture
def clicked(cvat_cli: Run, service: Any) -> Callable[..., Cvat]:
    """Have an agent do what is asked, one after the other; gives the server with what came of it."""

    def run(*requests: dict[str, Any], url: str = "", photos: Mapping[str, bytes] = PHOTOS) -> Cvat:
        for number, request in enumerate(requests):
            request["ar_id"] = str(number)
        given = {"url": f"str:{url or service.url}", "kind": "str:interactor"}
        with cvat_server(photos, ANY, {"interactive": list(requests)}) as cvat:
            made = cvat_cli(cvat, "function", "create-native", "box2mask", parameters=given)
            assert made.returncode == 0 and made.stdout.strip() == str(FUNCTION), made.stderr
            done = cvat_cli(cvat, "function", "run-agent", str(FUNCTION), "--burst", parameters=given)
            assert done.returncode == 0, done.stderr
            return cvat

    return run


def expected_mask(url: str, photo: bytes, points: Any, labels: Any, box: Any) -> np.ndarray:
    row = {"input_points": points, "input_boxes": box, "input_labels": labels, "multimask_output": False}
    answer = asked(url, photo, "/sam/score", row, coordinates="absolute")
    return pixels(answer["predictions"][0]["mask_per_prediction"][0])


def images_kept(url: str) -> float:
    """How many images were sent to the service once and for all, until now."""
    text = httpx.get(f"{url}/metrics").text
    counted = re.findall(r'^box2mask_requests_total\{.*route="/images".*\} (\S+)$', text, re.MULTILINE)
    assert counted or "box2mask_requests_total" in text
    return sum(map(float, counted))


def test_an_agent_answers_clicks_with_masks_and_sends_each_frame_once(
    clicked: Callable[..., Cvat], service: Any
) -> None:
    before = images_kept(service.url)
    cvat = clicked(
        click(1, pos=[POINT]),
        click(1, pos=[POINT], neg=[BESIDE]),
        click(1, box=BOX),
        click(1, pos=[POINT], neg=[BESIDE], box=BOX),
        click(2, box=BOX),
        click(1, neg=[BESIDE]),
        click(1),
        click(1, pos=[[0.25, 0.5]]),
    )
    assert cvat.functions == [
        {
            "provider": "native",
            "name": "box2mask",
            "visibility": "private",
            "kind": "interactor",
            "min_pos_points": 0,
            "min_neg_points": 0,
            "startswith_box_optional": True,
        }
    ]
    assert cvat.failures == {}
    photo, other = PHOTOS["b.png"], PHOTOS["c.jpg"]
    box = [BOX[0] + BOX[1]]
    wanted = [
        expected_mask(service.url, photo, [[POINT]], [[1]], ""),
        expected_mask(service.url, photo, [[POINT, BESIDE]], [[1, 0]], ""),
        expected_mask(service.url, photo, "", "", box),
        expected_mask(service.url, photo, [[POINT, BESIDE]], [[1, 0]], box),
        expected_mask(service.url, other, "", "", box),
        None,
        None,
        expected_mask(service.url, photo, [[[0.25, 0.5]]], [[1]], ""),
    ]
    assert list(cvat.results) == [str(number) for number in range(len(wanted))]
    for result, mask in zip(cvat.results.values(), wanted, strict=True):
        if mask is None:
            assert result == {"shapes": []}
        else:
            (shape,) = result["shapes"]
            assert mask.any() and shape["type"] == "mask"
            assert np.array_equal(decoded(shape["points"], mask.shape), mask)
    assert cvat.frames_fetched == [1, 2]
    assert images_kept(service.url) - before == 2


def test_a_frame_that_the_service_has_lost_or_never_kept_is_sent_again(
    clicked: Callable[..., Cvat], tmp_path: Path
) -> None:
    """The store has room for one frame of the first two, and none for the third."""
    photos = {"a.png": PHOTOS["b.png"], "b.jpg": PHOTOS["c.jpg"], "large.jpg": picture(6, size_hw=(360, 480))}
    sizes = []
    for photo in photos.values():
        file = io.BytesIO()
        Image.fromarray(upright(photo)).save(file, "PNG", compress_level=1)
        sizes.append(len(file.getvalue()))
    room = max(sizes[:2]) + 1000
    assert sizes[0] + sizes[1] > room < sizes[2]
    models = {"BOX2MASK_DEVICE": "cpu", "BOX2MASK_DETECTOR": "none", "BOX2MASK_SEGMENTER": str(DEMO_WEIGHTS / "sam")}
    settings = models | {"BOX2MASK_IMAGE_STORE_MB": str(room / 2**20)}
    box = [BOX[0] + BOX[1]]
    with serving(tmp_path / "log", settings) as small:
        frames = (0, 1, 0, 2, 2)
        cvat = clicked(*(click(frame, box=BOX) for frame in frames), url=small.url, photos=photos)
        assert cvat.failures == {} and cvat.frames_fetched == [0, 1, 2]
        for frame, result in zip(frames, cvat.results.values(), strict=True):
            expected = expected_mask(small.url, list(photos.values())[frame], "", "", box)
            assert np.array_equal(decoded(result["shapes"][0]["points"], expected.shape), expected)
        assert small.log().count(" 410 ") == 1


def test_what_goes_wrong_reaches_whoever_clicked_and_the_next_click_works(clicked: Callable[..., Cvat]) -> None:
    photos = {"dark.tif": float_photo(), "b.png": PHOTOS["b.png"]}
    cvat = clicked(click(0, pos=[POINT]), click(1, pos=[POINT]), photos=photos)
    assert cvat.failures.keys() == {"0"} and cvat.results.keys() == {"1"}
    said = cvat.failures["0"]
    assert said.startswith("Underlying function returned incorrect result: box2mask at http")
    assert "answered 400: row 0, image: " in said
