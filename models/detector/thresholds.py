"""Which of the boxes that a network selected itself are kept, and in what order."""

from __future__ import annotations

import torch
from torch import Tensor

from models.detector.mmcv_ops.suppression import nms

# Where boxes of any labels suppress each other and no other threshold is asked for; segment-anything's for its masks.
CLASS_AGNOSTIC_IOU = 0.7


def kept(
    boxes_xyxy: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    max_detections: int | None = None,
    class_agnostic: bool = False,
) -> Tensor:
    """The places of the boxes (N, 4) that remain, best first; of equal scores the first box comes first.

    score_threshold: what scores strictly above it. iou_threshold: of boxes of one label that overlap strictly more, the
    best. max_detections: then this many. None narrows nothing. class_agnostic: boxes of unlike labels suppress each
    other too, from CLASS_AGNOSTIC_IOU on where there is no iou_threshold.
    """
    if class_agnostic:
        labels = torch.zeros_like(labels)
        iou_threshold = CLASS_AGNOSTIC_IOU if iou_threshold is None else iou_threshold
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
