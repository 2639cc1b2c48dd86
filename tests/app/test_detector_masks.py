"""A detector's own masks: on its route, in the pipeline beside the segmenter's, in `box2mask run` and `evaluate`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas
import pytest
from fastapi import FastAPI
from pycocotools import mask as coco_mask

from app.cli import main
from app.engine.loading import choose
from app.mlflow.export import export_mlflow
from app.prediction import PredictorError
from app.predictor import LocalPredictor
from app.settings import Settings
from models.detector.mmdetection import MMDetector
from models.detector.tiles import merged
from models.rle import decode_rle
from models.tiles import Part, Tiling
from tests.app.scoring_requests import OTHER, PICTURE, converse, filled, mask_of, picture, to_yolof
from tests.models.detector.test_zoo import TWO_STAGES, folder_of

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's own


@pytest.fixture(scope="module")
def mask_rcnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mask_rcnn")
    return folder_of(folder, "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", TWO_STAGES)


@pytest.fixture
def settings(mask_rcnn: Path, model_folders: Any) -> Callable[..., Settings]:
    def make(segmenter: str | None = None, detector: str | None = None) -> Settings:
        return Settings(
            detector=detector or str(mask_rcnn),
            segmenter=segmenter or str(model_folders.segmenter),
            device="cpu",
            dtype="float32",
        )

    return make


def test_masks_of_tiles_are_in_the_photo(settings: Callable[..., Settings], mask_rcnn: Path) -> None:
    image, detector = np.asarray(picture(128, 64)), MMDetector.load(mask_rcnn)
    parts = [Part((0, 0, 128, 64)), *Tiling(64, 0.5).tiles((64, 128))]
    wanted = merged([(part, detector.detect([part.of(image)])[0]) for part in parts], (64, 128), max_detections=5)
    assert wanted.masks is not None and len(wanted.masks) == 5

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        asked = to_yolof(PICTURE, max_detections=5, mask_format="rle", tiles=64, tile_overlap=0.5)
        answer = await client.post("/yolof/score", json=asked)
        assert answer.status_code == 200, answer.text
        for found, score, mask in zip(answer.json()[0]["boxes"], wanted.scores, wanted.masks or (), strict=True):
            [one] = found["mask_per_prediction"]
            assert found["score"] == pytest.approx(score, abs=1e-5)
            assert np.mean(coco_mask.decode(one["rle"]) != decode_rle(mask)) <= 0.001

    converse(settings(segmenter="none"), conversation)


def test_every_form_says_the_detectors_masks(settings: Callable[..., Settings], mask_rcnn: Path) -> None:
    [wanted] = MMDetector.load(mask_rcnn).detect([np.asarray(picture(128, 64))], max_detections=5)
    assert wanted.masks is not None
    masks = [decode_rle(rle) for rle in wanted.masks]
    assert len(masks) == 5 and 0 < np.mean(masks) < 1

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        assert (await client.get("/version")).json()["detector"]["has_masks"] is True

        async def boxes(route: str, **params: Any) -> list[dict[str, Any]]:
            answer = await client.post(route, json=to_yolof(PICTURE, OTHER, max_detections=5, **params))
            assert answer.status_code == 200, answer.text
            first, second = answer.json()
            assert len(first["boxes"]) == len(second["boxes"]) == 5
            return first["boxes"]

        for found, mask in zip(await boxes("/yolof/score"), masks, strict=True):  # Azure's form
            assert list(found) == ["box", "label", "score", "polygon"]
            assert (filled(found["polygon"], (64, 128)) == mask).all()
        for route, more in (("/yolof/score", {}), ("/pipeline/score", {"masks": "detector", "score_threshold": 0.0})):
            for found, mask in zip(await boxes(route, mask_format="png", **more), masks, strict=True):
                [one] = found["mask_per_prediction"]
                assert list(one) == ["encoded_binary_mask"] and (mask_of(one) == mask).all()
            for found, mask in zip(await boxes(route, mask_format="rle", **more), masks, strict=True):
                [one] = found["mask_per_prediction"]
                assert (coco_mask.decode(one["rle"]) == mask).all()
        for found in await boxes("/yolof/score", masks="none"):
            assert list(found) == ["box", "label", "score"]
        for more in ({}, {"masks": "segmenter"}):
            for found in await boxes("/pipeline/score", score_threshold=0.0, **more):
                assert "iou_score" in found["mask_per_prediction"][0]

    converse(settings(), conversation)


def test_without_a_segmenter_the_pipelines_masks_are_the_detectors(settings: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        asked = to_yolof(PICTURE, score_threshold=0.0, max_detections=2)
        for route, key in (("/pipeline/score", "mask_per_prediction"), ("/score", "polygon")):
            (row,) = (await client.post(route, json=asked)).json()
            assert len(row["boxes"]) == 2 and all(key in box for box in row["boxes"])
        refused = await client.post("/pipeline/score", json=to_yolof(PICTURE, masks="segmenter"))
        assert refused.status_code == 404 and "has no segmenter" in refused.json()["message"]

    converse(settings(segmenter="none"), conversation)


@pytest.mark.parametrize(
    ("route", "masks", "reason"),
    [
        ("/yolof/score", "detector", 'expected "segmenter", got "detector": this detector finds boxes alone'),
        ("/pipeline/score", "detector", 'expected "segmenter", got "detector": this detector finds boxes alone'),
        ("/yolof/score", "segmenter", 'expected "detector" or "none" on this route, got "segmenter"'),
        ("/pipeline/score", "none", 'expected "detector" or "segmenter" here, got "none": /yolof/score finds boxes'),
        ("/pipeline/score", "sam", 'expected "detector" or "segmenter" or "none", got "sam"'),
    ],
)
def test_masks_that_cannot_be_had_are_refused(
    answer: Any, http: httpx.Client, route: str, masks: str, reason: str
) -> None:
    refused = http.post(route, json=to_yolof(PICTURE, masks=masks))
    assert refused.status_code == 400 and refused.json()["message"].startswith(f"params.masks: {reason}")
    assert answer(to_yolof(PICTURE), route)[0]["boxes"] is not None


def test_the_masks_of_one_request_have_a_limit(settings: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        refused = await client.post("/yolof/score", json=to_yolof(PICTURE))
        assert refused.status_code == 400 and "pixels in all masks of a request" in refused.json()["message"]
        assert (await client.post("/yolof/score", json=to_yolof(PICTURE, masks="none"))).status_code == 200

    converse(settings().model_copy(update={"max_mask_pixels": 128 * 64}), conversation)


def test_commands_take_the_detectors_masks(
    mask_rcnn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model_folders: Any
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.png").write_bytes(base64.b64decode(PICTURE))
    out = tmp_path / "out"
    models = ["--detector", str(mask_rcnn), "--device", "cpu"]
    run = ["run", str(photos), *models, "--masks", "detector", "--score-threshold", "0.01"]
    assert main([*run, "--out", str(out), "--formats", "coco,masks"]) == 0
    coco = json.loads((out / "coco.json").read_text())
    assert len(coco["annotations"]) == len(list((out / "masks" / "one.png").glob("*.png"))) > 3
    assert all(one["segmentation"]["size"] == [64, 128] and "iou_score" not in one for one in coco["annotations"])

    data = tmp_path / "data.json"  # its own masks are the truth
    coco["images"][0]["file_name"] = "photos/one.png"
    data.write_text(json.dumps(coco | {"annotations": coco["annotations"][:3]}))
    capsys.readouterr()
    evaluate = ["evaluate", str(data), *models, "--out", str(tmp_path / "evaluation"), "--score-threshold", "0.01"]
    assert main([*evaluate, "--masks", "detector"]) == 0
    (masks,) = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["masks"]
    assert (masks["prompts"], masks["segmenter"], masks["matched"]) == ("detected", mask_rcnn.name, 3)
    assert masks["average_iou"] > 0.999 > masks["filled_box"]["average_iou"]
    assert main([*evaluate, "--masks", "detector,segmenter", "--segmenter", str(model_folders.segmenter)]) == 0
    names = [one["segmenter"] for one in json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["masks"]]
    assert names == [mask_rcnn.name, "segmenter", "segmenter"]


def test_a_detector_of_boxes_has_none_to_take(
    model_folders: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.png").write_bytes(base64.b64decode(PICTURE))
    models = ["--detector", str(model_folders.detector), "--device", "cpu"]
    assert main(["run", str(tmp_path / "one.png"), *models, "--masks", "detector", "--out", str(tmp_path / "out")]) == 1
    assert "--masks detector: the detector detector finds boxes alone, and no masks" in capsys.readouterr().err
    with (
        LocalPredictor(Settings(detector=str(model_folders.detector), segmenter="none", device="cpu")) as predictor,
        pytest.raises(PredictorError, match="finds boxes alone"),
    ):
        predictor.detect(base64.b64decode(PICTURE), masks=True)


def test_an_exported_folder_answers_with_them(
    mask_rcnn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Callable[..., Settings]
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow")
    chosen = settings(segmenter="none")
    export_mlflow(choose(chosen), tmp_path / "export", chosen)
    params = {one.name for one in mlflow.models.get_model_info(str(tmp_path / "export")).signature.params}
    assert params == {
        "score_threshold", "iou_threshold", "max_detections", "masks", "mask_format", "exif_orientation",
        "class_agnostic_nms", "min_region_area", "fill_holes", "largest_part", "no_overlaps", "tight_boxes",
        "rotated_boxes", "polygon_tolerance", "max_vertices", "tiles", "tile_overlap", "tile_merge",
    }  # fmt: skip
    model = mlflow.pyfunc.load_model(str(tmp_path / "export"))
    (boxes,) = model.predict(pandas.DataFrame({"image": [PICTURE]}), params={"max_detections": 3})["boxes"]
    assert len(boxes) == 3 and all(filled(box["polygon"], (64, 128)).any() for box in boxes)
