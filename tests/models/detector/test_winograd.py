from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.detector import winograd
from tests.models.detector.rounding import rms, rounding_of


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9), (25, 42), (3, 40)])
@pytest.mark.parametrize(("batch", "channels", "out_channels"), [(1, 8, 8), (3, 5, 7)])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("scratch", [winograd.SCRATCH_BYTES, 1])
def test_it_is_the_convolution(
    size: tuple[int, int],
    batch: int,
    channels: int,
    out_channels: int,
    relu: bool,
    scratch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "SCRATCH_BYTES", scratch)  # 1: every row of tiles by itself
    torch.manual_seed(0)
    x, bias = torch.randn(batch, channels, *size), torch.randn(out_channels)
    weight = torch.randn(out_channels, channels, 3, 3) / (9 * channels) ** 0.5
    truth = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    truth = truth.relu() if relu else truth
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        out = winograd.convolve(given, winograd.transform_filters(weight), bias, relu)
        assert out.is_contiguous(memory_format=torch.channels_last) and out.dtype == torch.float32
        torch.testing.assert_close(out.double(), truth, rtol=0, atol=5e-5)


def test_rounding_stays_near_that_of_a_direct_convolution() -> None:
    """With the limit of what that may round to: what it does depends on the kernel, and was 3 to 10 times less."""
    torch.manual_seed(0)
    conv = nn.Conv2d(256, 128, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=1 / 48)
    x = torch.randn(1, 256, 12, 16)
    with torch.inference_mode():
        truth = F.conv2d(x.double(), conv.weight.double(), padding=1)
        error = rms(winograd.convolve(x, winograd.transform_filters(conv.weight), torch.zeros(128)) - truth)
        assert error < 2 * rms(rounding_of(conv, x))


def test_the_tiles_of_a_batch_are_counted() -> None:
    assert winograd.tile_count(torch.empty(2, 3, 9, 8)) == 2 * 3 * 2
