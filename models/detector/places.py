"""How large an image must be for detectors that choose their queries among its places: DINO and its kin.

They take the best few hundred places of all feature maps, and fail where there are not as many: on a photo that is very
long, or resized to be small. Such an image gets an empty border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

_PROBE = 128  # pixels of the image that tells the strides


@dataclass(frozen=True)
class Places:
    """count: the queries. strides: of the feature maps, in pixels. divisor: to which images are padded anyway."""

    count: int
    strides: tuple[int, ...]
    divisor: int

    @classmethod
    def of(cls, model: Any) -> Places | None:
        """Of a built model of MMDetection, on the CPU; None if it does not choose its queries so."""
        if not getattr(model, "as_two_stage", False):
            return None
        with torch.inference_mode():
            maps = model.extract_feat(torch.zeros(1, 3, _PROBE, _PROBE))
        strides = tuple(_PROBE // one.shape[-1] for one in maps)
        return cls(model.num_queries, strides, getattr(model.data_preprocessor, "pad_size_divisor", 1))

    @classmethod
    def of_huggingface(cls, network: Any) -> Places | None:
        """The same of a network of transformers."""
        config = network.config
        if not getattr(config, "two_stage", False):
            return None
        count = getattr(config, "two_stage_num_proposals", None) or config.num_queries
        with torch.inference_mode():
            maps = network.model.backbone(torch.zeros(1, 3, _PROBE, _PROBE), torch.ones(1, _PROBE, _PROBE).long())
        if isinstance(maps, tuple):  # Grounding DINO's, with their positions
            maps = maps[0]
        strides = [_PROBE // one.shape[-1] for one, _ in maps]
        while len(strides) < config.num_feature_levels:
            strides.append(2 * strides[-1])
        return cls(count, tuple(strides), 1)

    def enough(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., h, w) -> the same with zeros below or on the right, as many as are needed; most often none."""
        height, width = inputs.shape[-2:]
        while self._within(height, width) < self.count:
            if height < width:
                height += self.strides[0]
            else:
                width += self.strides[0]
        return functional.pad(inputs, (0, width - inputs.shape[-1], 0, height - inputs.shape[-2]))

    def _within(self, height: int, width: int) -> int:
        height, width = (math.ceil(side / self.divisor) * self.divisor for side in (height, width))
        return sum(math.ceil(height / stride) * math.ceil(width / stride) for stride in self.strides)
