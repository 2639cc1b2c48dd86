"""SAM-HQ and SAM 2 behind the same routes, the cache of embeddings, `/version`, MLflow's folder and the commands."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI

from app.engine.loading import choose
from app.mlflow.export import export_mlflow
from app.predictor import LocalPredictor
from app.settings import Settings
from models.segmenter.families import SEGMENTERS
from models.types import Prompts
from tests.app.scoring_requests import OTHER, PICTURE, converse, masks_of, picture, row, to_sam, to_yolof
from tests.models.segmenter.random_sams import IMAGE_SIZE, random_sam2, random_sam2_video, random_sam_hq

SQUARE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
FAMILIES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "sam_hq": (random_sam_hq, {"size": {"longest_edge": IMAGE_SIZE}}),
    "sam2": (lambda: random_sam2(1), {"size": SQUARE}),
    "sam2_video": (random_sam2_video, {"size": SQUARE}),
}


def write(folder: Path, kind: str) -> Path:
    """The folder of a family, as transformers 5 writes it: without preprocessor_config.json."""
    make, processor = FAMILIES[kind]
    make().save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    return folder


def served(segmenter: Path, detector: Any = "none") -> Settings:
    return Settings(detector=str(detector), segmenter=str(segmenter), device="cpu", dtype="float32")


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_is_served_as_sam_is(kind: str, tmp_path: Path, model_folders: Any) -> None:
    folder = write(tmp_path / kind, kind)
    segmenter = SEGMENTERS.of(folder).load(folder, torch.device("cpu"), torch.float32, fast=True)
    images = {PICTURE: np.asarray(picture(128, 64)), OTHER: np.asarray(picture(100, 75, seed=1))}
    points, boxes, labels = [[[30, 20], [60, 30]]], [[5, 6, 90, 60]], [[1, 0]]
    prompts = [
        Prompts(np.array(points, np.float64), np.array(labels), None),
        Prompts(boxes_xyxy=np.array(boxes, np.float64)),
        Prompts(np.array(points, np.float64), np.array(labels), np.array(boxes, np.float64)),
    ]

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        said = (await client.get("/version")).json()["segmenter"]
        assert said["image_size"] == IMAGE_SIZE and len(said["sha256"]) == 64
        for image, pixels in images.items():
            rows = [
                row(image, points, "", labels, True),
                row(image, "", boxes, "", True),
                row(image, points, boxes, labels, True),
            ]
            answer = await client.post("/sam/score", json=to_sam(*rows))
            assert answer.status_code == 200, answer.text
            for answered, asked in zip(answer.json(), prompts, strict=True):
                expected = segmenter.segment(pixels, asked, multimask=True)
                (best,) = (one["mask_per_prediction"] for one in answered["predictions"])
                assert [one["iou_score"] for one in best] == pytest.approx(expected.iou_scores[0].tolist(), abs=1e-4)
                assert (masks_of(answered)[0] == expected.masks[0, 0]).mean() >= 0.999
        cache = (await client.get("/version")).json()["embedding_cache"]
        (embedding,) = segmenter.embed([segmenter.preprocess(images[PICTURE])])
        assert cache["entries"] == 2 and cache["bytes"] == 2 * embedding.features.nbytes
        piped = await client.post("/pipeline/score", json=to_yolof(PICTURE, score_threshold=0.0, max_detections=2))
        assert [len(box["mask_per_prediction"]) for box in piped.json()[0]["boxes"]] == [1, 1]

    converse(served(folder, model_folders.detector), conversation)


def test_how_images_are_prepared_is_part_of_the_hash(tmp_path: Path) -> None:
    folder = write(tmp_path / "sam2", "sam2")
    before = choose(served(folder)).hashes["segmenter"]
    processor = {"size": SQUARE, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor}))
    assert choose(served(folder)).hashes["segmenter"] != before
    segmenter = SEGMENTERS.of(folder).load(folder, torch.device("cpu"), torch.float32, fast=True)
    white = segmenter.pixels([segmenter.preprocess(np.full((4, 9, 3), 255, np.uint8))])
    assert torch.equal(white, torch.ones(1, 3, IMAGE_SIZE, IMAGE_SIZE))


def test_commands_use_it(tmp_path: Path, model_folders: Any) -> None:
    """As `run` and `evaluate` do."""
    with LocalPredictor(served(write(tmp_path / "sam2", "sam2"), model_folders.detector)) as predictor:
        assert predictor.identity()["segmenter"] is not None
        found = predictor.detect_and_segment(base64.b64decode(PICTURE), 0.0)
        assert found and all(one.rle is not None for one in found)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # MLflow's own
def test_an_exported_folder_has_all_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow")
    settings = served(write(tmp_path / "hq", "sam_hq"))
    export_mlflow(choose(settings), tmp_path / "exported", settings)
    names = {path.name for path in (tmp_path / "exported").rglob("*") if path.parent.name == "segmenter"}
    assert names >= {"config.json", "processor_config.json", "model.safetensors"}
    assert SEGMENTERS.of(tmp_path / "exported").__name__ == "SamHQ"
