"""Non-maximum suppression for detectors that need none of their own, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def suppressed(boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Which of the boxes are kept: (K,) indices, best score first.

    Of two boxes (N, 4) of one label that overlap by more than `iou_threshold`, the one with the lower score goes; of
    equal ones, the later.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    boxes, classes = boxes_xyxy[order].float(), labels[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        low = torch.maximum(boxes[index, :2], boxes[index + 1 :, :2])
        high = torch.minimum(boxes[index, 2:], boxes[index + 1 :, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        together = (areas[index] + areas[index + 1 :] - shared).clamp(min=1e-12)
        alive[index + 1 :] &= (shared / together <= iou_threshold) | (classes[index + 1 :] != classes[index])
    return order[alive]
