"""RoIAlign beside the loop that its paper describes, with mmcv's rules at the border."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from models.detector.mmcv_ops import install, roi_align, sampling
from tests.models.detector.mmcv_ops.memory import peak_memory

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import
install()

BINS = (3, 2)
# Within the image, far over its border, smaller than a pixel, at the edge, outside.
ROIS = torch.tensor(
    [[0, 2, 3, 20, 17], [1, -8, -8, 40, 60], [0, 5, 5, 5.5, 5.2], [1, 30, 10, 47, 35], [0, 100, 100, 120, 130]]
).double()


def features() -> torch.Tensor:
    return torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sample(image: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """(C, H, W) -> (C,): between the four pixels around, the border's value up to a pixel outside, zeros beyond."""
    _, height, width = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, over = y - top, x - left
    upper = image[:, top, left] * (1 - over) + image[:, top, right] * over
    return upper * (1 - down) + (image[:, bottom, left] * (1 - over) + image[:, bottom, right] * over) * down


def loop(image: torch.Tensor, roi: list[float], scale: float, ratio: int, aligned: bool, mode: str) -> torch.Tensor:
    """One region (C, 3, 2)."""
    x1, y1, x2, y2 = (value * scale - 0.5 * aligned for value in roi)
    width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
    bin_h, bin_w = height / BINS[0], width / BINS[1]
    rows, columns = ratio or math.ceil(bin_h), ratio or math.ceil(bin_w)
    found = image.new_zeros(len(image), *BINS)
    for down, over in itertools.product(range(BINS[0]), range(BINS[1])):
        values = torch.stack(
            [
                sample(
                    image,
                    y1 + down * bin_h + (row + 0.5) * bin_h / rows,
                    x1 + over * bin_w + (column + 0.5) * bin_w / columns,
                )
                for row in range(rows)
                for column in range(columns)
            ]
        )
        found[:, down, over] = values.mean(0) if mode == "avg" else values.max(0).values
    return found


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_it_equals_the_loop(ratio: int, aligned: bool, mode: str) -> None:
    from mmcv.ops import roi_align as op

    images = features()
    expected = [loop(images[int(roi[0])], roi[1:], 0.25, ratio, aligned, mode) for roi in ROIS.tolist()]
    found = op(images, ROIS, BINS, 0.25, ratio, mode, aligned)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)
    in_half = op(images.bfloat16(), ROIS.bfloat16(), BINS, 0.25, ratio, mode, aligned)
    rounded = op(images.bfloat16().float(), ROIS.bfloat16().float(), BINS, 0.25, ratio, mode, aligned)
    assert torch.equal(in_half, rounded.bfloat16())


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_the_gradient_is_that_of_the_function(mode: str) -> None:
    from mmcv.ops import roi_align as op

    assert torch.autograd.gradcheck(
        lambda images: op(images, ROIS, BINS, 0.25, 0, mode), (features().requires_grad_(),)
    )


def test_parts_and_the_plain_twin_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcv.ops import roi_align as op

    images = features().requires_grad_()
    whole = {mode: op(images, ROIS, BINS, 0.25, 0, mode) for mode in ("avg", "max")}
    gradients = {mode: torch.autograd.grad(found.sum(), images) for mode, found in whole.items()}
    monkeypatch.setattr(roi_align, "weighted_rows", sampling.plain_weighted_rows)
    for module in (roi_align, sampling):
        monkeypatch.setattr(module, "AT_ONCE", 50)
    for mode, found in whole.items():
        again = op(images, ROIS, BINS, 0.25, 0, mode)
        torch.testing.assert_close(again, found)
        torch.testing.assert_close(torch.autograd.grad(again.sum(), images), gradients[mode])


def test_no_regions_and_regions_that_are_no_numbers() -> None:
    from mmcv.ops import roi_align as op

    assert op(features(), ROIS[:0], BINS).shape == (0, 3, *BINS)
    broken = ROIS.clone()
    broken[0, 3], broken[2, 1] = torch.nan, torch.inf
    found = op(features(), broken, BINS, 0.25, 0)
    torch.testing.assert_close(found[[1, 3, 4]], op(features(), ROIS, BINS, 0.25, 0)[[1, 3, 4]])
    assert not found[[0, 2]].isfinite().all() or not found[[0, 2]].any()


def test_a_region_of_a_million_pixels_takes_little_memory() -> None:
    """It asks for 10^9 samples, of which the image has place for a few hundred."""
    from mmcv.ops import roi_align as op

    images = torch.ones(1, 3, 20, 20)
    found = op(images, torch.tensor([[0.0, -500_000, -500_000, 500_000, 500_000]]), BINS, 0.1, 0)
    assert found.isfinite().all() and 0 < found.max() < 1e-6


def test_a_region_without_an_area_has_no_gradient() -> None:
    """The compiled op gives it -10000 as the largest value; here it is zero, which a network survives."""
    from mmcv.ops import roi_align as op

    images = features().requires_grad_()
    found = op(images, torch.tensor([[0.0, 6, 3, 6, 3]]).double(), BINS, 0.25, 0, "max", True)
    assert not found.any()
    assert not torch.autograd.grad(found.sum(), images)[0].any()


@pytest.mark.parametrize("backward", [False, True])
def test_a_thousand_regions_of_a_large_level_take_bounded_memory(backward: bool) -> None:
    """Besides what goes in and comes out: one copy of the level, channels last, and some arrays of AT_ONCE numbers."""
    level, regions = 256 * 200 * 304 * 4, 1000 * 256 * 49 * 4
    program = """
image, corners = torch.randn(1, 256, 200, 304), torch.rand(1000, 2) * torch.tensor([1100., 690.])
rois = torch.cat([torch.zeros(1000, 1), corners, corners + 8 + torch.rand(1000, 2) * 100], 1)
image.requires_grad_(BACKWARD)
call = lambda: roi_align(image, rois, 7, 0.25, 0, "avg", True)
if BACKWARD:
    found = call()
    gradient = torch.ones_like(found)
    call = lambda: torch.autograd.grad(found, image, gradient)
"""
    allowed = level * (2 if backward else 1) + regions + 4 * 4 * sampling.AT_ONCE
    assert peak_memory(program.replace("BACKWARD", str(backward))) < allowed * 1.1
