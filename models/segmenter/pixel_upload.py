"""Images on their way to a device as bytes, to be normalised there: a quarter of what float32 would send.

Knows pixels and tensors, nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.pixel_table import look_up


def upload(images: Sequence[np.ndarray], side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """RGB images (h, w, 3) uint8 with no side above `side` -> on the device: pixels (B, side, side, 3) uint8 with
    each image at the top left, what is beyond it undefined, and sizes (B, 2) int32, each (h, w).

    On CUDA the copy is queued on the current stream and this returns at once.
    """
    on_cuda = device.type == "cuda"
    pixels = torch.empty(len(images), side, side, 3, dtype=torch.uint8, pin_memory=on_cuda)
    sizes = torch.empty(len(images), 2, dtype=torch.int32, pin_memory=on_cuda)
    for image, its_pixels, its_size in zip(images, pixels.numpy(), sizes.numpy(), strict=True):
        height, width = image.shape[:2]
        its_pixels[:height, :width] = image
        its_size[:] = height, width
    # PyTorch keeps pinned memory until the copies that read it are done.
    return pixels.to(device, non_blocking=True), sizes.to(device, non_blocking=True)


def normalize(pixels: Tensor, sizes: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """What `upload` returns -> (B, 3, S, S) in `dtype`: normalised in float32, and zero beyond each image.

    mean, std: (3,) float32 on the device, of RGB in 0..1.
    """
    if pixels.device.type == "cpu":
        return _by_table(pixels.numpy(), sizes.tolist(), mean, std, dtype)
    side = pixels.shape[1]
    normalized = (pixels / 255 - mean) / std  # (B, S, S, 3)
    place = torch.arange(side, device=pixels.device)
    inside = (place < sizes[:, :1]).unsqueeze(2) & (place < sizes[:, 1:]).unsqueeze(1)  # (B, S, S)
    return torch.where(inside.unsqueeze(-1), normalized, 0.0).to(dtype).permute(0, 3, 1, 2)


def _by_table(pixels: np.ndarray, sizes: list[list[int]], mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """The same numbers, looked up within each image alone."""
    numbers = (torch.arange(256, dtype=torch.uint8).unsqueeze(1) / 255 - mean) / std  # (256, 3)
    normalized = torch.zeros(pixels.shape, dtype=dtype)
    for image, (height, width), into in zip(pixels, sizes, normalized, strict=True):
        look_up(numbers, image[:height, :width], into[:height, :width])
    return normalized.permute(0, 3, 1, 2)
