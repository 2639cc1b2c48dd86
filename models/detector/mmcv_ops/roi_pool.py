"""RoIPool: the largest value of a region's features in each bin, between whole pixels.

Girshick, "Fast R-CNN", section 2.1.
"""

from __future__ import annotations

import torch

from models.detector.mmcv_ops.sampling import widened


def roi_pool_forward(
    input: torch.Tensor,
    rois: torch.Tensor,
    output: torch.Tensor,
    argmax: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write each region's largest values into `output` (N, C, pooled_height, pooled_width), and where they are.

    input: (B, C, H, W). rois: (N, 5) as index of the image, x1, y1, x2, y2 in pixels of the image, the last included.
    argmax: of the shape of output, int: the pixel, y * W + x; -1 for a bin without any, whose value is 0.
    """
    height, width = int(input.shape[2]), int(input.shape[3])
    corners = widened(rois)
    x1, y1 = (corners[:, 1:3] * spatial_scale).unbind(1)
    x2, y2 = ((corners[:, 3:5] + 1) * spatial_scale).unbind(1)
    images, there = rois[:, 0].tolist(), ((x2 > x1) & (y2 > y1)).tolist()
    rows = _bins(y1, (y2 - y1) / pooled_height, pooled_height, height)
    columns = _bins(x1, (x2 - x1) / pooled_width, pooled_width, width)
    for at, (image, is_region) in enumerate(zip(images, there, strict=True)):
        if not is_region:
            argmax[at] = -1
            continue
        row, row_there = _pixels(*(edge[at] for edge in rows))
        column, column_there = _pixels(*(edge[at] for edge in columns))
        if not row.numel() or not column.numel():
            argmax[at] = -1
            continue
        area = input[int(image)][:, row]  # (C, P, h, W)
        best_row = area.masked_fill(~row_there[:, :, None], -torch.inf).max(2)
        best = best_row.values[:, :, column].masked_fill(~column_there, -torch.inf).max(3)  # of (C, P, P, w)
        found_x = column.expand(*best.indices.shape, -1).gather(-1, best.indices[..., None])[..., 0]
        at_row = best_row.indices.gather(2, found_x)
        found_y = row[None, :, None].expand(*at_row.shape, -1).gather(-1, at_row[..., None])[..., 0]
        is_empty = best.values == -torch.inf
        output[at] = best.values.masked_fill(is_empty, 0)
        argmax[at] = (found_y * width + found_x).masked_fill(is_empty, -1).to(argmax)


def roi_pool_backward(
    grad_output: torch.Tensor,
    rois: torch.Tensor,
    argmax: torch.Tensor,
    grad_input: torch.Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient by the output to that of the pixels it came from, in `grad_input` (B, C, H, W)."""
    channels, pixels = grad_input.shape[1], grad_input.shape[2] * grad_input.shape[3]
    channel = torch.arange(channels, device=argmax.device)[:, None, None]
    index = (rois[:, 0].long()[:, None, None, None] * channels + channel) * pixels + argmax.long()
    there = argmax >= 0
    found = torch.zeros_like(widened(grad_input)).view(-1)
    found.index_add_(0, index[there], widened(grad_output)[there].to(found))
    grad_input += found.view_as(grad_input).to(grad_input)


def _bins(start: torch.Tensor, size: torch.Tensor, bins: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, bins) each: the first pixel of every bin, and the one after its last; inside the image."""
    at = torch.arange(bins, device=start.device, dtype=start.dtype)
    first = (at * size[:, None] + start[:, None]).floor()
    end = ((at + 1) * size[:, None] + start[:, None]).ceil()
    return first.clamp(0, length).long(), end.clamp(0, length).long()


def _pixels(first: torch.Tensor, end: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(bins, most) each: the pixels of every bin, and which of them are in it."""
    most = max(0, int((end - first).max()))
    pixel = first[:, None] + torch.arange(most, device=first.device)
    there = pixel < end[:, None]
    return pixel.where(there, 0), there
