"""Masks as bits: from SAM's logits to eight pixels in a byte on the device, and back to bool on the CPU.

Knows tensors only. A mask of a photo crosses the bus in an eighth of its bytes, and the CPU never sees logits.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Masks interpolated at once: bounds the memory, about 12 MB for each at 1920 x 1080.
MASKS_AT_ONCE = 16
# Times eight bytes that are 0 or 1, in little-endian order: they meet in the highest byte, the first in its highest
# bit. No two other terms of the product share a bit, so nothing is carried.
_GATHER = 0x8040201008040201 - (1 << 64)  # as a signed number


def full_size(logits: Tensor, square: int, resized_hw: tuple[int, int], size_hw: tuple[int, int]) -> Tensor:
    """(M, h, w) logits over the padded square -> (M, H, W) logits, in float32, on the same device.

    square: the side S of the model's input. resized_hw: the image's size in it, before padding. size_hw: the image's
    own (H, W). Interpolated bilinearly to (S, S), cropped to resized_hw, and interpolated to size_hw, as Hugging Face's
    `post_process_masks` does.
    """
    height, width = resized_hw
    found = F.interpolate(logits[None].float(), (square, square), mode="bilinear", align_corners=False)
    return F.interpolate(found[..., :height, :width], size_hw, mode="bilinear", align_corners=False)[0]


def pack_masks(logits: Tensor, square: int, resized_hw: tuple[int, int], size_hw: tuple[int, int]) -> Tensor:
    """(N, M, h, w) logits over the padded square -> (N, M, H, ceil(W / 8)) uint8, on the same device.

    A pixel is 1 where the logits in `full_size`, which says what the sizes are, are above 0.
    """
    flat = logits.flatten(0, 1)
    packed = torch.empty(len(flat), size_hw[0], -(-size_hw[1] // 8), dtype=torch.uint8, device=logits.device)
    for start in range(0, len(flat), MASKS_AT_ONCE):
        now = slice(start, start + MASKS_AT_ONCE)
        packed[now] = pack_bits(full_size(flat[now], square, resized_hw, size_hw) > 0)
    return packed.unflatten(0, logits.shape[:2])


def pack_bits(mask: Tensor) -> Tensor:
    """(..., W) bool -> (..., ceil(W / 8)) uint8, the first pixel in the highest bit, as `numpy.packbits` does it."""
    mask = F.pad(mask, (0, -mask.shape[-1] % 8)).contiguous()
    return ((mask.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def unpack_bits(packed: np.ndarray, width: int) -> np.ndarray:
    """(..., ceil(W / 8)) uint8 -> (..., W) bool."""
    return np.unpackbits(packed, axis=-1, count=width).view(np.bool_)
