"""All masks of an image are those of transformers' own mask-generation pipeline.

The pipeline is transformers' own from the image to the candidates, with its processor and model. Its last step, the
non-maximum suppression, needs torchvision; here it is this project's, which is compared with a loop below.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import MaskGenerationPipeline, SamModel
from transformers.models.sam import image_processing_pil_sam as of_transformers
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

from models.demo.scenes import render_scene
from models.detector.mmcv_ops.suppression import nms
from models.rle import decode_rle
from models.segmenter import everything as everything_module
from models.segmenter.crops import grid_crops
from models.segmenter.everything import Candidates, FoundMask, TooManyMasksError, everything
from models.segmenter.grid import Grid
from models.segmenter.sam import Sam
from models.segmenter.stability import StableMask, plain_stable_mask, stable_mask

DEMO = Path(__file__).parents[3] / "weights" / "demo" / "sam"
LOOSE: dict[str, Any] = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.7}


def pipeline_of(model: SamModel, processor: SamImageProcessorPil) -> MaskGenerationPipeline:
    def chosen(masks: list, scores: torch.Tensor, boxes: torch.Tensor, threshold: float) -> tuple[Any, ...]:
        kept = nms(boxes.float(), scores, threshold)
        rles = [masks[index] for index in kept.tolist()]
        return [of_transformers._rle_to_mask(rle) for rle in rles], scores[kept], rles, boxes[kept]

    processor.post_process_for_mask_generation = chosen
    return MaskGenerationPipeline(model=model, image_processor=processor)


@pytest.fixture(scope="module")
def pipeline() -> MaskGenerationPipeline:
    return pipeline_of(
        SamModel.from_pretrained(DEMO, dtype=torch.float32).eval(), SamImageProcessorPil.from_pretrained(DEMO)
    )


@pytest.fixture(scope="module")
def segmenter() -> Sam:
    return Sam.load(DEMO)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return render_scene(np.random.default_rng(5), (180, 241)).image


def expected(pipeline: MaskGenerationPipeline, image: np.ndarray, **options: Any) -> dict[str, Any]:
    if "points_per_side" in options:
        options["points_per_crop"] = options.pop("points_per_side")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pipeline(Image.fromarray(image), output_bboxes_mask=True, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"points_per_side": 5, **LOOSE},
        {"points_per_side": 5, "points_per_batch": 7, **LOOSE, "crops_nms_thresh": 0.3},
        {"points_per_side": 4, **LOOSE, "crops_n_layers": 1, "crop_overlap_ratio": 0.2},
        {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "mask_threshold": 0.7},
        {"points_per_side": 4, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.6, "stability_score_offset": 0.4},
    ],
    ids=["points", "batches", "crops", "no thresholds", "offset"],
)
def test_the_masks_are_those_of_transformers_pipeline(
    pipeline: MaskGenerationPipeline, segmenter: Sam, image: np.ndarray, options: dict[str, Any]
) -> None:
    theirs, ours = expected(pipeline, image, **options), everything(segmenter, image, Grid(**options))
    assert len(ours) == len(theirs["masks"]) > 2
    assert [one.score for one in ours] == sorted((one.score for one in ours), reverse=True)
    np.testing.assert_allclose([one.score for one in ours], theirs["scores"], atol=1e-4)
    for one, mask, box in zip(ours, theirs["masks"], theirs["bounding_boxes"], strict=True):
        assert np.mean(decode_rle(one.rle) == mask) >= 0.999
        np.testing.assert_allclose(one.box_xyxy, box, atol=1)


def test_without_the_fast_paths_they_are_the_same(segmenter: Sam, image: np.ndarray) -> None:
    grid = Grid(3, **LOOSE)
    plain = everything(Sam.load(DEMO, fast=False), image, grid)
    fast = everything(segmenter, image, grid)
    assert len(plain) == len(fast) > 0
    for one, other in zip(plain, fast, strict=True):
        assert np.mean(decode_rle(one.rle) == decode_rle(other.rle)) >= 0.999 and abs(one.score - other.score) < 1e-4


def test_the_defaults_are_those_of_transformers_pipeline(
    pipeline: MaskGenerationPipeline, segmenter: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor, asked = pipeline.image_processor, []
    crops, keep = processor.generate_crop_boxes, processor.filter_masks

    def few_points(image: Any, *given: Any) -> Any:
        asked.append(given)
        return crops(image, *given[:3], 2, given[4])

    def filtered(*given: Any) -> Any:
        asked.append(given)
        return keep(*given)

    monkeypatch.setattr(processor, "generate_crop_boxes", few_points)
    monkeypatch.setattr(processor, "filter_masks", filtered)
    expected(pipeline, np.zeros((9, 12, 3), np.uint8))
    _, layers, overlap, points, factor = asked[0]
    pred_iou, stability, threshold, offset = asked[1][4:]
    assert Grid() == Grid(points, 64, pred_iou, stability, offset, threshold, 0.7, layers, overlap, factor)


@pytest.mark.parametrize("size_hw", [(300, 401), (64, 64), (33, 90)])
@pytest.mark.parametrize(("layers", "overlap"), [(0, 0.3), (1, 512 / 1500), (2, 0.0), (2, 0.5)])
def test_crops_and_points_are_transformers_own(size_hw: tuple[int, int], layers: int, overlap: float) -> None:
    image = np.zeros((3, *size_hw), np.uint8)
    boxes, points, _, _ = of_transformers._generate_crop_boxes(image, max(size_hw), layers, overlap, 3, 1)
    crops = grid_crops(size_hw, [3] * (layers + 1), overlap)
    assert [crop.box_xyxy for crop in crops] == [tuple(box) for box in boxes.astype(int).tolist()]
    for number, crop in enumerate(crops):
        height, width = crop.box_xyxy[3] - crop.box_xyxy[1], crop.box_xyxy[2] - crop.box_xyxy[0]
        scale = max(size_hw) / max(height, width)  # theirs are of the resized crop, whose sides are whole pixels
        sides = np.array([int(width * scale + 0.5), int(height * scale + 0.5)])
        np.testing.assert_allclose(crop.points_xy / (width, height) * sides, points[0, :, number], atol=1e-9)


def test_later_layers_may_have_fewer_points_which_stops_the_pipeline(
    pipeline: MaskGenerationPipeline, image: np.ndarray
) -> None:
    grid = Grid(4, crops_n_layers=2, crop_n_points_downscale_factor=3)
    assert [len(crop.points_xy) for crop in grid.crops((90, 90))] == [16] + 4 * [1] + 16 * [1]
    assert grid.points == 36
    with pytest.raises(ValueError, match="inhomogeneous"):
        expected(pipeline, image, points_per_side=4, crops_n_layers=1, crop_n_points_downscale_factor=2)


def smooth(seed: int, size: int = 32) -> np.ndarray:
    """Logits with a few hills and valleys."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(0, 6, (1, 1, 6, 6)).astype(np.float32))
    return torch.nn.functional.interpolate(noise, (size, size), mode="bicubic")[0, 0].numpy()


