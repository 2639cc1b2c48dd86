"""In which tile of a photo a prompt is answered, where its object is small; and whether that was so.

- What a prompt points at is its box, or the box around its points that are 1 or 0, or around both.
- If its longer side is at most half a tile's, it is answered in the tile in which it lies most centrally: the one whose
  nearest inner edge is farthest from it. An inner edge is one that is none of the photo's.
- Any other prompt is answered in the whole photo, as without tiles.
- Tiles overlap by half at least, so that every small thing is whole in one, with something around it wherever it lies.
- A click says nothing of a size. If its mask reaches an inner edge of the tile, the object is not small, and the click
  is answered in the whole photo.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.tiles import Part, Tiling
from models.types import Prompts

SMALL = 1 / 2  # of a tile's side
LEAST_OVERLAP = 1 / 2
# Of the part's longer side: so many pixels of a mask at an inner edge are more than a speck.
REACHES = 1 / 64


def parts_of(prompts: Prompts, size_hw: tuple[int, int], tiling: Tiling) -> dict[Part | None, list[int]]:
    """The parts in which prompts are answered, each with the places of its prompts; None is the whole photo.

    What becomes of a prompt does not depend on the others.
    """
    if tiling.count(size_hw) == 1:
        return {None: list(range(len(prompts)))}
    tiling = replace(tiling, overlap=max(tiling.overlap, LEAST_OVERLAP))
    targets, found = _targets(prompts), dict[Part | None, list[int]]()
    small = (targets[:, 2:] - targets[:, :2]).max(axis=1) <= SMALL * tiling.side  # nan is not
    height, width = size_hw
    xs, ys = np.array(tiling.starts(width)), np.array(tiling.starts(height))
    for place, (x1, y1, x2, y2) in enumerate(targets.tolist()):
        part = None
        if small[place]:
            left, top = _most_central(xs, tiling.side, width, x1, x2), _most_central(ys, tiling.side, height, y1, y2)
            part = Part((left, top, min(left + tiling.side, width), min(top + tiling.side, height)))
        found.setdefault(part, []).append(place)
    return found


def _most_central(starts: np.ndarray, side: int, length: int, low: float, high: float) -> int:
    """Of the tiles along a side of the photo that begin there, where that one does whose inner edges are farthest."""
    ends = np.minimum(starts + side, length)
    before = np.where(starts > 0, low - starts, np.inf)
    after = np.where(ends < length, ends - high, np.inf)
    # Of equals the first, so that nothing depends on how numbers are rounded.
    return int(starts[np.minimum(before, after).round(6).argmax()])


def in_part(prompts: Prompts, places: list[int], part: Part) -> Prompts:
    """These prompts, of points and boxes, in pixels of the part. Points that are only padding stay where they are."""
    x1, y1 = part.box_xyxy[:2]
    points, labels, boxes = prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy
    if points is not None and labels is not None:
        labels = labels[places]
        points = points[places] - np.where(_is_place(labels)[..., None], (x1, y1), 0)
    return Prompts(points, labels, None if boxes is None else boxes[places] - (x1, y1, x1, y1))


def of(prompts: Prompts, places: list[int]) -> Prompts:
    """These prompts."""
    return Prompts(
        None if prompts.points_xy is None else prompts.points_xy[places],
        None if prompts.point_labels is None else prompts.point_labels[places],
        None if prompts.boxes_xyxy is None else prompts.boxes_xyxy[places],
        None if prompts.mask_logits is None else tuple(prompts.mask_logits[place] for place in places),
    )


def reaches_on(mask: np.ndarray, part: Part, size_hw: tuple[int, int]) -> bool:
    """Whether a mask (h, w) of a part ends at an inner edge of it, and so its object may go on beyond."""
    sides = (mask[:, 0], mask[0], mask[:, -1], mask[-1])
    least = max(1.0, REACHES * max(mask.shape))
    return any(
        inner and np.count_nonzero(side) >= least for inner, side in zip(part.inner_edges(size_hw), sides, strict=True)
    )


def _targets(prompts: Prompts) -> np.ndarray:
    """(N, 4) what each points at; nan of one that has no place."""
    boxes = np.full((len(prompts), 4), np.nan)
    if prompts.points_xy is not None and prompts.point_labels is not None:
        points = np.where(_is_place(prompts.point_labels)[..., None], prompts.points_xy, np.nan)
        boxes[:, :2], boxes[:, 2:] = np.fmin.reduce(points, axis=1), np.fmax.reduce(points, axis=1)
    if prompts.boxes_xyxy is not None:
        boxes[:, :2] = np.fmin(boxes[:, :2], prompts.boxes_xyxy[:, :2])
        boxes[:, 2:] = np.fmax(boxes[:, 2:], prompts.boxes_xyxy[:, 2:])
    return boxes


def _is_place(labels: np.ndarray) -> np.ndarray:
    """SAM looks at no place of points labelled otherwise: -10 is padding, and -1 no point."""
    return labels >= 0
