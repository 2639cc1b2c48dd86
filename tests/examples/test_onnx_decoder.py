"""`box2mask export onnx` and examples/onnx_decoder.py: ONNX Runtime's masks beside those of a service."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.examples.fences import run

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from examples.onnx_decoder import Model, main  # noqa: E402

BOX, POINT = [246.0, 140.0, 326.0, 287.0], [280.0, 200.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command has written of the demo SAM."""
    place = tmp_path_factory.mktemp("onnx")
    done = run("box2mask export onnx --segmenter demo-sam", place, timeout_s=3600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and "demo-sam-onnx/decoder.onnx: " in done.stdout
    return place / "demo-sam-onnx"


def service_masks(url: str, photo: Path, **prompts: Any) -> list[list[tuple[np.ndarray, float, np.ndarray]]]:
    """By prompt the masks (H, W) bool with their scores and logits, as the service gives them."""
    row = {"image": base64.b64encode(photo.read_bytes()).decode(), "input_points": "", "input_boxes": ""}
    row |= {"input_labels": "", "multimask_output": False} | prompts
    body = {"input_data": {"columns": list(row), "data": [list(row.values())]}, "params": {"return_logits": True}}
    (answer,) = httpx.post(f"{url}/sam/score", json=body, timeout=600).raise_for_status().json()
    return [
        [
            (
                np.asarray(Image.open(BytesIO(base64.b64decode(one["encoded_binary_mask"])))) > 0,
                one["iou_score"],
                np.frombuffer(base64.b64decode(one["logits"]), np.float16).reshape(128, 128),
            )
            for one in prompt["mask_per_prediction"]
        ]
        for prompt in answer["predictions"]
    ]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("embedded_by", ["the service", "encoder.onnx"])
def test_the_example_writes_the_mask_of_the_service(
    folder: Path, service: Any, photo: Path, tmp_path: Path, embedded_by: str
) -> None:
    where = ["--url", service.url] if embedded_by == "the service" else []
    box = ["--box", *map(str, BOX)]
    assert main([str(photo), str(folder), *box, *where, "--out", str(tmp_path / "mask.png")]) == 0
    mask = np.asarray(Image.open(tmp_path / "mask.png")) > 0
    (((expected, _, _),),) = service_masks(service.url, photo, input_boxes=json.dumps([BOX]))
    assert expected.any() and iou(mask, expected) >= 0.99


def test_every_kind_of_prompt_gives_the_masks_of_the_service(folder: Path, service: Any, photo: Path) -> None:
    model = Model(folder)
    features = model.asked(service.url, photo.read_bytes())
    boxes, points = [BOX, [10.0, 20, 200, 300], [0.0, 0, 480, 360]], [[POINT], [[100.0, 200]], [[5.0, 5]]]
    ((_, _, earlier),) = service_masks(service.url, photo, input_boxes=json.dumps([BOX]))[0]
    mask = base64.b64encode(np.ascontiguousarray(earlier).tobytes()).decode()
    one_point = (np.array([[POINT]]), np.ones((1, 1)))
    asked: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
        ({"input_points": json.dumps([[POINT]]), "input_labels": "[[1]]"}, one_point),
        ({"input_boxes": json.dumps(boxes)}, (None, None, np.array(boxes))),
        (
            {"input_points": json.dumps(points), "input_boxes": json.dumps(boxes), "input_labels": "[[1], [1], [0]]"},
            (np.array(points), np.array([[1], [1], [0]]), np.array(boxes)),
        ),
        (
            {"input_points": json.dumps([[POINT]]), "input_labels": "[[1]]", "input_masks": [mask]},
            (*one_point, None, earlier[None]),
        ),
    ]
    for prompts, given in asked:
        for multimask in (False, True):
            expected = service_masks(service.url, photo, multimask_output=multimask, **prompts)
            masks, scores, _ = model.decode(features, (360, 480), *given, multimask=multimask)
            assert masks.shape[:2] == (len(expected), 3 if multimask else 1)
            for its_masks, its_scores, theirs in zip(masks, scores, expected, strict=True):
                for ours, score, (other, other_score, _) in zip(its_masks, its_scores, theirs, strict=True):
                    assert iou(ours, other) >= 0.99 and score == pytest.approx(other_score, abs=1e-3)


def test_a_service_with_another_model_is_told(
    folder: Path, service: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(folder)
    monkeypatch.setitem(model.about, "sha256", "0" * 64)
    with pytest.raises(SystemExit, match="has the segmenter sam, and .* is of demo-sam"):
        model.asked(service.url, photo.read_bytes())


def test_a_folder_with_something_in_it_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").write_text("mine")
    done = run("box2mask export onnx --segmenter demo-sam --out here", tmp_path)
    assert done.returncode == 1 and "expected a new or an empty folder" in done.stderr
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["notes.txt"]
    assert run("box2mask export onnx --segmenter none", tmp_path).returncode == 2