@pytest.mark.parametrize(
    ("size_hw", "resized_hw"), [((300, 401), (96, 128)), ((37, 20), (128, 69)), ((1, 1), (128, 128))]
)
@pytest.mark.parametrize(("threshold", "offset"), [(0.0, 1.0), (1.5, 0.25), (-2.0, 0.0), (90.0, 1.0), (-90.0, 1.0)])
def test_masks_and_their_stability_are_those_of_the_plain_twin(
    size_hw: tuple[int, int], resized_hw: tuple[int, int], threshold: float, offset: float
) -> None:
    def whole(one: StableMask) -> np.ndarray:
        mask = np.zeros(size_hw, bool)
        mask[one.top : one.top + one.mask.shape[0], one.left : one.left + one.mask.shape[1]] = one.mask
        return mask

    for seed in range(4):
        arguments = (smooth(seed), 128, resized_hw, size_hw, threshold, offset)
        fast, plain = stable_mask(*arguments), plain_stable_mask(*arguments)
        assert np.count_nonzero(whole(fast) != whole(plain)) <= 1
        assert abs(fast.above - plain.above) <= 1 and abs(fast.below - plain.below) <= 1
        assert fast.box_xyxy == plain.box_xyxy


def test_where_nothing_is_above_the_stability_is_no_number() -> None:
    one = stable_mask(np.full((8, 8), -5, np.float32), 32, (32, 32), (50, 50), 0.0, 1.0)
    assert np.isnan(one.stability) and one.box_xyxy == (0, 0, 0, 0)


def test_of_masks_that_overlap_the_best_stays() -> None:
    boxes, scores = [(0, 0, 10, 10), (0, 0, 10, 9), (20, 20, 30, 30)], [0.5, 0.9, 0.7]
    three = [
        FoundMask({"size": [1, 1], "counts": "1"}, score, 1.0, box) for box, score in zip(boxes, scores, strict=True)
    ]
    found = Candidates()
    assert found.best(Grid()) == []
    found.add(three)
    assert found.best(Grid(crops_nms_thresh=0.7)) == [three[1], three[2]]
    assert found.best(Grid(crops_nms_thresh=0.9)) == [three[1], three[2], three[0]]  # 0.9 is not above 0.9


def test_masks_that_do_not_fit_into_memory_are_said(
    segmenter: Sam, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everything_module, "MAX_CANDIDATE_BYTES", 10)
    with pytest.raises(TooManyMasksError, match="at most 10 bytes before .* raise pred_iou_thresh"):
        everything(segmenter, image, Grid(2, pred_iou_thresh=0.0, stability_score_thresh=0.0))
