"""A layer of GLIP's head that reads the texts again: BERT's, in plain torch, with values kept within half's range.

mmdet 3.3.0 makes it of transformers' parts, which transformers 5 has elsewhere, or with other arguments.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

# What mmdet 3.3.0 clamps to.
_LIMIT = 50000.0


class GlipTextLayer(nn.Module):
    """In place of mmdet's `BertEncoderLayer`, with its weights' names. It knows no dropout, which is of training."""

    def __init__(self, config: Any, clamp_min_for_underflow: bool = True, clamp_max_for_overflow: bool = True) -> None:
        """config: transformers' BertConfig."""
        from transformers.activations import ACT2FN

        super().__init__()
        size, inner = config.hidden_size, config.intermediate_size
        self._heads = config.num_attention_heads
        self._lowest = -_LIMIT if clamp_min_for_underflow else -math.inf
        self._highest = _LIMIT if clamp_max_for_overflow else math.inf
        self._activation = ACT2FN[config.hidden_act]
        norm = {"eps": config.layer_norm_eps}
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(size, size) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict({"dense": nn.Linear(size, size), "LayerNorm": nn.LayerNorm(size, **norm)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(size, inner)})
        self.output = nn.ModuleDict({"dense": nn.Linear(inner, size), "LayerNorm": nn.LayerNorm(size, **norm)})

    def forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """inputs: `visual`, which stays, and `lang` with `hidden` (N, tokens, C) and `masks` (N, tokens)."""
        language = inputs["lang"]
        language["hidden"] = self._layer(language["hidden"], language["masks"])
        return {"visual": inputs["visual"], "lang": language}

    def _layer(self, hidden: Tensor, masks: Tensor) -> Tensor:
        attended = self.attention["output"]["dense"](self._attention(hidden, masks))  # type: ignore[index]
        hidden = self.attention["output"]["LayerNorm"](attended + hidden)  # type: ignore[index]
        inner = _clamped(self._activation(_clamped(self.intermediate["dense"](hidden))))
        return _clamped(self.output["LayerNorm"](_clamped(self.output["dense"](inner)) + hidden))

    def _attention(self, hidden: Tensor, masks: Tensor) -> Tensor:
        batch, tokens, size = hidden.shape
        query, key, value = (
            self.attention["self"][name](hidden).view(batch, tokens, self._heads, -1).transpose(1, 2)  # type: ignore[index]
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(size // self._heads)
        scores = scores.clamp(self._lowest, self._highest)
        unseen = masks[:, None, None, :] == 0
        scores = scores + unseen.to(scores.dtype) * torch.finfo(scores.dtype).min
        return (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, size)


def _clamped(values: Tensor) -> Tensor:
    return values.clamp(-_LIMIT, _LIMIT)
