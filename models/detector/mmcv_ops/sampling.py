"""Weighted sums of feature vectors: what every op that looks between pixels comes down to."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from models.detector.mmcv_ops.switch import is_fast

# Numbers that are worked on at a time, in any one array: bounds the memory of an op, however many boxes there are.
AT_ONCE = 4_000_000


def as_table(features: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) features -> (B * H * W, C), one row for each pixel, in float32 or float64."""
    return widened(features).permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def weighted_rows(table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(R, C) table, (M, T) indices of its rows, (M, T) weights -> (M, C): the sum of each T rows, weighted.

    Differentiable by the table and the weights. No array of M x T x C is made, other than in `plain_weighted_rows`,
    which computes the same.
    """
    if not index.numel():
        return table.new_zeros(len(index), table.shape[1])
    if not is_fast():
        return plain_weighted_rows(table, index, weight)
    return F.embedding_bag(index, table, mode="sum", per_sample_weights=weight.to(table.dtype))


def plain_weighted_rows(table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The plain twin of `weighted_rows`, in parts of `AT_ONCE` numbers."""
    its = zip(
        *(each.split(_rows_at_once(index, table.shape[1])) for each in (index, weight.to(table.dtype))), strict=True
    )
    return torch.cat([(table[part] * its_weight[..., None]).sum(1) for part, its_weight in its])


def scatter_rows(table: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, rows: torch.Tensor) -> None:
    """Adds to the table what `weighted_rows` took from it: (M, C) rows, (M, T) indices and weights."""
    step = _rows_at_once(index, rows.shape[1])
    for where, its_weight, its_rows in zip(index.split(step), weight.split(step), rows.split(step), strict=True):
        its = its_weight.to(rows)[..., None] * its_rows[:, None]  # (M, T, C)
        table.index_add_(0, where.reshape(-1), its.flatten(0, 1))


def _rows_at_once(index: torch.Tensor, channels: int) -> int:
    """How many of the (M, T) indices' rows may become arrays of M x T x C."""
    return max(1, AT_ONCE // (index.shape[1] * channels))


def corners(position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The two pixels that a position along one axis lies between, and how far it is to the second.

    position: in pixels, 0 at the centre of the first. Returns low and high (int64, neither clamped) and the fraction.
    """
    low = position.floor()
    return low.long(), low.long() + 1, position - low


def bilinear(y: torch.Tensor, x: torch.Tensor, size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions between pixels, with zeros outside the image, as the deformable convolutions sample.

    y, x: (...) in pixels, 0 at the centre of the first. Returns indices into H * W pixels and weights, (..., 4) each.
    Differentiable by y and x.
    """
    height, width = size_hw
    inside = (y > -1) & (x > -1) & (y < height) & (x < width)
    y, x = y.where(inside, 0), x.where(inside, 0)  # what may be far away or not a number is no index
    index, weight = [], []
    y_low, y_high, y_part = corners(y)
    x_low, x_high, x_part = corners(x)
    for row, row_weight in ((y_low, 1 - y_part), (y_high, y_part)):
        for column, column_weight in ((x_low, 1 - x_part), (x_high, x_part)):
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index.append((row * width + column).where(there, 0))
            weight.append((row_weight * column_weight).where(there, 0))
    return torch.stack(index, -1), torch.stack(weight, -1)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision as float32: too coarse to compare IoUs or sum losses in; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
