"""RoIAlign with mmcv's meaning: bilinear samples of a region's features, their mean or largest in each bin.

He et al., "Mask R-CNN", section 3. The mean of a bin is one weighted sum of pixels: samples that lie between the same
pixels share them. A region has as many samples as its size asks for where `sampling_ratio` is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from models.detector.mmcv_ops.sampling import AT_ONCE, as_table, scatter_rows, weighted_rows, widened

AVERAGE, LARGEST = 1, 0  # mmcv's numbers of its pool modes
NOWHERE = -2.0  # a position without a pixel


class Pooling(NamedTuple):
    """How regions are looked at, besides where they are.

    bins_hw: of the output. image: the features' shape, (B, C, H, W). merges: whether samples are merged to pixels
    before they are looked at. The others are as `roi_align_forward` has them.
    """

    bins_hw: tuple[int, int]
    image: torch.Size
    spatial_scale: float
    sampling_ratio: int
    aligned: bool
    merges: bool


class Regions(NamedTuple):
    """Regions that have the same number of samples in each bin.

    which: (N,) their places among all. image: (N,) the index of each one's image. y, x: (N, P, G) positions of the
    samples along either axis, in pixels of the features, 0 at the centre of the first.
    """

    which: torch.Tensor
    image: torch.Tensor
    y: torch.Tensor
    x: torch.Tensor


def roi_align_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write each region's features into `output`.

    input: (B, C, H, W). rois: (N, 5) as index of the image, x1, y1, x2, y2 in pixels of the image; `spatial_scale`
    makes pixels of the features of them. output: (N, C, aligned_height, aligned_width). argmax_y, argmax_x: of the
    same shape where the largest is taken: the position of that sample, for the gradient.
    """
    size_hw = (int(input.shape[2]), int(input.shape[3]))
    table = as_table(input)
    bins_hw, merges = (aligned_height, aligned_width), pool_mode == AVERAGE
    if pool_mode == LARGEST:
        argmax_y.fill_(NOWHERE)  # of a region without samples
    for regions in in_parts(rois, Pooling(bins_hw, input.shape, spatial_scale, sampling_ratio, aligned, merges)):
        if pool_mode == AVERAGE:
            pooled = _averages(table, regions, size_hw)
        else:
            pooled, y, x = _largest(table, regions, size_hw)
            argmax_y[regions.which], argmax_x[regions.which] = y.to(argmax_y), x.to(argmax_x)
        output[regions.which] = pooled.to(output)


def roi_align_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax_y: torch.Tensor,
    argmax_x: torch.Tensor,
    grad_input: torch.Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient by the features to `grad_input` (B, C, H, W), of that by the output."""
    batch, channels, height, width = grad_input.shape
    found = grad_input.new_zeros(batch * height * width, channels, dtype=widened(grad_input).dtype)
    gradient = widened(grad_output)
    if pool_mode == AVERAGE:
        bins_hw = (aligned_height, aligned_width)
        pooling = Pooling(bins_hw, grad_input.shape, spatial_scale, sampling_ratio, aligned, merges=True)
        for regions in in_parts(rois, pooling):
            index, weight = _taps(regions, (height, width))
            its = gradient[regions.which].permute(0, 2, 3, 1).reshape(-1, channels)
            scatter_rows(found, index, weight, its)
    else:
        for start in range(0, len(rois), step := max(1, AT_ONCE // max(1, 4 * grad_output[:1].numel()))):
            part = slice(start, start + step)
            y, x = widened(argmax_y[part])[..., None], widened(argmax_x[part])[..., None]  # (N, C, P, P, 1)
            (rows, row_weights), (columns, column_weights) = along(y, height), along(x, width)
            pixel = rows[..., :, None] * width + columns[..., None, :]  # (N, C, P, P, 2, 2)
            pixel = pixel + rois[part, 0].long().view(-1, 1, 1, 1, 1, 1) * height * width
            channel = torch.arange(channels, device=pixel.device).view(1, -1, 1, 1, 1, 1)
            weight = row_weights[..., :, None] * column_weights[..., None, :] * gradient[part][..., None, None]
            found.view(-1).index_add_(0, (pixel * channels + channel).reshape(-1), weight.reshape(-1).to(found))
    grad_input += found.view(batch, height, width, channels).permute(0, 3, 1, 2).to(grad_input)


def in_parts(rois: torch.Tensor, pooling: Pooling) -> Iterator[Regions]:
    """The regions, in groups of as many samples, of which no array exceeds `AT_ONCE`."""
    bins_hw, (_, channels, *size_hw), spatial_scale, sampling_ratio, aligned, merges = pooling
    rois = widened(rois)
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (rois[:, 1:] * spatial_scale - shift).unbind(1)
    width, height = x2 - x1, y2 - y1
    if not aligned:  # as it was before `aligned`: never smaller than a pixel
        width, height = width.clamp(min=1), height.clamp(min=1)
    bin_h, bin_w = height / bins_hw[0], width / bins_hw[1]
    if sampling_ratio > 0:
        grid = torch.full_like(rois[:, :2], sampling_ratio, dtype=torch.int64)
    else:
        grid = torch.stack([bin_h, bin_w], 1).ceil().nan_to_num(0, 0, 0).long()
    for samples in grid.unique(dim=0).tolist():
        which = (grid == grid.new_tensor(samples)).all(1).nonzero().squeeze(1)
        if min(samples) <= 0:  # nothing to look at: zeros, as they are there
            continue
        each = bins_hw[0] * bins_hw[1]
        if merges:  # more samples than pixels are as many as pixels
            each *= min(2 * samples[0], size_hw[0]) * min(2 * samples[1], size_hw[1])
        else:
            each *= samples[0] * samples[1] * (4 + channels)
        for part in which.split(max(1, AT_ONCE // each)):
            y = _positions(y1[part], bin_h[part], bins_hw[0], samples[0])
            x = _positions(x1[part], bin_w[part], bins_hw[1], samples[1])
            yield Regions(part, rois[part, 0].long(), y, x)


def _positions(start: torch.Tensor, bin_size: torch.Tensor, bins: int, samples: int) -> torch.Tensor:
    """(N,) starts and sizes -> (N, bins, samples) positions, evenly in each bin."""
    at = torch.arange(bins, device=start.device, dtype=start.dtype)[None, :, None]
    inside = torch.arange(samples, device=start.device, dtype=start.dtype) + 0.5
    start, bin_size = start[:, None, None], bin_size[:, None, None]
    return start + at * bin_size + inside * bin_size / samples


def along(position: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(..., G) positions -> indices of pixels along the axis and their weights, (..., 2 * G) each.

    A sample up to one pixel outside takes the border's value; one further out is zero.
    """
    there = (position >= -1) & (position <= length)
    position = position.where(there, 0).clamp(0, length - 1)
    low = position.floor()
    part = position - low
    weights = torch.stack([(1 - part) * there, part * there], -1)
    low = low.long()
    return torch.stack([low, (low + 1).clamp(max=length - 1)], -1).flatten(-2), weights.flatten(-2)


