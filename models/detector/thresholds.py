"""Which of the boxes that a network selected itself are kept, and in what order."""

from __future__ import annotations

import torch
from torch import Tensor

from models.detector.mmcv_ops.suppression import nms


def kept(
    boxes_xyxy: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    max_detections: int | None = None,
) -> Tensor:
    """The places of the boxes (N, 4) that remain, best first; of equal scores the first box comes first.

    score_threshold: what scores strictly above it. iou_threshold: of boxes of one label that overlap strictly more, the
    best. max_detections: then this many. None narrows nothing.
    """
    places = torch.argsort(scores, descending=True, stable=True)
    if score_threshold is not None:
        places = places[scores[places] > score_threshold]
    if iou_threshold is not None:
        remain = torch.zeros(len(places), dtype=torch.bool)
        for label in labels[places].unique():
            (of_label,) = torch.where(labels[places] == label)
            remain[of_label[nms(boxes_xyxy[places][of_label], scores[places][of_label], iou_threshold)]] = True
        places = places[remain]
    return places[:max_detections]
