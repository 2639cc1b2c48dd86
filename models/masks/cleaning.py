"""Masks made fit to be training data: small islands and holes go, the largest part stays, no pixel belongs to two.

A mask is (H, W) bool. None is changed in place; one that needs no change may be given back as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.masks.boxes import box_around

# How pixels hang together. Parts are joined by sides and holes by corners too, as in the polygons of an answer, so that
# a mask without holes and of one part is one ring.
_BY_SIDES, _BY_CORNERS = 4, 8


@dataclass(frozen=True)
class Cleaning:
    """What is done to each mask, in this order.

    min_region_area: see `without_small_regions`. fill_holes: see `filled`. largest_part: see `largest_part`.
    """

    min_region_area: int = 0
    fill_holes: bool = False
    largest_part: bool = False

    def __bool__(self) -> bool:
        return bool(self.min_region_area or self.fill_holes or self.largest_part)

    def __call__(self, mask: np.ndarray, *, fill: bool = True) -> np.ndarray:
        """The mask, cleaned. fill: False only takes pixels away, of a mask that must not grow over its neighbours."""
        box = box_around(mask)
        if box is None or not self:
            return mask
        # Only what is around the object is looked at: with as much background on each side as no hole can have.
        x1, y1, x2, y2 = box
        beside, above = (-(-self.min_region_area // side) for side in (y2 - y1, x2 - x1))
        part = slice(max(y1 - above, 0), y2 + above), slice(max(x1 - beside, 0), x2 + beside)
        found = mask[part]
        if self.min_region_area:
            found = without_small_regions(found, self.min_region_area, holes=fill)
        if self.fill_holes and fill:
            found = filled(found)
        if self.largest_part:
            found = largest_part(found)
        cleaned = np.zeros_like(mask)
        cleaned[part] = found
        return cleaned


def without_small_regions(mask: np.ndarray, area: int, *, holes: bool = True) -> np.ndarray:
    """Without holes, then without islands, of fewer than `area` pixels, as segment-anything's `remove_small_regions`.

    As there, regions hang together by corners too, what of the background lies between the object and the edge of the
    image may be a hole, and where all islands are small the largest one stays. Unlike there, background at the edge of
    the image that is larger than the object is no hole of it: in an image smaller than `area` all would be object.
    """
    if holes:
        regions, areas = _regions(~mask, _BY_CORNERS)
        is_hole = areas < area
        at_edge = np.concatenate((regions[0], regions[-1], regions[:, 0], regions[:, -1]))
        is_hole[at_edge] &= areas[at_edge] <= areas[0]
        is_hole[0] = False
        mask = mask | is_hole[regions]
    regions, areas = _regions(mask, _BY_CORNERS)
    stays = areas >= area
    if not stays[1:].any():
        return _largest(regions, areas)
    stays[0] = False
    return stays[regions]


def filled(mask: np.ndarray) -> np.ndarray:
    """With every hole filled: background that no way by sides and corners joins to the edge of the image."""
    regions, _ = _regions(np.pad(~mask, 1, constant_values=True), _BY_CORNERS)
    return (regions != regions[0, 0])[1:-1, 1:-1]


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest of the parts, whose pixels are joined by their sides; of equal ones the first in reading order."""
    return _largest(*_regions(mask, _BY_SIDES))


def owners(mask_of: Callable[[int], np.ndarray], scores: Sequence[float], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) int32: at each pixel the number of the mask that it belongs to, or -1.

    Of the masks that claim it, that is the one of the best score, and of equal ones the first. mask_of: gives a mask by
    its number, the place of its score; one at a time is in memory.
    """
    owner = np.full(size_hw, -1, np.int32)
    for number in np.argsort(-np.asarray(scores, np.float64), kind="stable")[::-1].tolist():  # the best comes last
        mask = mask_of(number)
        x1, y1, x2, y2 = box_around(mask) or (0, 0, 0, 0)
        owner[y1:y2, x1:x2][mask[y1:y2, x1:x2]] = number
    return owner


def _regions(mask: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """The regions of a mask, numbered from 1 in (H, W), and the pixels of each number, 0 being what is no region."""
    _, regions, table, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=connectivity, ltype=cv2.CV_32S
    )
    return regions, table[:, cv2.CC_STAT_AREA]


def _largest(regions: np.ndarray, areas: np.ndarray) -> np.ndarray:
    if len(areas) == 1:
        return np.zeros(regions.shape, np.bool_)
    return regions == 1 + int(areas[1:].argmax())
