"""Deformable RoI pooling: RoIAlign whose bins are moved by offsets.

Dai et al., "Deformable Convolutional Networks", section 2.2. The modulated form multiplies the result, outside the op.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from models.detector.mmcv_ops import roi_align
from models.detector.mmcv_ops.roi_align import Regions
from models.detector.mmcv_ops.sampling import as_table, weighted_rows, widened


def deform_roi_pool_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    offset: torch.Tensor,
    output: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write each region's features into `output` (N, C, pooled_height, pooled_width).

    input: (B, C, H, W). rois: (N, 5) as index of the image, x1, y1, x2, y2 in pixels of the image. offset: (N, 2,
    pooled_height, pooled_width), x before y, in `gamma` times the region's width and height; or empty for none.
    """
    table = as_table(input)
    for regions in _regions(input.shape, rois, pooled_height, pooled_width, spatial_scale, sampling_ratio):
        found = _pooled(table, regions, rois, _of(offset, regions), input.shape, spatial_scale, gamma)
        output[regions.which] = found.to(output)


def deform_roi_pool_backward(
    grad_output: torch.Tensor,
    input: torch.Tensor,
    rois: torch.Tensor,
    offset: torch.Tensor,
    grad_input: torch.Tensor,
    grad_offset: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Add the gradients by the features and by the offsets."""
    table = as_table(input).detach().requires_grad_()
    batch, channels, height, width = input.shape
    for regions in _regions(input.shape, rois, pooled_height, pooled_width, spatial_scale, sampling_ratio):
        its = _of(offset, regions)
        wanted = [table] if its is None else [table, its.requires_grad_()]
        with torch.enable_grad():
            found = _pooled(table, regions, rois, its, input.shape, spatial_scale, gamma)
        by_table, *by_offset = torch.autograd.grad(found, wanted, widened(grad_output)[regions.which].to(found))
        grad_input += by_table.view(batch, height, width, channels).permute(0, 3, 1, 2).to(grad_input)
        if by_offset:
            grad_offset[regions.which] += by_offset[0].to(grad_offset)


def _regions(
    shape: torch.Size, rois: torch.Tensor, height: int, width: int, scale: float, sampling_ratio: int
) -> Iterator[Regions]:
    pooling = roi_align.Pooling((height, width), shape, scale, sampling_ratio, aligned=True, merges=False)
    return roi_align.in_parts(rois, pooling)


def _of(offset: torch.Tensor, regions: Regions) -> torch.Tensor | None:
    return widened(offset[regions.which]).detach() if offset.numel() else None


def _pooled(
    table: torch.Tensor,
    regions: Regions,
    rois: torch.Tensor,
    offset: torch.Tensor | None,
    shape: torch.Size,
    scale: float,
    gamma: float,
) -> torch.Tensor:
    """(N, C, P, P). Differentiable by the table and the offsets (N, 2, P, P)."""
    _, channels, height, width = shape
    count, bins_h, samples_h = regions.y.shape
    bins_w, samples_w = regions.x.shape[1:]
    y = regions.y[:, :, None].expand(-1, -1, bins_w, -1)  # (N, P, P, G)
    x = regions.x[:, None].expand(-1, bins_h, -1, -1)
    if offset is not None:
        corners = widened(rois)[regions.which] * scale
        y = y + (gamma * (corners[:, 4] - corners[:, 2]))[:, None, None, None] * offset[:, 1, ..., None]
        x = x + (gamma * (corners[:, 3] - corners[:, 1]))[:, None, None, None] * offset[:, 0, ..., None]
    (rows, row_weights), (columns, column_weights) = roi_align.along(y, height), roi_align.along(x, width)
    first = (regions.image * height * width)[:, None, None, None, None]
    index = rows[..., :, None] * width + columns[..., None, :] + first
    weight = row_weights[..., :, None] * column_weights[..., None, :] / (samples_h * samples_w)
    taps = index.shape[-1] * index.shape[-2]
    found = weighted_rows(table, index.reshape(-1, taps), weight.reshape(-1, taps))
    return found.view(count, bins_h, bins_w, channels).permute(0, 3, 1, 2)
