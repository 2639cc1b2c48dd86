"""What shares a batch changes a box no more than docs/performance.md says, in float32 and in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.demo.scenes import render_scene
from models.detector.mmdetection import MMDetector

REPOSITORY = Path(__file__).parents[3]
DEMO = REPOSITORY / "weights" / "demo" / "yolof"
BOUNDS = {torch.float32: "0.00001", torch.bfloat16: "0.016"}


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_box_alone_is_as_in_a_batch(dtype: torch.dtype) -> None:
    detector = MMDetector.load(DEMO, dtype=dtype)
    photos = [render_scene(np.random.default_rng(seed), (256, 256), containers=(2, 3)).image for seed in range(4)]
    samples = [detector.preprocess(photo) for photo in photos]
    for sample, raw in zip(samples, detector.forward(samples), strict=True):
        alone, found = (detector.postprocess(one, max_detections=3) for one in (detector.forward([sample])[0], raw))
        assert len(found) > 0 and found.labels.tolist() == alone.labels.tolist()
        np.testing.assert_allclose(found.scores, alone.scores, rtol=0, atol=float(BOUNDS[dtype]))


def test_the_document_has_the_bounds() -> None:
    lines = (REPOSITORY / "docs" / "performance.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("| change of a box's score"))
    assert [line.split("|")[column].strip() for column in (2, 4)] == list(BOUNDS.values())
