"""Deformable convolutions: without offsets they are convolutions, with whole ones they look at other pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.detector.mmcv_ops import deform_conv, install, sampling
from tests.models.detector.mmcv_ops.memory import peak_memory

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import
install()


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("groups", "deform_groups"), [(1, 1), (2, 1), (1, 4), (2, 4), (4, 2)])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 2, 2)])
def test_without_offsets_it_is_a_convolution(stride, padding, dilation, groups, deform_groups):
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    x, weight, bias = numbers(2, 8, 7, 9), numbers(8, 8 // groups, 3, 3, seed=1), numbers(8, seed=2)
    expected = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    taps = deform_groups * 9
    offset = torch.zeros(2, taps * 2, *expected.shape[2:], dtype=x.dtype)
    found = deform_conv2d(x, offset, weight, stride, padding, dilation, groups, deform_groups)
    torch.testing.assert_close(found, expected)
    mask = torch.full((2, taps, *expected.shape[2:]), 0.5, dtype=x.dtype)
    found = modulated_deform_conv2d(x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups)
    torch.testing.assert_close(found, expected / 2 + bias[:, None, None])


def test_offsets_are_y_before_x_and_outside_is_zero():
    from mmcv.ops import deform_conv2d

    x = numbers(1, 2, 6, 6)
    weight = torch.eye(2, dtype=x.dtype)[:, :, None, None]
    offset = torch.zeros(1, 2, 6, 6, dtype=x.dtype)
    offset[:, 0], offset[:, 1] = 1, -2.5
    found = deform_conv2d(x, offset, weight)
    shifted = F.pad(x, (3, 0, 0, 1))[:, :, 1:]  # one down, three to the left
    torch.testing.assert_close(found, (shifted[..., :6] + shifted[..., 1:7]) / 2)
    offset[:] = torch.nan
    assert not deform_conv2d(x, offset, weight).any()


@pytest.mark.parametrize("groups", [1, 2])
def test_the_gradient_is_that_of_the_function(groups):
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    x, weight, bias = numbers(2, 4, 3, 4), numbers(4, 4 // groups, 2, 2, seed=1), numbers(4, seed=2)
    offset, mask = numbers(2, 2 * 4 * 2, 2, 3, seed=3), numbers(2, 2 * 4, 2, 3, seed=4)
    for one in (x, weight, bias, offset, mask):
        one.requires_grad_()
    assert torch.autograd.gradcheck(lambda *of: deform_conv2d(*of, 1, 0, 1, groups, 2), (x, offset, weight))
    assert torch.autograd.gradcheck(
        lambda *of: modulated_deform_conv2d(*of, 1, 0, 1, groups, 2), (x, offset, mask, weight, bias)
    )


def test_parts_and_the_plain_twin_give_the_same(monkeypatch):
    from mmcv.ops import modulated_deform_conv2d

    of = [numbers(2, 4, 6, 7), numbers(2, 2 * 9 * 2, 6, 7, seed=3), numbers(2, 2 * 9, 6, 7, seed=4)]
    of += [numbers(4, 4, 3, 3, seed=1), numbers(4, seed=2)]
    for one in of:
        one.requires_grad_()
    whole = modulated_deform_conv2d(*of, 1, 1, 1, 1, 2)
    gradients = torch.autograd.grad(whole.square().sum(), of)
    for form in (torch.channels_last, torch.contiguous_format):
        again = [one.detach().to(memory_format=form).requires_grad_() if one.ndim == 4 else one for one in of]
        found = modulated_deform_conv2d(*again, 1, 1, 1, 1, 2)
        torch.testing.assert_close(torch.autograd.grad(found.square().sum(), again), gradients)
    monkeypatch.setattr(deform_conv, "AT_ONCE", 500)
    monkeypatch.setattr(deform_conv, "weighted_rows", sampling.plain_weighted_rows)
    again = modulated_deform_conv2d(*of, 1, 1, 1, 1, 2)
    torch.testing.assert_close(again, whole)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), of), gradients)


def test_half_precision_is_computed_in_float32():
    from mmcv.ops import deform_conv2d

    of = [one.bfloat16() for one in (numbers(1, 4, 5, 5), numbers(1, 18, 3, 3, seed=1), numbers(4, 4, 3, 3, seed=2))]
    found = deform_conv2d(*of)
    assert torch.equal(found, deform_conv2d(*(one.float() for one in of)).bfloat16())


def test_offsets_of_another_size_are_read_as_if_they_were_of_the_outputs():
    """As mmcv 2.1.0's compiled op has it, on which the weights of DyHead depend."""
    from mmcv.ops import modulated_deform_conv2d

    x, weight = numbers(2, 2, 4, 5), numbers(3, 2, 3, 3, seed=1)
    offset, mask = numbers(2, 18, 8, 10, seed=2), numbers(2, 9, 8, 10, seed=3)
    found = modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    own = offset.flatten(1)[:, : 18 * 20].view(2, 18, 4, 5), mask.flatten(1)[:, : 9 * 20].view(2, 9, 4, 5)
    torch.testing.assert_close(found, modulated_deform_conv2d(x, *own, weight, None, 1, 1))
    with pytest.raises(ValueError, match="expected offsets and masks of 18 x 20 values or more, got 72"):
        modulated_deform_conv2d(x, offset[:, :, :2, :2], mask, weight, None, 1, 1)


@pytest.mark.parametrize("backward", [False, True])
def test_a_large_map_takes_bounded_memory(backward):
    """Besides what goes in and comes out: some arrays of AT_ONCE numbers, and not the 147 MB of all taps' columns."""
    one_map = 256 * 100 * 160 * 4
    program = """
image, weight, bias = torch.randn(1, 256, 100, 160), torch.randn(256, 256, 3, 3), torch.randn(256)
offset, mask = torch.randn(1, 18, 100, 160), torch.rand(1, 9, 100, 160)
of = [image, offset, mask, weight, bias]
for one in of:
    one.requires_grad_(BACKWARD)
call = lambda: modulated_deform_conv2d(*of, 1, 1)
if BACKWARD:
    found = call()
    gradient = torch.ones_like(found)
    call = lambda: torch.autograd.grad(found, of, gradient)
"""
    allowed = one_map * (3 if backward else 2) + (6 if backward else 4) * 4 * sampling.AT_ONCE
    assert peak_memory(program.replace("BACKWARD", str(backward))) < allowed * 1.1
