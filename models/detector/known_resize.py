"""The usual test pipeline of MMDetection's configs, without its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.detector.protocol import ChannelOrder


@dataclass(frozen=True)
class KnownResize:
    """What the usual test pipeline does (load, resize by OpenCV with the ratio kept, pack), without its steps.

    scale: the sides that the image is resized to fit. meta_keys: what is noted of it, as far as it exists.
    """

    scale: tuple[int, int]
    meta_keys: tuple[str, ...]

    @classmethod
    def find(cls, transforms: Sequence[Any]) -> KnownResize | None:
        """None for any other pipeline."""
        from mmdet.datasets.transforms import LoadImageFromNDArray, PackDetInputs, Resize

        if [type(transform) for transform in transforms] != [LoadImageFromNDArray, Resize, PackDetInputs]:
            return None
        load, resize, pack = transforms
        kept = resize.keep_ratio, resize.backend, resize.interpolation
        if load.to_float32 or kept != (True, "cv2", "bilinear") or not isinstance(resize.scale, tuple):
            return None
        if not {"img_shape", "scale_factor"} <= set(pack.meta_keys) <= set(cls._NOTED):
            return None
        return cls(resize.scale, tuple(pack.meta_keys))

    # The last two exist only where a step flips.
    _NOTED = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")

    def __call__(self, image: np.ndarray, channel_order: ChannelOrder) -> tuple[torch.Tensor, dict[str, Any]]:
        """(H, W, 3) uint8 RGB -> (3, h, w) uint8 in the given order, channels last in memory, and its metainfo."""
        import cv2
        from mmcv.image import rescale_size

        height, width = image.shape[:2]
        new_width, new_height = rescale_size((width, height), self.scale)
        resized = cv2.resize(np.ascontiguousarray(image), (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        if channel_order == "bgr":
            resized = cv2.cvtColor(resized, cv2.COLOR_RGB2BGR)
        noted = {
            "img_id": 0,
            "img_path": None,
            "ori_shape": (height, width),
            "img_shape": (new_height, new_width),
            "scale_factor": (new_width / width, new_height / height),
        }
        metainfo = {key: noted[key] for key in self.meta_keys if key in noted}
        return torch.from_numpy(resized).permute(2, 0, 1), metainfo
