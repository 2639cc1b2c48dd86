"""What shares a batch changes a mask no more than docs/performance.md says, in float32 and in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.demo.scenes import render_scene
from models.segmenter.protocol import DecodeRequest
from models.segmenter.sam import Sam
from models.types import Prompts

REPOSITORY = Path(__file__).parents[3]
DEMO = REPOSITORY / "weights" / "demo" / "sam"
BOUNDS = {torch.float32: ("0.00001", "0.999"), torch.bfloat16: ("0.016", "0.9")}


def kinds_of_prompts(size_hw: tuple[int, int]) -> list[Prompts]:
    """Clicks of one, two and five points, and boxes, for one mask each."""
    height, width = size_hw
    rng = np.random.default_rng(0)
    points = [Prompts(points_xy=rng.random((1, count, 2)) * (width, height)) for count in (1, 2, 5)]
    corners = np.sort(rng.random((2, 2, 2)), axis=1) * (width - 20, height - 20)
    corners[:, 1] += 20
    return [*points, *(Prompts(boxes_xyxy=box.reshape(1, 4)) for box in corners)]


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_mask_alone_is_as_in_a_batch(dtype: torch.dtype) -> None:
    score, iou = map(float, BOUNDS[dtype])
    scene = render_scene(np.random.default_rng(100), (192, 256))
    segmenter, fresh = Sam.load(DEMO, dtype=dtype), Sam.load(DEMO, dtype=dtype)
    other = segmenter.preprocess(scene.image[::-1].copy())
    sample = segmenter.preprocess(scene.image)
    (embedding,) = segmenter.embed([sample])
    together, _ = segmenter.embed([sample, other])
    deviation = embedding.features.float().std()
    assert (embedding.features - together.features).abs().max() < deviation * (1e-3 if dtype == torch.float32 else 0.1)

    requests = [DecodeRequest(embedding, p, multi) for p in kinds_of_prompts(sample.size_hw) for multi in (False, True)]
    seen = 0
    alone = []
    for request in requests:
        fresh.ready.clear()  # as for the first click on a photo
        alone.append(fresh.decode_batch([request])[0])
    for chosen in (range(len(requests)), (9, 0, 3), (2, 8, 6, 4)):
        batch = segmenter.decode_batch([requests[i] for i in chosen])
        for raw, expected in zip(batch, (alone[i] for i in chosen), strict=True):
            np.testing.assert_allclose(raw.iou_scores, expected.iou_scores, rtol=0, atol=score)
            for mask, same in zip(segmenter.postprocess(raw, 0), fresh.postprocess(expected, 0), strict=True):
                if (mask | same).sum() >= 64:  # of a few pixels, one is much
                    seen += 1
                    assert (mask & same).sum() >= iou * (mask | same).sum()
    assert seen > 15


def test_a_mask_does_not_depend_on_the_number_of_threads() -> None:
    """The encoder works in pieces whose size depends on it."""
    scene = render_scene(np.random.default_rng(100), (192, 256))
    prompts = Prompts(boxes_xyxy=np.array([[20.0, 20, 120, 150], [90, 60, 200, 180]]))
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(Sam.load(DEMO).segment(scene.image, prompts))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found[0].iou_scores, found[1].iou_scores, rtol=0, atol=1e-5)
    assert np.mean(found[0].masks != found[1].masks) < 0.0005


@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_document_has_the_bounds(dtype: torch.dtype) -> None:
    lines = (REPOSITORY / "docs" / "performance.md").read_text().splitlines()
    column = {torch.float32: 2, torch.bfloat16: 4}[dtype]
    for name, bound in zip(("change of a mask's IoU score", "IoU of a mask with itself"), BOUNDS[dtype], strict=True):
        (line,) = (line for line in lines if line.startswith(f"| {name}"))
        assert line.split("|")[column].strip() == bound
