"""Linear maps and attention in the shapes that SAM's mask decoder has them: tokens of P prompts, places of B images.

Knows modules and tensors, nothing of prompts or masks.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamAttention


def out_projection(attention: SamAttention) -> nn.Linear:
    """The last projection of an attention, by SAM's name or SAM 2's."""
    return attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj


def attend(attention: SamAttention, placed: Tensor, values: Tensor, present: Tensor | None) -> Tensor:
    """Self-attention of tokens (P, T, C); present: (P, 1, 1, T) bool or None."""
    heads = attention.num_attention_heads
    q, k, v = (
        split_heads(linear(x), heads)
        for linear, x in ((attention.q_proj, placed), (attention.k_proj, placed), (attention.v_proj, values))
    )
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=present)
    return out_projection(attention)(attended.transpose(1, 2).flatten(2))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(P, T, heads * d) -> (P, heads, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def centre(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


def by_head(attention: SamAttention, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """A projection's weight (heads, d, C) and bias (heads, d)."""
    heads = attention.num_attention_heads
    return linear.weight.unflatten(0, (heads, -1)), linear.bias.unflatten(0, (heads, -1))


def project(base: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """base (B, hw, C), weight (heads, d, C), bias (heads, d) -> (B, heads, d, hw)."""
    projected = weight.flatten(0, 1) @ base.transpose(1, 2)
    if bias is not None:
        projected = projected + bias.flatten().unsqueeze(-1)
    return projected.unflatten(1, weight.shape[:2])


def as_linear(conv: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Weight (C, 2 * 2 * D) and bias (2 * 2 * D,) of a transposed convolution from C to D channels."""
    assert conv.bias is not None
    return conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias.repeat(4)


def times(x: Tensor, tables: Tensor, image_of: Tensor) -> Tensor:
    """x (P, heads, T, n) @ tables (B, heads, n, m)[image_of]; prompts of the only image are multiplied as one."""
    if len(tables) > 1:
        return x @ tables[image_of]
    product = x.transpose(0, 1).flatten(1, 2) @ tables[0]  # (heads, P * T, m)
    return product.unflatten(1, (len(x), -1)).transpose(0, 1)


def flat_times(x: Tensor, tables: Tensor, image_of: Tensor) -> Tensor:
    """x (P, ..., n) @ tables (B, n, m)[image_of]."""
    flat = x.flatten(1, -2)
    product = flat @ tables[image_of] if len(tables) > 1 else flat.flatten(0, 1) @ tables[0]
    return product.view(*x.shape[:-1], -1)
