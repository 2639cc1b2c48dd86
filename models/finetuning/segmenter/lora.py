"""A SAM's image encoder that learns by low-rank matrices beside its attention's, which then become part of these.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. The encoder runs as published, with
gradients, in every step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models.finetuning.checkpoint_files import TrainingError
from models.segmenter.sam import Sam
from models.square_images import Sample

ALPHA = 2.0  # what the product of the matrices is multiplied by: alpha / rank in the paper, here without the rank


class LowRank(nn.Module):
    """A weight (out, in) plus ALPHA * up @ down, which is nothing at first."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        down = torch.empty(rank, weight.shape[1]).uniform_(-1, 1, generator=generator) / math.sqrt(weight.shape[1])
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + ALPHA * self.up @ self.down


class LoraEncoder(nn.Module):
    """The image encoder of a SAM with such matrices beside the projections of every attention."""

    def __init__(self, sam: Sam, rank: int, seed: int) -> None:
        """sam: as published (`fast=False`), in float32. Raises TrainingError for an encoder without attention."""
        super().__init__()
        self._sam = sam
        self._names = list(_projections(sam.model))
        if not self._names:
            raise TrainingError(
                f"train: the image encoder of {type(sam).__name__} has no attention for encoder-lora to learn in: "
                "expected decoder"
            )
        generator = torch.Generator().manual_seed(seed)
        added = []
        for name in self._names:
            linear = sam.model.get_submodule(name)
            added.append(LowRank(linear.weight, rank, generator))
            parametrize.register_parametrization(linear, "weight", added[-1])
        self.added = nn.ModuleList(added)

    def features(self, samples: Sequence[Sample]) -> Tensor:
        """(B, C, h, w), as embeddings hold them; with gradients where torch keeps them."""
        device = self._sam.device
        half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return self._sam.published_features(self._sam.pixels(samples)).float()

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """The weights that learnt, by their names in the network, with what was learnt in them; on the CPU."""
        return {
            f"{name}.weight": self._sam.model.get_submodule(name).weight.detach().cpu().clone() for name in self._names
        }


def _projections(model: nn.Module) -> Iterator[str]:
    """The names of every attention's qkv and proj in the image encoder."""
    for name, module in model.named_modules():
        if not name.startswith("vision_encoder."):
            continue
        both = [getattr(module, part, None) for part in ("qkv", "proj")]
        if all(isinstance(one, nn.Linear) for one in both):
            yield from (f"{name}.qkv", f"{name}.proj")
