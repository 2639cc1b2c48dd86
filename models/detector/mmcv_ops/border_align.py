"""BorderAlign: the largest feature along each of a box's four sides.

Qiu et al., "BorderDet: Border Feature for Dense Object Detection", section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from models.detector.mmcv_ops.roi_align import along
from models.detector.mmcv_ops.sampling import AT_ONCE, as_table, weighted_rows, widened


def border_align_forward(
    input: torch.Tensor, boxes: torch.Tensor, output: torch.Tensor, argmax_idx: torch.Tensor, pool_size: int
) -> None:
    """Write the largest sample of each side into `output` (B, C, N, 4), and which it was, from 0 to pool_size.

    input: (B, 4 * C, H, W), features for the top, left, bottom and right sides. boxes: (B, N, 4) as x1, y1, x2, y2 in
    pixels of the features, 0 at the centre of the first.
    """
    channels = input.shape[1] // 4
    table = as_table(input).view(-1, 4, channels).flatten(0, 1)  # a row for each pixel and side
    for image, part, index, weight in _parts(boxes, input.shape, pool_size):
        values = weighted_rows(table, index.view(-1, 4), weight.view(-1, 4))
        best = values.view(*index.shape[:3], channels).max(2)  # over the samples of (n, 4, S, C)
        output[image, :, part] = best.values.permute(2, 0, 1).to(output)
        argmax_idx[image, :, part] = best.indices.permute(2, 0, 1).to(argmax_idx)


def border_align_backward(
    grad_output: torch.Tensor,
    boxes: torch.Tensor,
    argmax_idx: torch.Tensor,
    grad_input: torch.Tensor,
    pool_size: int,
) -> None:
    """Add the gradient by the output to that of the pixels around its sample, in `grad_input` (B, 4 * C, H, W)."""
    batch, channels, height, width = grad_input.shape
    channels //= 4
    found = grad_input.new_zeros(batch * height * width * 4, channels, dtype=widened(grad_input).dtype)
    channel = torch.arange(channels, device=found.device)
    for image, part, index, weight in _parts(boxes, grad_input.shape, pool_size):
        chosen = argmax_idx[image, :, part].permute(1, 2, 0).long()  # (n, 4, C)
        rows = index.gather(2, chosen[..., None].expand(*chosen.shape, 4))  # (n, 4, C, 4)
        weights = weight.gather(2, chosen[..., None].expand(*chosen.shape, 4))
        its = weights * widened(grad_output[image, :, part]).permute(1, 2, 0)[..., None]
        found.view(-1).index_add_(0, (rows * channels + channel[:, None]).reshape(-1), its.reshape(-1).to(found))
    by_pixel = found.view(batch, height, width, 4 * channels)
    grad_input += by_pixel.permute(0, 3, 1, 2).to(grad_input)


def _parts(
    boxes: torch.Tensor, shape: torch.Size, pool_size: int
) -> Iterator[tuple[int, slice, torch.Tensor, torch.Tensor]]:
    """For some boxes at a time: image, which boxes, and the rows and weights (n, 4, S, 4) of the samples."""
    _, channels, height, width = shape
    step = max(1, AT_ONCE // (channels * (pool_size + 1)))
    along_side = torch.arange(pool_size + 1, device=boxes.device, dtype=widened(boxes).dtype) / pool_size
    side = torch.arange(4, device=boxes.device)[:, None, None]
    for image in range(len(boxes)):
        for start in range(0, boxes.shape[1], step):
            part = slice(start, start + step)
            x1, y1, x2, y2 = widened(boxes[image, part])[..., None].unbind(1)  # (n, 1) each
            across, down = (x2 - x1) * along_side, (y2 - y1) * along_side
            still = torch.zeros_like(along_side)
            x = torch.stack([x1 + across, x1 + still, x2 - across, x2 + still], 1)  # (n, 4, S)
            y = torch.stack([y1 + still, y1 + down, y2 + still, y2 - down], 1)
            (rows, row_weights), (columns, column_weights) = along(y[..., None], height), along(x[..., None], width)
            pixel = rows[..., :, None] * width + columns[..., None, :] + image * height * width
            weight = row_weights[..., :, None] * column_weights[..., None, :]
            yield image, part, (pixel * 4 + side[..., None]).flatten(-2), weight.flatten(-2)
