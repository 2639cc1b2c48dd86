"""Non-maximum suppression on the CPU: numpy's arrays, several boxes or none at a time, in the compiled ops' order.

`models.detector.mmcv_ops.suppression` says what they compute, and has the plain twins.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np

BLOCK = 128  # boxes that are compared with each other before they suppress the rest
TILE = 32_768  # pairs that are looked at at a time: their arrays stay in a core's cache
LINEAR, GAUSSIAN = 1, 2


def nms(boxes: np.ndarray, threshold: float, offset: int) -> np.ndarray:
    """(N, 4) float32 or float64 boxes, best first -> the ranks that are kept."""
    kept = [ranks for ranks, _ in _suppressed(boxes, threshold, offset, touching=False)]
    return np.concatenate(kept) if kept else np.zeros(0, np.int64)


def nms_match(boxes: np.ndarray, threshold: float) -> list[list[int]]:
    """(N, 4) boxes, best first -> for each kept one its rank, and those of the boxes that it suppressed."""
    groups: dict[int, list[int]] = {}
    for ranks, by in _suppressed(boxes, threshold, 0, touching=True):
        groups |= {int(rank): [int(rank)] for rank in ranks}
        for rank, its in by:
            groups[rank] += its
    return list(groups.values())


def _suppressed(
    boxes: np.ndarray, threshold: float, offset: int, *, touching: bool
) -> Iterator[tuple[np.ndarray, list[tuple[int, list[int]]]]]:
    """Block by block: the ranks that are kept, and, if `touching`, who suppressed whom.

    touching: whether an IoU that equals the threshold suppresses.
    """
    limit = boxes.dtype.type(threshold)
    ranks, left = np.arange(len(boxes)), _with_areas(boxes, offset)
    while len(ranks):
        size = len(ranks) if len(ranks) <= 2 * BLOCK else BLOCK
        overlapping = _overlapping(left[:, :size], left[:, :size], limit, offset, touching)
        # a row of pairs as the bits of one number, the first box's the lowest
        rows = [int.from_bytes(row.tobytes(), "little") for row in np.packbits(overlapping, axis=1, bitorder="little")]
        open_, kept, gone = (1 << size) - 1, [], []
        for at, row in enumerate(rows):
            if open_ >> at & 1:
                kept.append(at)
                open_ &= ~(1 << at)
                if touching:
                    gone.append((int(ranks[at]), [int(ranks[other]) for other in _bits(row & open_)]))
                open_ &= ~row
        best, rest = left[:, kept], left[:, size:]
        stays = np.ones(rest.shape[1], bool)
        step = max(1, TILE // max(1, rest.shape[1]))
        for start in range(0, len(kept), step):
            pairs = _overlapping(best[:, start : start + step], rest, limit, offset, touching)
            if touching:
                pairs &= stays
                its = np.flatnonzero(pairs.any(0))
                by = pairs[:, its].argmax(0)  # the first of those that suppress it
                for row in np.unique(by):
                    gone.append((int(ranks[kept[start + row]]), ranks[size + its[by == row]].tolist()))
            stays &= ~pairs.any(0)
        yield ranks[kept], gone
        ranks, left = ranks[size:][stays], rest[:, stays]


def _bits(number: int) -> Iterator[int]:
    """The places of a number's bits that are set, lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _with_areas(boxes: np.ndarray, offset: int) -> np.ndarray:
    """(N, 4) -> (5, N): the coordinates and the area, each of them in a row."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    return np.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def _overlapping(first: np.ndarray, second: np.ndarray, limit: np.floating, offset: int, touching: bool) -> np.ndarray:
    """(5, A) and (5, B) of `_with_areas` -> (A, B) bool: whether the IoU is above the limit, rounded as mmcv does."""
    x1, y1, x2, y2, areas = first[:, :, None]
    common = np.minimum(x2, second[2])
    size = np.maximum(x1, second[0])
    common -= size
    common += offset
    np.maximum(common, 0, out=common)
    height = np.minimum(y2, second[3])
    np.maximum(y1, second[1], out=size)
    height -= size
    height += offset
    np.maximum(height, 0, out=height)
    common *= height
    union = np.add(areas, second[4], out=size)
    union -= common
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        common /= union  # two empty boxes: NaN, which is not above anything
        return common >= limit if touching else common > limit


def soft_nms(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, sigma: float, least: float, method: int, offset: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) boxes, (N,) scores -> the indices of those that are kept, as they were taken, and their new scores.

    Of equal scores the first is taken. A box is compared with those alone that begin where it may reach them.
    """
    order = boxes[:, 0].argsort(kind="stable")
    x1, y1, x2, y2, areas = _with_areas(boxes[order], offset)
    starts, widest = x1.tolist(), float((x2 - x1).max(initial=0)) + offset
    limit, floor = scores.dtype.type(threshold), scores.dtype.type(least)
    everywhere = not limit > 0  # boxes that do not touch lose score too
    left, rank = scores.copy(), np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    kept, kept_scores = [], []
    while len(kept) < len(left):
        best = int(left.argmax())
        if (score := left[best]) == -np.inf:
            break
        kept.append(best)
        kept_scores.append(score)
        left[best] = -np.inf
        at = rank[best]
        its_x1, its_x2 = x1[at], x2[at]
        first = 0 if everywhere else bisect_left(starts, its_x1 - widest - 1)
        end = len(starts) if everywhere else bisect_right(starts, its_x2 + offset)
        width = np.minimum(x2[first:end], its_x2)
        width -= np.maximum(x1[first:end], its_x1)
        height = np.minimum(y2[first:end], y2[at])
        height -= np.maximum(y1[first:end], y1[at])
        if offset:
            width += offset
            height += offset
        touches = left.take(order[first:end]) > -np.inf
        if not everywhere:
            touches &= np.minimum(width, height) > 0
        near = touches.nonzero()[0]
        common = np.maximum(width.take(near), 0) * np.maximum(height.take(near), 0)
        near += first
        union = areas.take(near) + areas[at] - common
        union[union == 0] = 1  # of two boxes without an area
        iou = common / union
        others = order.take(near)
        if method == GAUSSIAN:
            now = left.take(others) * np.exp(-(iou * iou) / sigma).astype(left.dtype)
        else:
            now = left.take(others)
            near = (iou >= limit).nonzero()[0]
            now[near] *= 1 - iou.take(near) if method == LINEAR else 0
        now[now < floor] = -np.inf
        left[others] = now
        if len(kept) == 1:
            left[left < floor] = -np.inf  # wherever they are
    return np.array(kept, np.int64), np.array(kept_scores, left.dtype)
