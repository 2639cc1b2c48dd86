"""Attention with decomposed relative positions, in the ways that SAM's encoder chooses among.

In steps: bmm, softmax and bmm on scores that stay in the processor's cache. Fused: PyTorch's own attention, with the
bias built for a part of the queries. Folded: PyTorch's own without a bias. A query's bias is a sum of two values, one
chosen by the key's row and one by its column. So the query is made longer by all of its values for rows and for
columns, the key by two ones where its own row and column are and zeros elsewhere, and the bias comes out of their
product.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from models.segmenter.trials import least_seconds

# Attention scores at once. In steps, as many per thread as its cache holds; fused, as many as make it worth while to
# turn keys and values into the matrix units' layout again; off the CPU, as many as memory is happy to spare.
_SCORES_IN_STEPS, _SCORES_FUSED, _SCORES_ELSEWHERE = 1 << 20, 4 << 20, 256 << 20
# Folded heads have a length that is a multiple of this, by kind of device, and at most this: what flash attention takes
# for CUDA, and what the matrix units of a processor multiply at once.
_STEP, _MOST = {"cpu": 32, "cuda": 8}, 256
# Scores of a window in all heads from which on it is worth trying; where there are fewer, every start rounds alike.
_LEAST_SCORES = 3 << 17


@dataclass(frozen=True, eq=False)
class Relative:
    """Relative position embeddings of keys on a (kh, kw) grid, as they are multiplied with queries.

    table: (D, 2 kh - 1 + 2 kw - 1). First the rows' embeddings from distance kh - 1 down to 1 - kh (query's row
    minus key's row), then the columns' likewise. In this order the embeddings of one query's keys are neighbours.
    """

    table: Tensor
    keys_hw: tuple[int, int]

    def bias(self, query: Tensor, first_row: int) -> tuple[Tensor, Tensor]:
        """The two terms (b, r, qw, kh) and (b, r, qw, kw) that a query's score with a key at (row, column) gains.

        query: (b, r, qw, D), unscaled; the grid's rows from `first_row`, its columns from 0. The terms are
        MViTv2's decomposed relative positions (https://arxiv.org/abs/2112.01526, eq. 4).
        """
        b, rows, columns, _ = query.shape
        kh, kw = self.keys_hw
        product = torch.bmm(query.flatten(1, 2), self.table.expand(b, -1, -1))  # (b, r qw, distances)
        width = product.shape[-1]
        # A step to the next row moves a query's keys one distance back; so does a step to the next column.
        one, row = rows * columns * width, columns * width
        by_row = product.as_strided((b, rows, columns, kh), (one, row - 1, width, 1), kh - 1 - first_row)
        by_column = product.as_strided((b, rows, columns, kw), (one, row, width - 1, 1), 2 * kh - 1 + kw - 1)
        return by_row, by_column


# query (n, heads, qh, qw, D), key and value (n, heads, kh kw, D), their relative positions, out (n, qh, qw, heads, D),
# and what to call between pieces. The queries' grid is the upper left part of the keys'. `out` is written, and query,
# key and value may be views of one tensor with any strides but the last.
Attend = Callable[[Tensor, Tensor, Tensor, Relative | None, Tensor, Callable[[], None]], None]


def attend_in_steps(
    query: Tensor, key: Tensor, value: Tensor, relative: Relative | None, out: Tensor, between: Callable[[], None]
) -> None:
    """Attention by bmm, softmax and bmm, on scores that stay in the cache. Fits `Attend`."""
    n, heads, height, width, dim = query.shape
    tokens = key.shape[2]
    _, together, rows = _at_once(_SCORES_IN_STEPS * torch.get_num_threads(), n, heads, height, width * tokens)
    scores = query.new_empty(together * rows * width * tokens)
    for i in range(n):
        for h in range(0, heads, together):
            k, v = key[i, h : h + together], value[i, h : h + together]
            if rows < height:  # used often: neighbours in memory are read faster
                k, v = k.contiguous(), v.contiguous()
            k = k.transpose(1, 2)
            for r in range(0, height, rows):
                q = query[i, h : h + together, r : r + rows]  # (b, r, qw, D)
                b, here = q.shape[:2]
                now = scores[: b * here * width * tokens].view(b, here * width, tokens)
                if relative is not None:
                    by_row, by_column = relative.bias(q, r)
                    spread = now.view(b, here, width, *relative.keys_hw)
                    torch.add(by_row.unsqueeze(-1), by_column.unsqueeze(-2), out=spread)
                torch.baddbmm(now, q.flatten(1, 2), k, beta=0 if relative is None else 1, alpha=dim**-0.5, out=now)
                torch.softmax(now, dim=-1, out=now)
                attended = torch.bmm(now, v).view(b, here, width, dim)
                out[i, r : r + rows, :, h : h + together] = attended.permute(1, 2, 0, 3)
                between()


def attend_fused(
    query: Tensor, key: Tensor, value: Tensor, relative: Relative | None, out: Tensor, between: Callable[[], None]
) -> None:
    """Attention by torch's scaled_dot_product_attention, its bias built for a part of the queries. Fits `Attend`."""
    n, heads, height, width, _ = query.shape
    tokens = key.shape[2]
    limit = _SCORES_FUSED * torch.get_num_threads() if query.device.type == "cpu" else _SCORES_ELSEWHERE
    images, together, rows = _at_once(limit, n, heads, height, width * tokens)
    for i, h in itertools.product(range(0, n, images), range(0, heads, together)):
        part = (slice(i, i + images), slice(h, h + together))
        for r in range(0, height, rows):
            q = query[part][:, :, r : r + rows]  # (m, b, r, qw, D)
            m, b, here = q.shape[:3]
            mask = None
            if relative is not None:
                by_row, by_column = relative.bias(q.flatten(0, 1), r)
                spread = by_row.unsqueeze(-1) + by_column.unsqueeze(-2)
                mask = spread.reshape(m, b, here * width, tokens)
            attended = F.scaled_dot_product_attention(q.flatten(2, 3), key[part], value[part], attn_mask=mask)
            attended = attended.unflatten(2, (here, width)).permute(0, 2, 3, 1, 4)
            out[i : i + images, r : r + rows, :, h : h + together] = attended
            between()


