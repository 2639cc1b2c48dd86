"""The masks are those of two bilinear interpolations by torch, but for logits that rounding decides."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.segmenter import upsampling
from models.segmenter.upsampling import binary_masks
from models.square_images import resized_size

SIZES = [
    (1, 1), (1, 97), (97, 1), (5, 8), (63, 31), (64, 64), (120, 161), (333, 250),
    (1, 9000), (9000, 1), (37, 8300), (3, 20_000), (20_000, 3),
]  # fmt: skip


def interpolated(logits: np.ndarray, square: int, resized_hw: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """(M, H, W) float32 by the plain two steps."""
    whole = F.interpolate(torch.from_numpy(logits)[None], (square, square), mode="bilinear", align_corners=False)
    cropped = whole[..., : resized_hw[0], : resized_hw[1]]
    return F.interpolate(cropped, size_hw, mode="bilinear", align_corners=False)[0].numpy()


def blobs(seed: int, side: int, sigma: float, shift: float = 0.0, count: int = 1) -> np.ndarray:
    """(count, side, side) float32 logits of about -1 to 1, in patches about sigma cells wide; noise if 0."""
    noise = np.random.default_rng(seed).normal(size=(count, side, side)).astype(np.float32)
    if sigma:
        noise = np.stack([cv2.GaussianBlur(one, (0, 0), sigma) for one in noise])
    return noise / np.abs(noise).max() + np.float32(shift)


def assert_as_torch(logits: np.ndarray, square: int, size_hw: tuple[int, int]) -> np.ndarray:
    """Check the masks of an image of size_hw against torch's; returns them."""
    resized_hw = resized_size(size_hw, square)
    values = interpolated(logits, square, resized_hw, size_hw)
    masks = binary_masks(logits, square, resized_hw, size_hw)
    assert masks.dtype == np.bool_ and masks.shape == (len(logits), *size_hw)
    clear = np.abs(values) > 1e-4 * np.ptp(logits)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(masks[clear], values[clear] > 0)
    return masks


@pytest.mark.parametrize("size_hw", SIZES, ids=str)
@pytest.mark.parametrize(("side", "square"), [(16, 64), (64, 256), (8, 60), (1, 4)], ids=str)
def test_as_torch_at_every_size(side, square, size_hw):
    for seed, (sigma, shift) in enumerate([(0, 0.0), (side / 20, 0.0), (side / 8, -0.5)]):
        assert_as_torch(blobs(seed, side, sigma, shift), square, size_hw)


@pytest.mark.parametrize("size_hw", [(1080, 1920), (375, 500), (100, 80)], ids=str)
def test_as_torch_at_full_size(size_hw):
    """Of the 1024-pixel square of the published models; every third pixel or so is in a mask."""
    masks = assert_as_torch(blobs(3, 256, 12, -0.1, count=3), 1024, size_hw)
    assert 0.05 < masks.mean() < 0.95


@pytest.mark.parametrize("size_hw", [(1080, 1920), (97, 60), (5, 8)], ids=str)
def test_one_positive_cell_anywhere_reaches_as_far_as_in_torch(size_hw):
    """The only cells computed are those near positive ones: none is missed, at the edges either."""
    for place in [(0, 0), (0, 63), (63, 0), (35, 63), (36, 20), (17, 31), (3, 40)]:
        logits = np.full((1, 64, 64), -0.001, dtype=np.float32)
        logits[0][place] = 1
        assert_as_torch(logits, 256, size_hw)


def test_what_is_positive_in_the_padding_alone_is_cropped():
    logits = np.full((1, 64, 64), -1, dtype=np.float32)
    logits[0, 40:] = 1
    assert not assert_as_torch(logits, 256, (90, 160)).any()


@pytest.mark.parametrize(("value", "expected"), [(-1, False), (0, False), (1, True)])
def test_all_of_one_sign(value, expected):
    logits = np.full((2, 16, 16), value, dtype=np.float32)
    np.testing.assert_array_equal(binary_masks(logits, 64, (64, 43), (300, 200)), np.full((2, 300, 200), expected))


def test_a_logit_of_0_is_not_in_the_mask():
    """Nor is what lies among computed pixels."""
    logits = np.zeros((1, 16, 16), dtype=np.float32)
    logits[0, ::15, ::15] = 1
    values = interpolated(logits, 64, (64, 64), (300, 300))
    masks = binary_masks(logits, 64, (64, 64), (300, 300))
    assert 0.005 < masks.mean() < 0.05
    assert not masks[values == 0].any()


def test_several_at_once_are_each_as_alone():
    logits = blobs(5, 64, 4, count=3)
    together = binary_masks(logits, 256, (256, 171), (300, 200))
    for one, mask in zip(logits, together, strict=True):
        np.testing.assert_array_equal(binary_masks(one[None], 256, (256, 171), (300, 200))[0], mask)


def test_logits_in_any_memory_order():
    logits = blobs(6, 64, 4, count=2)
    expected = binary_masks(logits, 256, (256, 171), (300, 200))
    for same in (np.asfortranarray(logits), np.stack([logits, logits], axis=-1)[..., 0]):
        np.testing.assert_array_equal(binary_masks(same, 256, (256, 171), (300, 200)), expected)


def test_no_mask():
    assert binary_masks(np.zeros((0, 16, 16), np.float32), 64, (64, 64), (30, 30)).shape == (0, 30, 30)


@pytest.mark.parametrize("size_hw", [(2000, 10_000), (1, 3_000_000), (3_000_000, 1)], ids=str)
def test_memory_is_the_answer_and_a_little(size_hw):
    logits = blobs(7, 256, 0)
    tracemalloc.start()
    try:
        binary_masks(logits, 1024, resized_size(size_hw, 1024), size_hw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size_hw[0] * size_hw[1] + 20e6


@pytest.mark.parametrize("size", [1, 9, 100, 375, 1080, 1920, 4000, 12_000, 40_000])
def test_products_stay_below_the_size_at_which_openblas_takes_more_threads(size):
    """Those that widen cells; the others are cut to PRODUCT."""
    axis = upsampling.Axis(256, 1024, 1024, size)
    for block in axis.blocks(0, size):
        assert 256 * block.weights.size <= upsampling.PRODUCT
