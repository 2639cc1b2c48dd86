"""The boxes that a detector found in the tiles of a photo and in the whole of it, as boxes of the photo, each once.

The steps of `merged`, among boxes of one label:

1. A box that ends at an edge of its tile which is none of the photo's is a piece: the object goes on there.
2. Two pieces on both sides of a seam are one object if each reaches across the strip that the two tiles share, and more
   than half of the shorter one lies beside the other. Their union takes their place, with the better score.
3. Of whole boxes that overlap more than the threshold the best stays ("nms"), or their mean ("fusion").
4. Pieces come last. One goes if it overlaps a box that stays more than the threshold, or lies in it by more than half.

An object that fits into the strip is whole in one of its tiles. One that is larger is whole in the photo, or joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pycocotools import mask as coco_mask

from models.detector.thresholds import kept
from models.rle import Rle, decode_rle, encode_rle
from models.tiles import Merge, Part
from models.types import Detections

# Where no other is asked for: of boxes of several tiles, which differ by more than those of one image.
TILE_IOU = 0.5
# Of a photo, where none is asked for; a model's own maximum is for what it sees at once.
MOST_DETECTIONS = 1000
MOST_CANDIDATES = 20_000  # of a photo, best first
_NEAR = 0.02  # of a tile's side: boxes that end so near to an edge end at it
_COVERED = 0.5


@dataclass(frozen=True, eq=False)
class _Boxes:
    """N boxes of a photo. at_edge: (N, 4) bool, which sides end at an inner edge of their tile, as x1, y1, x2, y2.

    tiles_xyxy: (N, 4), the tiles that they are of. members: of each, which of the boxes that were found it consists of.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    at_edge: np.ndarray
    tiles_xyxy: np.ndarray
    members: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.scores)

    def of(self, places: np.ndarray) -> _Boxes:
        return _Boxes(
            self.boxes_xyxy[places],
            self.scores[places],
            self.labels[places],
            self.at_edge[places],
            self.tiles_xyxy[places],
            tuple(self.members[place] for place in places.tolist()),
        )

    def beside(self, others: _Boxes) -> _Boxes:
        return _Boxes(
            np.concatenate([self.boxes_xyxy, others.boxes_xyxy]),
            np.concatenate([self.scores, others.scores]),
            np.concatenate([self.labels, others.labels]),
            np.concatenate([self.at_edge, others.at_edge]),
            np.concatenate([self.tiles_xyxy, others.tiles_xyxy]),
            self.members + others.members,
        )


def merged(
    views: Sequence[tuple[Part, Detections]],
    size_hw: tuple[int, int],
    *,
    merge: Merge = "nms",
    iou_threshold: float | None = None,
    max_detections: int | None = None,
    class_agnostic: bool = False,
) -> Detections:
    """What was found in parts of a photo of this size, the whole among them, in pixels of the photo, best first.

    iou_threshold: None is TILE_IOU. max_detections: None is MOST_DETECTIONS. class_agnostic: see
    `models.detector.thresholds.kept`; it comes after the merging. Masks: of a box the mask of the best box that it was
    made of, and of joined pieces all of theirs.
    """
    found = _gathered(views, size_hw)
    found = found.of(np.argsort(-found.scores, kind="stable")[:MOST_CANDIDATES])
    threshold = TILE_IOU if iou_threshold is None else iou_threshold
    found = _joined(found)
    is_piece = found.at_edge.any(axis=1)
    whole = found.of(np.flatnonzero(~is_piece))
    whole = _fused(whole, threshold) if merge == "fusion" else whole.of(_kept(whole, iou_threshold=threshold))
    found = _with_pieces(whole, found.of(np.flatnonzero(is_piece)), threshold)
    limit = MOST_DETECTIONS if max_detections is None else max_detections
    last = {"iou_threshold": iou_threshold if class_agnostic else None, "class_agnostic": class_agnostic}
    found = found.of(_kept(found, max_detections=limit, **last))
    has_masks = any(one.masks is not None for _, one in views)
    return Detections(
        found.boxes_xyxy, found.scores, found.labels, size_hw, _masks(views, found, size_hw) if has_masks else None
    )


def _gathered(views: Sequence[tuple[Part, Detections]], size_hw: tuple[int, int]) -> _Boxes:
    boxes, edges, tiles = [], [], []
    for part, found in views:
        x1, y1, x2, y2 = part.box_xyxy
        moved = found.boxes_xyxy + np.array((x1, y1, x1, y1), np.float32)
        near = _NEAR * max(x2 - x1, y2 - y1)
        tile = np.tile(np.array(part.box_xyxy, np.float32), (len(found), 1))
        boxes.append(moved)
        tiles.append(tile)
        edges.append((np.abs(moved - tile) <= near) & np.array(part.inner_edges(size_hw)))
    return _Boxes(
        np.concatenate(boxes),
        np.concatenate([found.scores for _, found in views]),
        np.concatenate([found.labels for _, found in views]),
        np.concatenate(edges),
        np.concatenate(tiles),
        tuple((number,) for number in range(sum(map(len, boxes)))),
    )


