"""The usual data preprocessor of MMDetection's configs, without its passes over the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.pixel_table import look_up


@dataclass(frozen=True, eq=False)
class KnownNormalizing:
    """What MMDetection's DetDataPreprocessor does to images on a processor: normalise, and pad at the right and below.

    numbers: (256, 3) float32, what each byte of each channel becomes. swaps: whether the channels change order.
    divisor: of which the padded sides are multiples. padding: what stands there.
    """

    numbers: Tensor
    swaps: bool
    divisor: int
    padding: float

    @classmethod
    def find(cls, preprocessor: Any) -> KnownNormalizing | None:
        """None for any other preprocessor, one on another device, and one that does not normalise three channels."""
        from mmdet.models.data_preprocessors import DetDataPreprocessor

        if type(preprocessor) is not DetDataPreprocessor or not preprocessor._enable_normalize:
            return None
        mean, std = preprocessor.mean.flatten(), preprocessor.std.flatten()
        if mean.device.type != "cpu" or mean.shape != (3,) or std.shape != (3,):
            return None
        numbers = (torch.arange(256, dtype=torch.float32).unsqueeze(1) - mean) / std
        divisor, swaps = preprocessor.pad_size_divisor, preprocessor._channel_conversion
        return cls(numbers, bool(swaps), divisor, float(preprocessor.pad_value))

    def __call__(self, images: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, list[dict[str, Any]]]:
        """(3, h, w) uint8 each -> (B, 3, H, W) in `dtype`, channels last in memory, and what is noted of each image."""
        sides = [[math.ceil(side / self.divisor) * self.divisor for side in image.shape[1:]] for image in images]
        height, width = (max(side) for side in zip(*sides, strict=True))
        padded = torch.full((len(images), height, width, 3), self.padding, dtype=dtype)
        for image, into in zip(images, padded, strict=True):
            pixels = image.permute(1, 2, 0)
            if self.swaps:
                pixels = pixels.flip(-1)
            look_up(self.numbers, pixels.contiguous().numpy(), into[: pixels.shape[0], : pixels.shape[1]])
        noted = [{"batch_input_shape": (height, width), "pad_shape": tuple(side)} for side in sides]
        return padded.permute(0, 3, 1, 2), noted
