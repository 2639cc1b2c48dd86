"""Non-maximum suppression on the CPU: numpy's arrays, several boxes or none at a time, in the compiled ops' order.

`models.detector.mmcv_ops.suppression` says what they compute, and has the plain twins.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 128  # boxes that are compared with each other before they suppress the rest
TILE = 32_768  # pairs that are looked at at a time: their arrays stay in a core's cache
AHEAD = 32  # boxes of soft-NMS, at most, whose overlaps are computed before it is known that they are taken
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
        packed = np.packbits(overlapping, axis=1, bitorder="little")
        rows, length = packed.tobytes(), packed.shape[1]
        open_, kept, gone = (1 << size) - 1, [], []
        while open_:
            at = (open_ & -open_).bit_length() - 1
            open_ ^= 1 << at
            kept.append(at)
            row = int.from_bytes(rows[at * length : (at + 1) * length], "little")
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
    """(5, A) and (5, B) of `_with_areas` -> (A, B) bool: whether the IoU is above the limit."""
    ious = _ious(first, second, offset)
    with np.errstate(invalid="ignore"):
        return ious >= limit if touching else ious > limit


def _ious(first: np.ndarray, second: np.ndarray, offset: int) -> np.ndarray:
    """(5, A) and (5, B) of `_with_areas` -> (A, B), rounded as mmcv does. NaN of two boxes without an area."""
    x1, y1, x2, y2, areas = first[:, :, None]
    common = np.minimum(x2, second[2])
    size = np.maximum(x1, second[0])
    common -= size
    height = np.minimum(y2, second[3])
    np.maximum(y1, second[1], out=size)
    height -= size
    if offset:
        common += offset
        height += offset
    np.maximum(common, 0, out=common)
    np.maximum(height, 0, out=height)
    common *= height
    union = np.add(areas, second[4], out=size)
    union -= common
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        common /= union
    return common


def soft_nms(
    boxes: np.ndarray, scores: np.ndarray, threshold: float, sigma: float, least: float, method: int, offset: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) boxes, (N,) scores -> the indices of those that are kept, as they were taken, and their new scores.

    Of equal scores the first is taken. The best `AHEAD` boxes are compared with all that are left at once, as most of
    them are taken next.
    """
    index, left, sides = np.arange(len(scores)), scores.copy(), _with_areas(boxes, offset)
    floor = scores.dtype.type(least)
    kept: list[int] = []
    kept_scores: list[float] = []
    while len(left):
        count = min(len(left), max(8, min(AHEAD, TILE // len(left))))
        ahead = np.argpartition(-left, count - 1)[:count]
        ahead[0] = left.argmax()  # which of equal ones is in the part is not said
        weights = _weights(_ious(sides[:, ahead], sides, offset), threshold, sigma, method)
        row_of = dict(zip(ahead.tolist(), weights, strict=True))
        while (best := int(left.argmax())) in row_of:
            # Scores only fall: where the best is below the least, all are. The very first box is always taken.
            if left[best] < floor and kept:
                break
            kept.append(int(index[best]))
            kept_scores.append(left[best])
            left *= row_of[best]
            left[best] = -np.inf
        alive = ~(left < floor)
        index, left, sides = index[alive], left[alive], sides[:, alive]
    return np.array(kept, np.int64), np.array(kept_scores, scores.dtype)


def _weights(ious: np.ndarray, threshold: float, sigma: float, method: int) -> np.ndarray:
    """How much of its score a box keeps beside a better one; never zero, which -inf must not be multiplied with."""
    if method == GAUSSIAN:
        np.nan_to_num(ious, copy=False, nan=0)
        ious *= ious
        ious /= -sigma
        weights = np.exp(ious, out=ious)
    else:
        with np.errstate(invalid="ignore"):
            far = ~(ious >= ious.dtype.type(threshold))
        weights = np.subtract(1, ious, out=ious) if method == LINEAR else np.zeros_like(ious)
        np.copyto(weights, 1, where=far)
    return np.maximum(weights, 1e-30, out=weights)
