"""Masks as prompts: against transformers' own model, among prompts without them, and the logits of a binary mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import SamModel

from models.demo.dataset import demo_scene, held_out_numbers
from models.segmenter.mask_prompts import LEAST, MOST, cell_coverage, covered_cells, logits_of_mask
from models.segmenter.protocol import DecodeRequest, RawMasks
from models.segmenter.sam import Sam
from models.segmenter.upsampling import binary_masks
from models.types import PromptError, Prompts
from tests.models.segmenter.test_decoder import GRID, SIZE, random_embedding, random_prompts, random_sam

DEMO = Path(__file__).parents[3] / "weights" / "demo" / "sam"


def smooth_logits(seed: int, side: int = 4 * GRID) -> np.ndarray:
    """Logits as a decoder's are: a blob, positive within."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    middle_y, middle_x, radius = rng.uniform(0.3, 0.7, 2).tolist() + [rng.uniform(0.15, 0.3)]
    return (40 * (radius - np.hypot(y / side - middle_y, x / side - middle_x))).astype(np.float16)


@pytest.fixture(scope="module")
def model() -> SamModel:
    return random_sam()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["alone", "points", "box", "points and box"])
def test_one_prompt_with_logits_equals_transformers_own(
    model: SamModel, kind: str, multimask: bool, fast: bool
) -> None:
    embedding, logits = random_embedding(1, (64, 64)), smooth_logits(2)
    given = random_prompts(3, 1, points=2 if "points" in kind else 0, boxes="box" in kind)
    prompts = Prompts(given.points_xy, given.point_labels, given.boxes_xyxy, (logits,))
    with torch.inference_mode():
        theirs = model(
            image_embeddings=embedding.features[None],
            input_points=None if given.points_xy is None else torch.from_numpy(given.points_xy[None]).float(),
            input_labels=None if given.point_labels is None else torch.from_numpy(given.point_labels[None]),
            input_boxes=None if given.boxes_xyxy is None else torch.from_numpy(given.boxes_xyxy[None]).float(),
            input_masks=torch.from_numpy(logits.astype(np.float32))[None, None],
            multimask_output=multimask,
        )
    # Some masks of random weights cover all or nothing: so the edge is laid where half of the logits are above it.
    middle = theirs.pred_masks.median()
    expected = binary_masks((theirs.pred_masks[0, 0] - middle).numpy(), SIZE, (64, 64), (64, 64))
    assert 0.2 < expected.mean() < 0.8

    segmenter = Sam(model, fast=fast)
    raw = segmenter.decode(embedding, prompts, multimask=multimask)
    ours = segmenter.postprocess(replace(raw, logits=raw.logits - middle), 0)
    assert (ours == expected).mean() >= 0.999
    np.testing.assert_allclose(raw.iou_scores[0], theirs.iou_scores[0, 0], rtol=0, atol=1e-4)
    without = segmenter.decode(embedding, given, multimask=multimask)
    assert (without.logits[0] - raw.logits[0]).abs().max() > 0.1  # the mask has a say


@pytest.mark.parametrize("fast", [True, False])
def test_prompts_with_and_without_masks_of_several_requests_are_each_what_they_would_be_alone(
    model: SamModel, fast: bool
) -> None:
    first, other = random_embedding(1), random_embedding(2, (64, 40))
    boxes = random_prompts(1, 6, boxes=True)
    some = (smooth_logits(1), None, smooth_logits(2), None, None, smooth_logits(3))
    requests = [
        DecodeRequest(first, Prompts(boxes_xyxy=boxes.boxes_xyxy, mask_logits=some), False),
        DecodeRequest(first, boxes, False),
        DecodeRequest(other, Prompts(mask_logits=(smooth_logits(4), smooth_logits(5))), False),
        DecodeRequest(first, Prompts(*_points(3), mask_logits=(None, smooth_logits(6))), False),
        DecodeRequest(other, random_prompts(4, 1, points=1), True),
    ]
    segmenter = Sam(model, fast=fast)
    together = segmenter.decode_batch(requests)
    for request, raw in zip(requests, together, strict=True):
        for number in range(len(request.prompts)):
            alone = segmenter.decode(request.embedding, _one(request.prompts, number), multimask=request.multimask)
            torch.testing.assert_close(raw.logits[number : number + 1], alone.logits, rtol=0, atol=1e-3)
            np.testing.assert_allclose(raw.iou_scores[number], alone.iou_scores[0], rtol=0, atol=1e-4)
    # And what has none is what it was before anybody had masks.
    for number in (1, 3, 4):
        torch.testing.assert_close(together[0].logits[number], together[1].logits[number], rtol=0, atol=1e-3)


