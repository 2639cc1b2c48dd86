"""RepViT-M1 against timm's, whose numbers are recorded here: timm is not imported without torchvision."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.segmenter.repvit import RepViT, folded

# Of timm 1.0.31, by `TimmWrapperModel` of transformers 5.23 with `features_only`: of each grid its shape, the
# standard deviation of its numbers, and five of them, evenly spaced in the order (B, h, w, C).
TIMM = (
    ((1, 24, 40, 48), 1.347016, (-1.219255, 0.7591915, 0.7937566, 0.7734544, 0.8422118)),
    ((1, 12, 20, 96), 1.13888, (-1.853838, -0.4981943, -0.5023851, -0.5082809, -0.1516469)),
    ((1, 6, 10, 192), 1.133185, (-1.524904, 1.983508, 1.526641, 2.043241, 1.704321)),
    ((1, 3, 5, 384), 0.9830813, (-0.6148295, -0.8742566, -0.3032839, -2.050775, -0.3860907)),
)


def weights_by_name(module: nn.Module) -> nn.Module:
    """The module with weights that depend on their names alone, so that any network with these names gets the same."""
    with torch.no_grad():
        for name, numbers in module.state_dict().items():
            if not numbers.is_floating_point():
                continue
            noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=tuple(numbers.shape))
            if name.endswith("running_var"):
                noise = np.exp(0.3 * noise)
            elif name.endswith("bn.weight"):
                noise = 0.7 + 0.3 * noise
            elif numbers.ndim > 1:
                noise *= 0.6 * numbers[0].numel() ** -0.5
            else:
                noise *= 0.3
            numbers.copy_(torch.from_numpy(noise))
    return module.eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).normal(size=(1, 3, 96, 160)).astype(np.float32))


@pytest.mark.parametrize("prepared", [lambda backbone: backbone, folded], ids=["as published", "folded"])
def test_grids_are_timms(prepared: Callable[[Any], Any], pixels: torch.Tensor) -> None:
    with torch.no_grad():
        grids = prepared(weights_by_name(RepViT()))(pixels).intermediate_hidden_states
    for grid, (shape, std, expected) in zip(grids, TIMM, strict=True):
        numbers = grid.flatten()
        some = numbers[np.linspace(0, len(numbers) - 1, 5).astype(int)]
        assert tuple(grid.shape) == shape
        np.testing.assert_allclose(float(numbers.std()), std, rtol=1e-4)
        np.testing.assert_allclose(some.numpy(), expected, rtol=0, atol=1e-4 * std)


def test_folding_leaves_the_backbone_as_it_was(pixels: torch.Tensor) -> None:
    backbone = weights_by_name(RepViT())
    before = {name: numbers.clone() for name, numbers in backbone.state_dict().items()}
    copy = folded(backbone)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    after = backbone.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], before[name]) for name in before)