def _joined(found: _Boxes) -> _Boxes:
    """With the union of pieces of one object in their place; the first of them, by which it is found, is the best."""
    pieces = np.flatnonzero(found.at_edge.any(axis=1))
    group = np.arange(len(found))  # of each box the first of its group
    for position, piece in enumerate(pieces.tolist()):
        others = pieces[position + 1 :]
        others = others[found.labels[others] == found.labels[piece]]
        for other in others[_meet(found, piece, others)].tolist():
            first, second = sorted((int(group[piece]), int(group[other])))
            group[group == second] = first
    if (group == np.arange(len(found))).all():
        return found
    boxes, edges, members = found.boxes_xyxy.copy(), found.at_edge.copy(), list(found.members)
    for first, count in zip(*np.unique(group, return_counts=True), strict=True):
        if count == 1:
            continue
        its = np.flatnonzero(group == first)
        corners = found.boxes_xyxy[its]
        union = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
        outermost = np.abs(corners - union) <= _NEAR * (found.tiles_xyxy[its, 2:] - found.tiles_xyxy[its, :2]).max()
        boxes[first] = union
        edges[first] = (outermost & found.at_edge[its]).any(axis=0)
        members[first] = sum((found.members[one] for one in its.tolist()), ())
    with_unions = replace(found, boxes_xyxy=boxes, at_edge=edges, members=tuple(members))
    return with_unions.of(np.unique(group))


def _meet(found: _Boxes, piece: int, others: np.ndarray) -> np.ndarray:
    """Which of the other pieces go on where this one ends, at the other side of a seam."""
    meets = np.zeros(len(others), np.bool_)
    box, boxes = found.boxes_xyxy[piece], found.boxes_xyxy[others]
    tile, tiles = found.tiles_xyxy[piece], found.tiles_xyxy[others]
    for low, high, along, end in ((0, 2, 1, 3), (1, 3, 0, 2)):  # seams that are crossed from left to right, downwards
        near = _NEAR * (tile[high] - tile[low])
        shared = np.minimum(boxes[:, end], box[end]) - np.maximum(boxes[:, along], box[along])
        shorter = np.minimum(boxes[:, end] - boxes[:, along], box[end] - box[along])
        side_by_side = shared > _COVERED * shorter
        # This one ends at its tile's far edge and the other at its tile's near edge, or the other way round; each
        # reaches from edge to edge of the strip between the two.
        after = found.at_edge[others, low] & found.at_edge[piece, high]
        after &= (tiles[:, low] > tile[low]) & (tiles[:, low] <= tile[high])
        after &= (box[low] <= tiles[:, low] + near) & (boxes[:, high] >= tile[high] - near)
        before = found.at_edge[others, high] & found.at_edge[piece, low]
        before &= (tiles[:, low] < tile[low]) & (tiles[:, high] >= tile[low])
        before &= (boxes[:, low] <= tile[low] + near) & (box[high] >= tiles[:, high] - near)
        meets |= side_by_side & (after | before)
    return meets


def _kept(found: _Boxes, **thresholds: float | int | None) -> np.ndarray:
    """`models.detector.thresholds.kept`."""
    tensors = (torch.from_numpy(one) for one in (found.boxes_xyxy, found.scores, found.labels))
    return kept(*tensors, **thresholds).numpy()  # type: ignore[arg-type]


def _fused(found: _Boxes, threshold: float) -> _Boxes:
    """Weighted boxes fusion (Solovyev, Wang, Gabruseva, 2021), best box first.

    A box joins the cluster whose mean it overlaps most, if by more than the threshold. The mean's corners are those of
    its boxes, weighted by their scores. Its score is the best of theirs: the paper's lowers it where not all models
    agree, but small objects are not expected to be found in the whole photo too.
    """
    means, labels = np.empty_like(found.boxes_xyxy), np.empty_like(found.labels)
    sums = np.zeros((len(found), 5), np.float64)  # of corners times score, and of scores
    first: list[int] = []
    for number in np.argsort(-found.scores, kind="stable").tolist():
        box, score, label, count = found.boxes_xyxy[number], found.scores[number], found.labels[number], len(first)
        overlaps = np.where(labels[:count] == label, _ious(means[:count], box), 0)
        place = int(overlaps.argmax()) if count and overlaps.max() > threshold else count
        if place == count:
            first.append(number)
            means[place], labels[place] = box, label
        sums[place] += (*(box.astype(np.float64) * score), score)
        if place < count and sums[place, 4] > 0:
            means[place] = sums[place, :4] / sums[place, 4]
    return replace(found.of(np.array(first, np.int64)), boxes_xyxy=means[: len(first)])


def _with_pieces(whole: _Boxes, pieces: _Boxes, threshold: float) -> _Boxes:
    """The whole boxes, and of the pieces, best first, those that are of no other box."""
    boxes, labels = np.concatenate([whole.boxes_xyxy, pieces.boxes_xyxy]), np.concatenate([whole.labels, pieces.labels])
    count, stays = len(whole), []
    for number in np.argsort(-pieces.scores, kind="stable").tolist():
        box, label = pieces.boxes_xyxy[number], pieces.labels[number]
        there = boxes[:count][labels[:count] == label]
        covered = _intersections(there, box) > _COVERED * _areas(box)
        if not (covered | (_ious(there, box) > threshold)).any():
            stays.append(number)
            boxes[count], labels[count] = box, label
            count += 1
    return whole.beside(pieces.of(np.array(stays, np.int64)))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _intersections(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    return sides.clip(0).prod(axis=1)


def _ious(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    shared = _intersections(boxes, box)
    return shared / np.maximum(_areas(boxes) + _areas(box) - shared, 1e-9)


def _masks(views: Sequence[tuple[Part, Detections]], found: _Boxes, size_hw: tuple[int, int]) -> tuple[Rle, ...]:
    """Of the boxes' members, in the photo."""
    of_members = [(part, mask) for part, one in views for mask in one.masks or ()]

    def mask(members: tuple[int, ...]) -> Rle:
        placed = [
            encode_rle(part.in_image(decode_rle(one), size_hw)) for part, one in map(of_members.__getitem__, members)
        ]
        if len(placed) == 1:
            return placed[0]
        union = coco_mask.merge(placed, intersect=False)
        return {"size": list(size_hw), "counts": union["counts"].decode("ascii")}

    return tuple(mask(members) for members in found.members)
