"""MMDetection's open-vocabulary detectors behind the detector's routes, in the pipeline and in an exported folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.engine.loading import choose
from app.mlflow.export import ExportError, export_mlflow
from app.settings import Settings
from models.detector.mmdetection import MMDetector
from tests.app.scoring_requests import OTHER, PICTURE, converse, to_yolof
from tests.models.detector import texts_folder

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and MLflow's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts_folder.write(tmp_path_factory.mktemp("texts"), "mm_grounding_dino")


def served(detector: Path, segmenter: Path | None = None, texts: str | None = None) -> Settings:
    return Settings(
        detector=str(detector), segmenter=str(segmenter or "none"), device="cpu", dtype="float32", texts=texts
    )


def test_texts_say_what_is_found(folder: Path, model_folders: Any) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        said = (await client.get("/version")).json()["detector"]
        assert said["classes"] == ["bottle", "can"] and said["takes_texts"] is True
        for texts in (["can", "milk carton"], [" milk "], None):
            asked = to_yolof(PICTURE, OTHER, texts=texts, score_threshold=0.0, max_detections=3)
            labels = []
            for route in ("/score", "/yolof/score", "/pipeline/score"):
                answer = await client.post(route, json=asked)
                assert answer.status_code == 200, answer.text
                labels.append([box["label"] for row in answer.json() for box in row["boxes"]])
            assert len(labels[0]) == 6 and set(labels[0]) <= {text.strip() for text in texts or ("can", "bottle")}
            assert labels[0] == labels[1] == labels[2]
        for text, reason in (("can. milk", "without . and ?"), ("(can)", "with words outside of brackets")):
            refused = await client.post("/yolof/score", json=to_yolof(PICTURE, texts=[text]))
            assert refused.status_code == 400
            assert refused.json()["message"].startswith(f"params.texts: expected texts {reason}"), refused.text

    converse(served(folder, model_folders.segmenter, "bottle,can"), conversation)


def test_detectors_with_classes_refuse_them(model_folders: Any) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        assert (await client.get("/version")).json()["detector"]["takes_texts"] is False
        for route in ("/yolof/score", "/pipeline/score"):
            refused = await client.post(route, json=to_yolof(PICTURE, texts=["can"]))
            assert refused.status_code == 400
            assert refused.json()["message"].startswith("params.texts: this detector finds its own classes: ")

    converse(served(model_folders.detector, model_folders.segmenter), conversation)


def test_an_exported_folder_has_the_tokenizer(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow")
    settings = served(folder)
    with pytest.raises(ExportError, match="expected them in BOX2MASK_TEXTS"):
        export_mlflow(choose(settings), tmp_path / "refused", settings)
    settings = served(folder, texts="can,milk carton")
    written = export_mlflow(choose(settings), tmp_path / "exported", settings)
    assert written.class_names == ("can", "milk carton")
    [config] = (tmp_path / "exported").rglob("bert-base-uncased/config.json")
    assert (config.parent / "vocab.txt").is_file() and MMDetector.load(config.parents[1]).takes_texts
