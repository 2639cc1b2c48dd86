"""In which tile of a photo a prompt is answered, where its object is small; and whether that was so.

- What a prompt points at is its box, or the box around its points that are 1 or 0, or around both.
- If its longer side is at most half a tile's, it is answered in the tile in which it lies most centrally: the one whose
  nearest inner edge is farthest from it. An inner edge is one that is none of the photo's.
- That edge must be a quarter of the longer side away, so that the tile shows what is around the object.
- Any other prompt is answered in the whole photo, as without tiles.
- A click says nothing of a size. If its mask reaches an inner edge of the tile, the object is not small, and the click
  is answered in the whole photo.
"""

from __future__ import annotations

import numpy as np

from models.tiles import Part, Tiling
from models.types import Prompts

SMALL = 1 / 2  # of a tile's side
MARGIN = 1 / 4  # of the longer side of what a prompt points at
# Of the part's longer side: so many pixels of a mask at an inner edge are more than a speck.
REACHES = 1 / 64


def parts_of(prompts: Prompts, size_hw: tuple[int, int], tiling: Tiling) -> dict[Part | None, list[int]]:
    """The parts in which prompts are answered, each with the places of its prompts; None is the whole photo.

    What becomes of a prompt does not depend on the others.
    """
    found: dict[Part | None, list[int]] = {}
    tiles = tiling.tiles(size_hw)
    if len(tiles) == 1:
        return {None: list(range(len(prompts)))}
    corners = np.array([tile.box_xyxy for tile in tiles], np.float64)
    inner = np.array([tile.inner_edges(size_hw) for tile in tiles])
    for place, box in enumerate(_targets(prompts)):
        longer = max(box[2] - box[0], box[3] - box[1])
        margins = np.where(inner, (box - corners) * (1, 1, -1, -1), np.inf).min(axis=1)
        # Of equals the first, so that nothing depends on how numbers are rounded.
        tile = int(margins.round(6).argmax()) if longer <= SMALL * tiling.side else None  # nan is never small
        small = tile is not None and margins[tile] >= MARGIN * longer
        found.setdefault(tiles[tile] if small and tile is not None else None, []).append(place)
    return found


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
