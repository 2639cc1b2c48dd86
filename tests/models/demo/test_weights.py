"""The tracked demo weights do what weights/demo/README.md says of them, on a few scenes and on real photos."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models.demo.evaluation import box_figures, mask_figures, photos, scenes
from models.detector.mmdetection import MMDetector
from models.segmenter.sam import Sam
from models.weights import find_places

DEMO = find_places().shipped / "demo"
PHOTOS = Path(__file__).parents[4] / "shared" / "data" / "fridge"


@pytest.fixture(scope="module")
def segmenter() -> Sam:
    return Sam.load(DEMO / "sam")


@pytest.fixture(scope="module")
def detector() -> MMDetector:
    return MMDetector.load(DEMO / "yolof")


def test_masks_on_scenes(segmenter: Sam) -> None:
    figures = mask_figures(segmenter, scenes(24))
    assert figures["box"] > 0.865
    assert figures["box"] > figures["filled box"]
    assert figures["point"] > 0.72


def test_boxes_on_scenes(detector: MMDetector) -> None:
    figures = box_figures(detector, scenes(24))
    assert figures["mAP@50"] > 0.87


def test_masks_and_boxes_on_photos(segmenter: Sam, detector: MMDetector) -> None:
    if not PHOTOS.is_dir():
        pytest.skip("there are no photos beside the repository")
    assert mask_figures(segmenter, photos(PHOTOS))["box"] > 0.88
    assert box_figures(detector, photos(PHOTOS))["recall@50, score > 0.3"] > 0.5


def test_they_are_small_and_as_they_were_recorded() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25_000_000
    for folder in (DEMO / "sam", DEMO / "yolof"):
        for line in (folder / "SHA256SUMS").read_text().splitlines():
            digest, name = line.split()
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
