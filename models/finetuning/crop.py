"""A crop that loses no object."""

from __future__ import annotations

from typing import Any

import numpy as np


class SafeCrop:
    """Cuts out a part of an image at random that holds all of its boxes whole.

    A transform of MMDetection's: results have "img" (H, W, 3), "gt_bboxes" inside it and perhaps "gt_masks". Each side
    of the part is `least` of the image's at the least, longer where the boxes need it, and any of what is then possible
    is as likely.
    """

    def __init__(self, least: float) -> None:
        self._least = least

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        image, boxes = results["img"], results["gt_bboxes"]
        edges = boxes.tensor.numpy()  # (N, 4) x1, y1, x2, y2
        left, right = self._draw(edges[:, 0], edges[:, 2], image.shape[1])
        top, bottom = self._draw(edges[:, 1], edges[:, 3], image.shape[0])
        results["img"] = image[top:bottom, left:right]
        results["img_shape"] = (bottom - top, right - left)
        boxes.translate_([-left, -top])
        if "gt_masks" in results:
            results["gt_masks"] = results["gt_masks"].crop(np.array([left, top, right, bottom]))
        return results

    def _draw(self, starts: np.ndarray, ends: np.ndarray, length: int) -> tuple[int, int]:
        """Where the part begins and ends along one side of the image, in pixels."""
        first = int(np.floor(starts.min())) if len(starts) else length
        last = int(np.ceil(ends.max())) if len(ends) else 0
        size = np.random.randint(max(int(np.ceil(self._least * length)), last - first), length + 1)
        begin = np.random.randint(max(0, last - size), min(first, length - size) + 1)
        return begin, begin + size