def _merged(position: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`along` for the sum of all G samples: pixels between which several samples lie are there once.

    Returns (..., K) indices and weights, with K as few as the widest bin spans.
    """
    index, weight = along(position, length)
    first = index.amin(-1, keepdim=True)
    span = int((index.amax(-1, keepdim=True) - first).amax()) + 1
    if span >= index.shape[-1]:
        return index, weight
    merged = weight.new_zeros(*index.shape[:-1], span).scatter_add_(-1, index - first, weight)
    return (first + torch.arange(span, device=first.device)).clamp(max=length - 1), merged


def _taps(regions: Regions, size_hw: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each bin of each region the rows of the table that are its mean, and their weights: (N * P * P, T) each."""
    height, width = size_hw
    (rows, row_weights), (columns, column_weights) = _merged(regions.y, height), _merged(regions.x, width)
    row_weights, column_weights = row_weights / regions.y.shape[-1], column_weights / regions.x.shape[-1]
    rows = rows * width + (regions.image * height * width)[:, None, None]
    index = rows[:, :, None, :, None] + columns[:, None, :, None, :]
    weight = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    taps = index.shape[-2] * index.shape[-1]
    return index.reshape(-1, taps), weight.reshape(-1, taps)


def _averages(table: torch.Tensor, regions: Regions, size_hw: tuple[int, int]) -> torch.Tensor:
    """(N, C, P, P): the mean of the samples of each bin."""
    pooled = weighted_rows(table, *_taps(regions, size_hw))
    return pooled.view(len(regions.which), regions.y.shape[1], regions.x.shape[1], -1).permute(0, 3, 1, 2)


def _largest(
    table: torch.Tensor, regions: Regions, size_hw: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N, C, P, P) each: the largest sample of each bin, and its position along y and x."""
    height, width = size_hw
    count, bins_h, samples_h = regions.y.shape
    bins_w, samples_w = regions.x.shape[1:]
    (rows, row_weights), (columns, column_weights) = along(regions.y, height), along(regions.x, width)
    rows = (rows * width + (regions.image * height * width)[:, None, None]).view(count, bins_h, 1, samples_h, 1, 2, 1)
    index = rows + columns.view(count, 1, bins_w, 1, samples_w, 1, 2)
    weight = row_weights.view(count, bins_h, 1, samples_h, 1, 2, 1) * column_weights.view(
        count, 1, bins_w, 1, samples_w, 1, 2
    )
    values = weighted_rows(table, index.reshape(-1, 4), weight.reshape(-1, 4))
    values = values.view(count, bins_h, bins_w, samples_h * samples_w, -1)
    best = values.max(3)
    row, column = best.indices // samples_w, best.indices % samples_w  # (N, P, P, C)
    y = regions.y[:, :, None, None].expand(*row.shape, -1).gather(-1, row[..., None])[..., 0]
    x = regions.x[:, None, :, None].expand(*row.shape, -1).gather(-1, column[..., None])[..., 0]
    return best.values.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
