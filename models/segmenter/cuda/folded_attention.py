"""Attention with decomposed relative positions for kernels that take no bias, in plain torch.

A query's bias is a sum of two values, one chosen by the key's row and one by its column. So the query is made longer
by all of its values for rows and for columns, the key by two ones where its own row and column are and zeros
elsewhere, and the bias comes out of their product. PyTorch's fused attention then does the rest, where an
explicit bias would cost memory for every pair of places.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.segmenter.encoder import Relative, attend_fused

# The head dimensions that PyTorch's flash attention for CUDA takes: multiples of the one, up to the other.
_STEP, _MOST = 8, 256


def attend_folded(
    query: Tensor, key: Tensor, value: Tensor, relative: Relative | None, out: Tensor, between: Callable[[], None]
) -> None:
    """Fits `models.segmenter.encoder.Attend`. Where query and bias together are too long, as `attend_fused`."""
    n, heads, height, width, dim = query.shape
    keys_h, keys_w = relative.keys_hw if relative is not None else (0, 0)
    length = -(-(dim + keys_h + keys_w) // _STEP) * _STEP
    if relative is None or length > _MOST:
        attend_fused(query, key, value, relative, out, between)
        return
    by_row, by_column = relative.bias(query.flatten(0, 1), 0)
    long_query = query.new_zeros(n, heads, height, width, length)
    long_query[..., :dim] = query
    # Scores are divided by the root of dim, which is not for the bias.
    torch.mul(by_row.unflatten(0, (n, heads)), dim**0.5, out=long_query[..., dim : dim + keys_h])
    torch.mul(by_column.unflatten(0, (n, heads)), dim**0.5, out=long_query[..., dim + keys_h :][..., :keys_w])
    long_key = key.new_zeros(n, heads, keys_h * keys_w, length)
    long_key[..., :dim] = key
    long_key[..., dim : dim + keys_h + keys_w] = _places(keys_h, keys_w, key)
    long_value = F.pad(value, (0, length - dim))
    attended = F.scaled_dot_product_attention(long_query.flatten(2, 3), long_key, long_value, scale=dim**-0.5)
    out.copy_(attended[..., :dim].unflatten(2, (height, width)).permute(0, 2, 3, 1, 4))
    between()


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(height * width, height + width): a one for each place's row, and one for its column."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.cat([rows, columns], dim=1)