def _points(seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    prompts = random_prompts(seed, 2, points=3)
    assert prompts.points_xy is not None
    return prompts.points_xy, prompts.point_labels


def _one(prompts: Prompts, number: int) -> Prompts:
    arrays = (prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy, prompts.mask_logits)
    return Prompts(*(None if one is None else one[number : number + 1] for one in arrays))


def test_a_prompt_of_more_tokens_than_the_fast_decoder_takes_has_its_mask_too(model: SamModel) -> None:
    prompts = random_prompts(1, 2, points=30)
    masks = (smooth_logits(1), None)
    with_one = Prompts(prompts.points_xy, prompts.point_labels, None, masks)
    embedding = random_embedding(1)
    fast, plain = (Sam(model, fast=fast).decode(embedding, with_one, multimask=True) for fast in (True, False))
    torch.testing.assert_close(fast.logits, plain.logits, rtol=0, atol=1e-3)
    bare = Sam(model).decode(embedding, prompts, multimask=True)
    assert (bare.logits[0] - fast.logits[0]).abs().max() > 0.1
    torch.testing.assert_close(bare.logits[1], fast.logits[1], rtol=0, atol=1e-3)


def test_logits_that_are_asked_for_are_kept_where_masks_are_packed(model: SamModel) -> None:
    """As on a GPU, which otherwise sends masks alone."""
    segmenter = Sam(model)
    segmenter.packs_masks = True
    embedding, prompts = random_embedding(1), random_prompts(1, 2, boxes=True)
    packed, kept = segmenter.decode_batch(
        [DecodeRequest(embedding, prompts, False), DecodeRequest(embedding, prompts, False, keep_logits=True)]
    )
    assert packed.packed is not None and packed.logits.numel() == 0
    assert kept.packed is None and kept.logits.shape == (2, 1, segmenter.mask_side, segmenter.mask_side)
    for number in range(2):
        assert (segmenter.postprocess(packed, number) == segmenter.postprocess(kept, number)).mean() > 0.999
    assert isinstance(kept, RawMasks)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"boxes_xyxy": np.array([[0.0, 0, 9, 9]]), "mask_logits": ()}, r"expected one mask per prompt \(1\), got 0"),
        ({"mask_logits": (None, smooth_logits(1))}, "expected a mask for each prompt that has no points and no box"),
        ({"mask_logits": ()}, "expected a mask for each prompt"),
    ],
)
def test_masks_that_do_not_fit_the_prompts_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=f"^input_masks: {message}"):
        Prompts(**given)  # type: ignore[arg-type]


def test_masks_of_no_prompt_are_no_masks() -> None:
    prompts = Prompts(boxes_xyxy=np.array([[0.0, 0, 9, 9]]), mask_logits=(None,))
    assert prompts.mask_logits is None and len(prompts) == 1
    assert len(Prompts(mask_logits=(smooth_logits(1),) * 3)) == 3


def test_a_rough_mask_is_a_good_prompt_and_plain_zeros_and_ones_are_not() -> None:
    """With the demo weights on scenes that they have not seen; benchmarks/refinement.py measures more of them."""
    segmenter, ious = Sam.load(DEMO), []
    for number in held_out_numbers(3):
        scene = demo_scene(number, 240)
        (embedding,) = segmenter.embed([segmenter.preprocess(scene.image)])
        truth = max(scene.masks, key=np.sum).astype(bool)
        rough = np.roll(truth, (5, -5), (0, 1))
        own = segmenter.logits_of_mask(rough)
        prompts = Prompts(mask_logits=(own, (own > 0).astype(np.float16)))
        raw = segmenter.decode(embedding, prompts, multimask=False)
        found = [rough, segmenter.postprocess(raw, 0)[0], segmenter.postprocess(raw, 1)[0]]
        ious.append([(one & truth).sum() / (one | truth).sum() for one in found])
    sent, made, of_zeros_and_ones = np.mean(ious, axis=0)
    assert made > sent + 0.03 and of_zeros_and_ones < made - 0.03


# A binary mask


@pytest.mark.parametrize(
    ("size_hw", "resized_hw"), [((480, 640), (48, 64)), ((30, 21), (64, 45)), ((64, 64), (64, 64))]
)
def test_a_binary_masks_logits_give_the_mask_back(size_hw: tuple[int, int], resized_hw: tuple[int, int]) -> None:
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    mask = np.hypot(y / size_hw[0] - 0.5, x / size_hw[1] - 0.4) < 0.3
    logits = logits_of_mask(mask, SIZE, resized_hw, 32)
    assert logits.shape == (32, 32) and logits.dtype == np.float16
    assert np.abs(logits).max() == pytest.approx(MOST, abs=0.1) and np.abs(logits).min() >= LEAST
    (back,) = binary_masks(logits[None].astype(np.float32), SIZE, resized_hw, size_hw)
    assert (back & mask).sum() / (back | mask).sum() > 0.93


def test_a_binary_masks_logits_have_a_soft_edge_and_the_masks_sign() -> None:
    """A square of 16 x 16 cells, each of 2 x 2 pixels."""
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    assert cell_coverage(mask, 64, (64, 64), 32).sum() == covered_cells(mask, 64, (64, 64), 32).sum() == 256
    logits = logits_of_mask(mask, 64, (64, 64), 32).astype(float)
    assert ((logits > 0) == covered_cells(mask, 64, (64, 64), 32)).all() and np.abs(logits).min() >= LEAST
    row = logits[16]
    assert (np.diff(row[5:11]) > 0.5).all() and row[3] == pytest.approx(-MOST, abs=0.1) == -row[15]
    np.testing.assert_allclose(row[5:8], -row[8:11][::-1], atol=0.01)  # as soft on both sides


def test_what_is_thinner_than_a_cell_is_still_there() -> None:
    mask = np.zeros((256, 256), bool)
    mask[100, 20:200] = True  # a quarter of a pixel of the input wide, where a cell has two
    assert (logits_of_mask(mask, 64, (64, 64), 32) > 0).sum() in range(20, 26)


def test_a_mask_of_the_whole_image_hkeep_logits_too() -> None:
    logits = logits_of_mask(np.ones((64, 64), bool), 64, (64, 64), 32)
    assert np.isfinite(logits).all() and (logits > 0).all()