def _at_once(limit: int, images: int, heads: int, rows: int, each: int) -> tuple[int, int, int]:
    """How many images, heads of an image and rows of a head to take at once, for at most `limit` scores.

    each: the scores of one row of queries in one head. Rows are taken first, since they share keys and values.
    """
    return (
        min(images, max(1, limit // (each * rows * heads))),
        min(heads, max(1, limit // (each * rows))),
        min(rows, max(1, limit // each)),
    )


def attend_folded(
    query: Tensor, key: Tensor, value: Tensor, relative: Relative | None, out: Tensor, between: Callable[[], None]
) -> None:
    """Attention by torch's scaled_dot_product_attention, its bias in longer heads. Fits `Attend`.

    Where query and bias together are too long, as `attend_fused`.
    """
    n, heads, height, width, dim = query.shape
    length = None if relative is None else _folded_length(dim, relative.keys_hw, query.device)
    if relative is None or length is None:
        attend_fused(query, key, value, relative, out, between)
        return
    images, together = n, heads
    if query.device.type == "cpu":
        limit = _SCORES_FUSED * torch.get_num_threads()
        images, together, _ = _at_once(limit, n, heads, height, width * key.shape[2])
    for i, h in itertools.product(range(0, n, images), range(0, heads, together)):
        part = (slice(i, i + images), slice(h, h + together))
        _attend_folded(query[part], key[part], value[part], relative, out[i : i + images, :, :, part[1]], length)
        between()


def _attend_folded(query: Tensor, key: Tensor, value: Tensor, relative: Relative, out: Tensor, length: int) -> None:
    n, heads, height, width, dim = query.shape
    keys_h, keys_w = relative.keys_hw
    by_row, by_column = relative.bias(query.flatten(0, 1), 0)
    rows, columns, rest = (
        slice(dim, dim + keys_h),
        slice(dim + keys_h, dim + keys_h + keys_w),
        slice(dim + keys_h + keys_w, None),
    )
    long_query = query.new_empty(n, heads, height, width, length)
    long_query[..., :dim] = query
    # Scores are divided by the root of dim, which is not for the bias.
    torch.mul(by_row.unflatten(0, (n, heads)), dim**0.5, out=long_query[..., rows])
    torch.mul(by_column.unflatten(0, (n, heads)), dim**0.5, out=long_query[..., columns])
    long_query[..., rest] = 0
    long_key, long_value = (key.new_empty(n, heads, keys_h * keys_w, length) for _ in range(2))
    long_key[..., :dim] = key
    long_key[..., dim : rest.start] = _places(keys_h, keys_w, key)
    long_key[..., rest] = 0
    long_value[..., :dim] = value
    long_value[..., dim:] = 0
    attended = F.scaled_dot_product_attention(long_query.flatten(2, 3), long_key, long_value, scale=dim**-0.5)
    out.copy_(attended[..., :dim].unflatten(2, (height, width)).permute(0, 2, 3, 1, 4))


def _folded_length(dim: int, keys_hw: tuple[int, int], device: torch.device) -> int | None:
    step = _STEP["cuda" if device.type == "cuda" else "cpu"]
    length = -(-(dim + sum(keys_hw)) // step) * step
    return length if length <= _MOST else None


def _places(height: int, width: int, like: Tensor) -> Tensor:
    """(height * width, height + width): a one for each place's row, and one for its column."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, dim=0)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.cat([rows, columns], dim=1)


@lru_cache(maxsize=64)
def fastest_reduced(heads: int, dim: int, keys_hw: tuple[int, int] | None, dtype: torch.dtype, threads: int) -> Attend:
    """Of fused and folded, the one that takes less time on this processor for windows of this size, tried once.

    keys_hw: None where there are no relative positions. threads: that torch computes with.
    """
    if keys_hw is None or _folded_length(dim, keys_hw, torch.device("cpu")) is None:
        return attend_fused
    tokens = keys_hw[0] * keys_hw[1]
    if heads * tokens**2 < _LEAST_SCORES:
        return attend_fused
    generator = torch.Generator().manual_seed(0)  # the process's own is not touched
    some = max(1, min(heads, _SCORES_FUSED // tokens**2))
    with torch.no_grad():
        query, key, value = torch.randn(3, 1, some, tokens, dim, generator=generator).to(dtype)
        table = torch.randn(dim, 2 * sum(keys_hw) - 2, generator=generator).to(dtype)
        relative, out = Relative(table, keys_hw), query.new_empty(1, *keys_hw, some, dim)
        query = query.unflatten(2, keys_hw)
        seconds = least_seconds(
            {
                "fused": lambda: attend_fused(query, key, value, relative, out, lambda: None),
                "folded": lambda: attend_folded(query, key, value, relative, out, lambda: None),
            }
        )
    return attend_folded if seconds["folded"] < seconds["fused"] else attend_fused
