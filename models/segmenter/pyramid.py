"""SAM 2's and SAM 3's features of three grids, out of their backbones: what the published necks give, at less cost.

The published neck makes the encoding of every place of four grids, which nobody reads for single images. Of the two
finest grids it makes 256 channels, of which the decoder's first convolutions leave 64 and 32: here the two
convolutions, of which the second is 1 x 1, are one. SAM 2's is a product with tokens in whatever order they are.

Knows modules and tensors, nothing of images or prompts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Sam2Model, Sam3TrackerModel

from models.segmenter.encoder import UnknownEncoder

# Stages of the backbone, from fine to coarse: details of two grids, then the features themselves and what is added.
QUARTER, HALF, COARSE, COARSER = range(4)


class Pyramid:
    """The neck of a `Sam2Model` and the first convolutions of its decoder; weights are resolved when it is made."""

    def __init__(self, model: Sam2Model) -> None:
        """Raises UnknownEncoder where the neck is not as all published ones are."""
        neck = model.vision_encoder.neck
        laterals = list(neck.convs)[::-1]  # by stage
        plain = all(conv.kernel_size == conv.stride == (1, 1) and conv.padding == (0, 0) for conv in laterals)
        if len(laterals) != 4 or not plain or sorted(neck.fpn_top_down_levels) != [COARSE, COARSER]:
            raise UnknownEncoder("neck: expected 1 x 1 convolutions of four stages, the last two of them added up")
        with torch.no_grad():
            coarse, coarser = ((conv.weight.flatten(1), conv.bias) for conv in laterals[COARSE:])
            self._maps = [
                _of_tokens(*_in_a_row(laterals[QUARTER], model.mask_decoder.conv_s0)),
                _of_tokens(*_in_a_row(laterals[HALF], model.mask_decoder.conv_s1)),
                (coarse[0], coarse[1] + model.no_memory_embedding.flatten()),
                coarser,
            ]

    def empty(self, like: Tensor, grids_hw: list[tuple[int, int]]) -> list[Tensor]:
        """By stage, a place (B, h, w, D) for what `project` makes of its grid."""
        return [like.new_empty(len(like), *hw, len(bias)) for hw, (_, bias) in zip(grids_hw, self._maps, strict=True)]

    def project(self, stage: int, tokens: Tensor) -> Tensor:
        """What is needed of a stage's tokens (..., D): (..., C), C / 4 and C / 8 of the two finest grids."""
        return F.linear(tokens, *self._maps[stage])

    def joined(self, found: list[Tensor]) -> Tensor:
        """What was projected of each stage, (B, h, w, D) -> (B, 4 * C, h, w), see `Sam2Images`; some is overwritten."""
        quarter, half, coarse, coarser = found
        batch, height, width, channels = coarse.shape
        pairs = coarse.view(batch, height // 2, 2, width // 2, 2, channels)
        pairs += coarser[:, :, None, :, None]
        features = coarse.new_empty(batch, 4 * channels, height, width)
        features[:, :channels] = coarse.permute(0, 3, 1, 2)
        # As `fold` of `models.segmenter.fine_decoders` does it, without the grids themselves.
        halves = half.view(batch, height, 2, width, 2, -1).permute(0, 2, 4, 5, 1, 3)
        features[:, channels : 2 * channels].view(halves.shape).copy_(halves)
        quarters = quarter.view(batch, height, 2, 2, width, 2, 2, -1).permute(0, 2, 5, 3, 6, 7, 1, 4)
        features[:, 2 * channels :].view(quarters.shape).copy_(quarters)
        return features


class Sam3Pyramid:
    """The same for a `Sam3TrackerModel`, whose backbone has one stage, made finer or left as it is for each grid."""

    def __init__(self, model: Sam3TrackerModel) -> None:
        quarter, half, coarse = model.vision_encoder.neck.fpn_layers
        with torch.no_grad():
            self._half = _in_a_row(half.proj2, model.mask_decoder.conv_s1)
            self._quarter = _in_a_row(quarter.proj2, model.mask_decoder.conv_s0)
            self._no_memory = model.no_memory_embedding.reshape(1, -1, 1, 1)
        self._finer_half, self._finer_quarter, self._coarse = half, quarter, coarse

    def __call__(self, stage: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, h, w) -> as of `Pyramid`."""
        half, quarter = (_finer(layer, stage) for layer in (self._finer_half, self._finer_quarter))
        found = self._coarse(stage) + self._no_memory
        return found, F.conv2d(half, *self._half, padding=1), F.conv2d(quarter, *self._quarter, padding=1)


def _finer(layer: nn.Module, stage: Tensor) -> Tensor:
    """A layer of SAM 3's neck, but for its last convolution, which is 3 x 3."""
    for step in (*layer.scale_layers, layer.proj1):  # type: ignore[misc]
        stage = step(stage)
    return stage


def _in_a_row(first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that does what the two do in a row, of which the second is 1 x 1."""
    assert first.bias is not None and second.bias is not None
    outer, inner = (conv.weight.flatten(1).double() for conv in (second, first))
    bias = outer @ first.bias.double() + second.bias.double()
    dtype = first.weight.dtype
    return (outer @ inner).unflatten(1, first.weight.shape[1:]).to(dtype), bias.to(dtype)


def _of_tokens(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A 1 x 1 convolution's as those of a linear map."""
    return weight.flatten(1), bias
