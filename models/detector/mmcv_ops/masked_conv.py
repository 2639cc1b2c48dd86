"""Masked convolution: only where a mask says so. The product between these two steps is mmcv's own, in Python."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def masked_im2col_forward(
    im: torch.Tensor,
    mask_h_idx: torch.Tensor,
    mask_w_idx: torch.Tensor,
    col: torch.Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write what the kernel sees at each place of the mask into `col` (C * kernel_h * kernel_w, M), zeros outside.

    im: (B, C, H, W), of which the first image is taken, as the compiled op does. mask_h_idx, mask_w_idx: (M,) places of
    the output.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    taps = [padded[:, mask_h_idx + down, mask_w_idx + right] for down in range(kernel_h) for right in range(kernel_w)]
    col.copy_(torch.stack(taps, 1).view_as(col))


def masked_col2im_forward(
    col: torch.Tensor,
    mask_h_idx: torch.Tensor,
    mask_w_idx: torch.Tensor,
    im: torch.Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write (C, M) values to their places in the first image of `im` (B, C, height, width)."""
    im[0][:, mask_h_idx, mask_w_idx] = col.to(im)
