"""Non-maximum suppression in mmcv's forms, and how much boxes overlap.

A side of a box is `x2 - x1 + offset` long in all of them. On the CPU they take the forms of `suppression_numpy`; those
here are their plain twins, and what other devices have.
"""

from __future__ import annotations

import numpy as np
import torch

from models.detector.mmcv_ops import suppression_numpy
from models.detector.mmcv_ops.sampling import widened
from models.detector.mmcv_ops.switch import is_fast

BLOCK = 256  # boxes that are compared with each other at a time: bounds NMS's memory to a few BLOCK x BLOCK arrays
NAIVE, LINEAR, GAUSSIAN = 0, 1, 2  # mmcv's numbers of soft-NMS's methods


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int = 0) -> torch.Tensor:
    """Greedy non-maximum suppression, with the very result of mmcv's compiled op where no two scores are equal.

    boxes: (N, 4) as x1, y1, x2, y2, where a side is `x2 - x1 + offset` long. scores: (N,).
    Returns (K,) int64 indices of the kept boxes, best score first, equal scores in their given order.
    A box goes when its IoU with a kept box before it is strictly above the threshold.
    """
    if not is_fast() or boxes.device.type != "cpu":
        return plain_nms(boxes, scores, iou_threshold, offset)
    order = scores.sort(descending=True, stable=True).indices
    ranked = widened(boxes.detach()[order]).numpy()
    return order[torch.from_numpy(suppression_numpy.nms(ranked, iou_threshold, offset))]


def plain_nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int = 0) -> torch.Tensor:
    """The plain twin of `nms`, on any device.

    Greedy suppression is the fixed point of `keep[i] = no kept box before i overlaps i`. Starting from
    all kept, each round settles at least one more box from the front, so it ends after at most N
    rounds, and on real detections after a handful. Blocks in score order bound the memory.
    """
    order = scores.sort(descending=True, stable=True).indices
    ranked = widened(boxes[order])
    kept: list[torch.Tensor] = []  # ranks, one tensor per block
    for start in range(0, len(ranked), BLOCK):
        block = ranked[start : start + BLOCK]  # (B, 4)
        free = block.new_ones(len(block), dtype=torch.bool)
        for earlier in kept:
            free &= ~_overlaps(block, ranked[earlier], iou_threshold, offset).any(dim=1)
        rivals = _overlaps(block, block, iou_threshold, offset).tril(diagonal=-1)  # (B, B): column outranks row
        keep = free
        while True:
            settled = free & ~(rivals & keep).any(dim=1)
            if torch.equal(settled, keep):
                break
            keep = settled
        kept.append(start + keep.nonzero().squeeze(1))
    return order[torch.cat(kept)] if kept else order


