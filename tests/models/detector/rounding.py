"""How far float32 may stray from the exact sums, in whatever order a processor's kernel adds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

UNIT = 2.0**-24  # a float32 operation is off by at most this, relative to its result


def rounding_of(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """(B, K, H', W'): the error that float32 may leave in a convolution of x, as a standard deviation.

    A sum of n products takes n roundings, each of at most UNIT times what has been added until then. Independent of
    each other, they come to no more than UNIT sqrt(n) sqrt(sum of the squared products), in any order; one product
    after the other is the worst. Kernels that keep partial sums stay below: by a factor of 3 with oneDNN on AVX2, of 11
    with plain matrix products. So a test should compare with this limit, and not with what some kernel rounds to.
    Source: N. J. Higham and T. Mary, "A New Approach to Probabilistic Rounding Error Analysis" (2019), theorem 2.4.
    """
    shape = conv.stride, conv.padding, conv.dilation, conv.groups
    squares = F.conv2d(x.double().square(), conv.weight.double().square(), None, *shape)
    return UNIT * conv.weight[0].numel() ** 0.5 * squares.sqrt()


def rms(error: torch.Tensor) -> float:
    return float(error.double().square().mean().sqrt())


def rounded_everywhere(model: nn.Module) -> nn.Module:
    """The model, in float64, with an error as of float32 added to what each of its convolutions says."""

    def add_error(conv: nn.Conv2d, inputs: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        return out + rounding_of(conv, inputs[0]) * torch.randn_like(out)

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add_error)
    return model
