"""Padding around an image, as keypoint detectors (CornerNet, CenterNet) have it, that takes the objects along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class CentrePad:
    """MMDetection's RandomCenterCropPad in its test mode, which pads all around an image and leaves boxes where they
    were; here boxes and masks move with the image.

    A transform of MMDetection's: results have "img" (H, W, 3) float32, perhaps "gt_bboxes" and "gt_masks".
    """

    def __init__(self, pad: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """pad: the transform itself."""
        self._pad = pad

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        results = self._pad(results)
        top, _, left, _ = map(int, results["border"])  # where the image begins and ends: y, y, x, x
        if "gt_bboxes" in results:
            results["gt_bboxes"].translate_([left, top])
        if "gt_masks" in results:
            results["gt_masks"] = results["gt_masks"].expand(*results["img_shape"], top, left)
        return results