def _overlaps(a: torch.Tensor, b: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """(A, 4) and (B, 4) -> (A, B) bool: IoU above the threshold, rounded as mmcv's C++ rounds it."""
    a_x1, a_y1, a_x2, a_y2 = a[:, None].unbind(-1)  # (A, 1) each
    b_x1, b_y1, b_x2, b_y2 = b[None].unbind(-1)  # (1, B) each
    width = (torch.minimum(a_x2, b_x2) - torch.maximum(a_x1, b_x1) + offset).clamp(min=0)
    height = (torch.minimum(a_y2, b_y2) - torch.maximum(a_y1, b_y1) + offset).clamp(min=0)
    intersection = width * height
    a_area = (a_x2 - a_x1 + offset) * (a_y2 - a_y1 + offset)
    b_area = (b_x2 - b_x1 + offset) * (b_y2 - b_y1 + offset)
    # Two empty boxes give 0 / 0 = NaN, which is not above anything: they do not suppress each other.
    return intersection / (a_area + b_area - intersection) > iou_threshold


def softnms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    dets: torch.Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> torch.Tensor:
    """Soft-NMS (Bodla et al., 2017): boxes that overlap a better one lose score, and go below `min_score`.

    boxes: (N, 4). scores: (N,). Writes the K kept boxes with their new scores into the first rows of `dets` (N, 5),
    best first as they were taken, and returns their (K,) int64 indices. method: `NAIVE` is NMS, `LINEAR` takes
    1 - IoU of the score above the threshold, `GAUSSIAN` exp(-IoU^2 / sigma) of it everywhere. Of equal scores the first
    is taken; the compiled op goes by where it has moved the boxes to meanwhile.
    """
    compute = suppression_numpy.soft_nms if is_fast() else plain_soft_nms
    index, left = compute(
        widened(boxes.detach()).cpu().numpy(),
        widened(scores.detach()).cpu().numpy(),
        iou_threshold,
        sigma,
        min_score,
        method,
        offset,
    )
    indices = torch.from_numpy(index)
    dets[: len(indices), :4] = boxes.cpu()[indices].to(dets)
    dets[: len(indices), 4] = torch.from_numpy(left).to(dets)
    return indices


def plain_soft_nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The plain twin of `suppression_numpy.soft_nms`: the indices that are kept, and their new scores."""
    x1, y1, x2, y2 = boxes.T
    left = scores.copy()
    offset_ = x1.dtype.type(offset)
    areas = (x2 - x1 + offset_) * (y2 - y1 + offset_)
    alive = np.arange(len(left))
    kept, kept_scores = [], []
    while len(alive):
        its = left[alive]
        at = int(its.argmax())
        best = alive[at]
        kept.append(best)
        kept_scores.append(its[at])
        alive = np.delete(alive, at)
        width = np.minimum(x2[best], x2[alive]) - np.maximum(x1[best], x1[alive]) + offset_
        height = np.minimum(y2[best], y2[alive]) - np.maximum(y1[best], y1[alive]) + offset_
        common = np.maximum(width, 0) * np.maximum(height, 0)
        union = areas[best] + areas[alive] - common
        iou = common / np.where(union == 0, 1, union)  # two boxes without an area do not overlap
        if method == GAUSSIAN:
            weight = np.exp(-(iou * iou) / sigma)
        elif method == LINEAR:
            weight = np.where(iou >= iou_threshold, 1 - iou, 1)
        else:
            weight = np.where(iou >= iou_threshold, 0, 1)
        left[alive] *= weight.astype(left.dtype)
        alive = alive[~(left[alive] < min_score)]
    return np.array(kept, np.int64), np.array(kept_scores, left.dtype)


def nms_match(dets: torch.Tensor, iou_threshold: float) -> list[list[int]]:
    """NMS that tells which box suppressed which.

    dets: (N, 5) as x1, y1, x2, y2, score. Returns for each kept box, best first, its index and those of the boxes that
    it suppressed, in the order of their scores. A box goes when its IoU is the threshold or more.
    """
    if not is_fast():
        return plain_nms_match(dets, iou_threshold)
    order = dets[:, 4].cpu().sort(descending=True, stable=True).indices
    ranked = widened(dets.detach()[:, :4]).cpu()[order].numpy()
    by_rank = order.tolist()
    return [[by_rank[rank] for rank in group] for group in suppression_numpy.nms_match(ranked, iou_threshold)]


def plain_nms_match(dets: torch.Tensor, iou_threshold: float) -> list[list[int]]:
    """The plain twin of `nms_match`."""
    boxes = widened(dets[:, :4]).cpu()
    order = dets[:, 4].cpu().sort(descending=True, stable=True).indices
    groups = []
    while len(order):
        best, rest = order[:1], order[1:]
        gone = bbox_ious(boxes[best], boxes[rest]) >= iou_threshold
        groups.append([int(best), *rest[gone].tolist()])
        order = rest[~gone]
    return groups


def bbox_overlaps(
    bboxes1: torch.Tensor, bboxes2: torch.Tensor, ious: torch.Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Write how much boxes overlap into `ious`: (N, M), or (N,) of pairs where `aligned`.

    mode: 0 for the IoU, 1 for the part of the first box that is in both.
    """
    first, second = widened(bboxes1), widened(bboxes2)
    if not aligned:
        first, second = first[:, None], second[None]
    ious.copy_(bbox_ious(first, second, offset, mode))


def bbox_ious(first: torch.Tensor, second: torch.Tensor, offset: int = 0, mode: int = 0) -> torch.Tensor:
    """(..., 4) boxes of shapes that broadcast -> (...): their IoU, or the part of the first (mode 1).

    NaN where both boxes are empty, as the compiled op has it.
    """
    x1, y1 = torch.maximum(first[..., 0], second[..., 0]), torch.maximum(first[..., 1], second[..., 1])
    x2, y2 = torch.minimum(first[..., 2], second[..., 2]), torch.minimum(first[..., 3], second[..., 3])
    common = (x2 - x1 + offset).clamp(min=0) * (y2 - y1 + offset).clamp(min=0)
    areas = [
        (boxes[..., 2] - boxes[..., 0] + offset) * (boxes[..., 3] - boxes[..., 1] + offset) for boxes in (first, second)
    ]
    return common / (areas[0] if mode == 1 else areas[0] + areas[1] - common)
