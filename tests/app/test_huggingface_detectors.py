"""Hugging Face's detectors behind the detector's routes and in the pipeline, closed-set and open-vocabulary."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers
from fastapi import FastAPI
from PIL import Image

from app.engine.loading import choose
from app.mlflow.export import ExportError, export_mlflow
from app.prediction import PredictorError
from app.predictor import LocalPredictor
from app.settings import Settings
from tests.app.scoring_requests import OTHER, PICTURE, converse, mask_of, to_yolof
from tests.models.detector.huggingface import tiny_detectors


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("huggingface")
    return lambda kind: tiny_detectors.write(root / kind, kind) if not (root / kind).exists() else root / kind


def served(detector: Path, segmenter: Path | None = None, **more: Any) -> Settings:
    return Settings(detector=str(detector), segmenter=str(segmenter or "none"), device="cpu", dtype="float32", **more)


def image_of(picture: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(picture)))


def corners(box: dict[str, Any]) -> list[float]:
    return [box["box"][key] for key in ("topX", "topY", "bottomX", "bottomY")]


@pytest.mark.parametrize("kind", ["rt_detr_v2", "deformable_detr"])
def test_boxes_over_http_are_those_of_transformers(
    kind: str, folder_of: Callable[[str], Path], model_folders: Any
) -> None:
    folder = folder_of(kind)
    network = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    processor = tiny_detectors.processor(kind)

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        said = (await client.get("/version")).json()["detector"]
        assert said["classes"] == ["can", "carton", "milk bottle"] and said["takes_texts"] is False
        assert said["channel_order"] == "rgb" and len(said["sha256"]) == 64
        answer = await client.post("/yolof/score", json=to_yolof(PICTURE, OTHER, score_threshold=0.0))
        assert answer.status_code == 200, answer.text
        for row, picture in zip(answer.json(), (PICTURE, OTHER), strict=True):
            image = image_of(picture)
            with torch.no_grad():
                outputs = network(**processor(images=image, return_tensors="pt"))
            (theirs,) = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[image.size[::-1]])
            order = torch.argsort(theirs["scores"], descending=True, stable=True)
            boxes = (theirs["boxes"][order].numpy() / (image.size * 2)).clip(0, 1)
            np.testing.assert_allclose([corners(box) for box in row["boxes"]], boxes, atol=1e-4)
            np.testing.assert_allclose([box["score"] for box in row["boxes"]], theirs["scores"][order], atol=1e-4)
            names = [network.config.id2label[int(label)] for label in theirs["labels"][order]]
            assert [box["label"] for box in row["boxes"]] == names
        few = to_yolof(PICTURE, score_threshold=0.0, max_detections=2)
        (piped,) = (await client.post("/pipeline/score", json=few)).json()
        assert [box["label"] for box in piped["boxes"]] == [box["label"] for box in answer.json()[0]["boxes"][:2]]
        for box in piped["boxes"]:
            assert mask_of(box["mask_per_prediction"][0]).shape == (64, 128)
        refused = await client.post("/yolof/score", json=to_yolof(PICTURE, texts=["can"]))
        assert refused.status_code == 400
        assert refused.json()["message"] == (
            "params.texts: this detector finds its own classes: can, carton, milk bottle. Leave texts out, "
            "or serve Grounding DINO, OWLv2 or SAM 3 as BOX2MASK_DETECTOR"
        )

    converse(served(folder, model_folders.segmenter), conversation)


@pytest.mark.parametrize("kind", ["owlv2", "grounding-dino"])
def test_texts_say_what_is_found(kind: str, folder_of: Callable[[str], Path], model_folders: Any) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        said = (await client.get("/version")).json()["detector"]
        assert said["classes"] == [] and said["takes_texts"] is True
        labels = {}
        for texts in (["can", "milk carton"], ["bottle"], [" milk carton ", "can"]):
            asked = to_yolof(PICTURE, OTHER, texts=texts, score_threshold=0.0)
            for route in ("/score", "/yolof/score", "/pipeline/score"):
                answer = await client.post(route, json=asked | {"params": asked["params"] | {"max_detections": 3}})
                assert answer.status_code == 200, answer.text
                found = [box["label"] for row in answer.json() for box in row["boxes"]]
                assert len(found) == 6 and set(found) <= {text.strip() for text in texts}
                labels[route, *texts] = found
        assert labels["/score", "bottle"] == ["bottle"] * 6
        assert labels["/score", "can", "milk carton"] == labels["/pipeline/score", "can", "milk carton"]
        missing = await client.post("/pipeline/score", json=to_yolof(PICTURE))
        assert missing.status_code == 400
        assert missing.json()["message"].startswith('params.texts: expected what to find, as ["can", "milk carton"]')
        long = await client.post("/yolof/score", json=to_yolof(PICTURE, texts=["milk " * 50]))
        assert long.status_code == 400 and long.json()["message"].startswith("params.texts: expected at most ")

    converse(served(folder_of(kind), model_folders.segmenter), conversation)


def test_texts_of_the_settings_are_for_requests_without_any(folder_of: Callable[[str], Path]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        assert (await client.get("/version")).json()["detector"]["classes"] == ["can", "milk carton"]
        for texts, expected in ((None, {"can", "milk carton"}), (["bottle"], {"bottle"})):
            answer = await client.post("/yolof/score", json=to_yolof(PICTURE, OTHER, texts=texts, score_threshold=0.0))
            assert {box["label"] for row in answer.json() for box in row["boxes"]} == expected

    converse(served(folder_of("owlvit"), texts="can, milk carton,can,"), conversation)


def test_commands_say_at_once_that_texts_are_missing(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder, photo = folder_of("owlvit"), base64.b64decode(PICTURE)
    with (
        LocalPredictor(served(folder)) as predictor,
        pytest.raises(PredictorError, match="expected them in BOX2MASK_T"),
    ):
        predictor.detect(photo)
    with LocalPredictor(served(folder, texts="can,bottle")) as predictor:
        assert predictor.class_names == ("can", "bottle")
        assert {found.label for found in predictor.detect(photo, 0.0)} <= {"can", "bottle"}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # MLflow's own
@pytest.mark.parametrize(("kind", "texts"), [("rt_detr", None), ("grounding-dino", "can,milk carton")])
def test_an_exported_folder_has_all_that_it_needs(
    kind: str, texts: str | None, folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow")
    if texts is not None:
        settings = served(folder_of(kind))
        with pytest.raises(ExportError, match="expected them in BOX2MASK_TEXTS"):
            export_mlflow(choose(settings), tmp_path / "refused", settings)
    settings = served(folder_of(kind), texts=texts)
    written = export_mlflow(choose(settings), tmp_path / "exported", settings)
    assert written.class_names == (("can", "milk carton") if texts else ("can", "carton", "milk bottle"))
    names = {path.name for path in tmp_path.rglob("*") if path.parent.name == "detector"}
    assert names >= {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert ("tokenizer.json" in names) is (texts is not None)
