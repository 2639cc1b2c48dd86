"""A folder's own files say which family reads it; a new family is a class and its name in a list."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

from app.engine import loading
from app.settings import Settings
from models.checkpoints import ModelFilesError
from models.detector.families import DETECTORS
from models.detector.mmdetection import MMDetector
from models.families import Families, ModelFiles
from models.segmenter.families import SEGMENTERS
from models.segmenter.sam import Sam
from models.types import Detections

DEMO = Path(__file__).parents[2] / "weights" / "demo"
HERE = f"{__name__}:"


class Seen:
    """What CornerDetector takes for a sample, and for what its network says."""

    def __init__(self, image: np.ndarray) -> None:
        self.size_hw = image.shape[0], image.shape[1]
        self.pixels = image.shape[0] * image.shape[1]
        self.is_numbers = True


class CornerDetector:
    """A family of its own, told by its config.json: it finds the upper left quarter of every image."""

    class_names: tuple[str, ...] = ("corner",)
    channel_order = "rgb"
    input_scale = None
    takes_texts = False
    takes_exemplars = False
    fast = True
    dtype = torch.float32

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @classmethod
    def find(cls, path: Path) -> Path:
        if path not in cls.folders_below(path):
            raise ModelFilesError(f"{path}: looked for a config.json of a corner detector")
        return path

    @classmethod
    def folders_below(cls, root: Path) -> set[Path]:
        configs = root.rglob("config.json")
        return {file.parent for file in configs if json.loads(file.read_text())["model_type"] == "corner"}

    @classmethod
    def files(cls, path: Path) -> ModelFiles:
        return {"config.json": path / "config.json"}

    @classmethod
    def load(cls, path: str | Path, device: torch.device, dtype: torch.dtype, **settings: Any) -> Self:
        return cls(device)

    def preprocess(self, image: np.ndarray, texts: object = ()) -> Seen:
        return Seen(image)

    def forward(self, samples: list[Seen], between: object = None) -> list[Seen]:
        return samples

    def postprocess(self, raw: Seen, **thresholds: object) -> Detections:
        height, width = raw.size_hw
        box = np.array([[0, 0, width / 2, height / 2]], np.float32)
        return Detections(box, np.ones(1, np.float32), np.zeros(1, np.int64), raw.size_hw)


@pytest.fixture
def corner_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "corners"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "corner"}')
    return folder


def test_each_folder_is_read_by_its_own_family(corner_folder: Path) -> None:
    families: Families[Any] = Families("models.detector.mmdetection:MMDetector", HERE + "CornerDetector")
    assert families.of(DEMO / "yolof") is MMDetector
    assert families.of(corner_folder).__name__ == "CornerDetector"
    assert families.files(corner_folder) == {"config.json": corner_folder / "config.json"}
    assert families.folders_below(corner_folder.parent) == {corner_folder}
    assert DETECTORS.of(DEMO / "yolof") is MMDetector and SEGMENTERS.of(DEMO / "sam") is Sam


def test_a_folder_of_no_family_is_told_what_each_looked_for(tmp_path: Path) -> None:
    families: Families[Any] = Families("models.detector.mmdetection:MMDetector", HERE + "CornerDetector")
    with pytest.raises(ModelFilesError, match=r"one config \.py and one checkpoint .*; .*of a corner detector$"):
        families.of(tmp_path)
    assert families.folders_below(tmp_path) == set()


@pytest.mark.parametrize("named", [True, False])
def test_a_new_family_is_served_by_its_name_in_the_list_alone(
    corner_folder: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setattr(DETECTORS, "_places", (*DETECTORS._places, HERE + "CornerDetector"))
    where: dict[str, Any] = {"detector": str(corner_folder)} if named else {"azureml_model_dir": corner_folder.parent}
    settings = Settings(segmenter="none", device="cpu", **where)
    choice = loading.choose(settings)
    assert choice.hashes.keys() == {"detector"}
    engine = loading.load(settings, choice)

    async def conversation() -> Detections:
        try:
            await engine.warm_up()
            detector = engine.detector
            assert detector is not None
            return detector.postprocess(await engine.detect(detector.preprocess(np.zeros((20, 40, 3), np.uint8))))
        finally:
            await engine.aclose()

    assert asyncio.run(conversation()).boxes_xyxy.tolist() == [[0, 0, 20, 10]]
