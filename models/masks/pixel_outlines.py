"""A mask to the outlines of its parts and holes, which run along the outer edges of pixels: exact, corner by corner.

A part is a set of pixels joined by their sides. Outlines of parts go clockwise on the screen, those of holes
counter-clockwise, so that the part is at the right hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.masks.boxes import box_around


@dataclass(frozen=True, eq=False)
class Outline:
    """points: (N, 2) float64, x and y of the corners. part: the number of its part."""

    points: np.ndarray
    part: int


@dataclass(frozen=True, eq=False)
class _Walk:
    """The corners of all outlines, numbered in reading order.

    xy: of each. keys: the number of its point on the grid, which two corners have where pixels touch. following: for
    each the next one. starts: the top left corner of every outline. is_part: for each of them, whether it is no hole's.
    padded: the mask with a pixel of background around it.
    """

    xy: list[tuple[int, int]]
    keys: np.ndarray
    following: list[int]
    starts: list[int]
    is_part: list[bool]
    padded: np.ndarray


def outlines_of(mask: np.ndarray, apart: float) -> list[Outline]:
    """The outlines of a mask (H, W) bool, that of a part before those of its holes.

    apart: where an outline passes a point twice, or two share one, each is so far from it in x and y.
    """
    ones, (left, top) = _around_object(mask.view(np.uint8))
    walk = _walked(ones)
    if walk is None:
        return []
    _, labels = cv2.connectedComponents(ones, connectivity=4, ltype=cv2.CV_32S)
    twice = np.concatenate((walk.keys[1:] == walk.keys[:-1], [False]))
    twice[1:] |= twice[:-1]
    xy = np.array(walk.xy, np.float64)
    found = []
    for start, is_part in zip(walk.starts, walk.is_part, strict=True):
        places = [start]
        while (corner := walk.following[places[-1]]) != start:
            places.append(corner)
        points = xy[places]
        came = np.sign(points - np.roll(points, 1, axis=0))
        goes = np.roll(came, -1, axis=0)
        points = points + apart * twice[places, None] * (goes - came) + (left, top)
        x, y = walk.xy[start]
        found.append(Outline(points, int(labels[y if is_part else y - 1, x])))
    return found


def spliced_outlines(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The closed outline of every part of `mask` (uint8, 0 and 1), as corners (x, y) on the pixel grid, its holes
    joined to it by cuts of no width."""
    ones, (left, top) = _around_object(mask)
    walk = _walked(ones)
    if walk is None:
        return []
    holes = [start for start, is_part in zip(walk.starts, walk.is_part, strict=True) if not is_part]
    skipped = _splice(holes, walk.following, walk.xy, walk.keys, walk.padded)
    parts = (start for start, is_part in zip(walk.starts, walk.is_part, strict=True) if is_part)
    rings = (_ring(start, walk.following, walk.xy, skipped) for start in parts)
    return [[(x + left, y + top) for x, y in ring] for ring in rings]


def _around_object(mask: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of `mask` (uint8, 0 and 1) that has all of its ones, row by row in memory, and its left and top.

    Most of a photo is no part of the object.
    """
    left, top, right, bottom = box_around(mask) or (0, 0, 0, 0)
    return np.ascontiguousarray(mask[top:bottom, left:right]), (left, top)


def _walked(mask: np.ndarray) -> _Walk | None:
    """The way along all outlines of `mask` (uint8, 0 and 1); None of an empty one.

    Corners are numbered in reading order. On a grid line, edges join the first corner to the second, the third
    to the fourth and so on: `i ^ 1` is the corner at the other end of i's horizontal edge, `vertical[i]`
    that of its vertical one. Where two pixels touch at a corner only, that point is two corners. Edges
    are walked with the region at the right hand.
    """
    padded = np.pad(mask, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    touching = (nw ^ ne) & (nw ^ sw) & (sw ^ se)
    corners_at = ((nw ^ ne ^ sw ^ se) + 2 * touching).ravel()  # 0, 1 or 2, (H + 1) * (W + 1)
    points = np.flatnonzero(corners_at != 0)  # numpy finds ones among bools faster than numbers among numbers
    if not len(points):
        return None
    keys = np.repeat(points, corners_at[points])
    ys, xs = np.divmod(keys, mask.shape[1] + 1)

    # Of two corners at one point the first holds the edge to the left. To keep the pixels apart it also holds
    # the upper edge where the region is north-west and south-east, and the lower one otherwise.
    second = np.concatenate(([False], keys[1:] == keys[:-1]))
    second_down = second ^ (padded[ys, xs] == 0)
    down_columns = np.lexsort((second_down, ys, xs))
    vertical = np.empty_like(down_columns)
    vertical[down_columns[0::2]] = down_columns[1::2]
    vertical[down_columns[1::2]] = down_columns[0::2]

    lefts = np.arange(0, len(keys), 2)
    below = padded[ys[0::2] + 1, xs[0::2] + 1] == 1  # whether the region lies below the edge from lefts to lefts + 1
    tails = np.where(below, lefts, lefts + 1)
    following = vertical.copy()
    following[tails] = tails ^ 1

    walk = following.tolist()
    starts = _first_corners(walk)  # each the top left corner of its outline
    is_part = [bool(below[start // 2]) for start in starts]
    xy = list(zip(xs.tolist(), ys.tolist(), strict=True))
    return _Walk(xy, keys, walk, starts, is_part, padded)


def _first_corners(walk: list[int]) -> list[int]:
    """The lowest corner of every cycle of `walk` (corner -> next corner)."""
    seen = bytearray(len(walk))
    starts = []
    for start in range(len(walk)):
        if seen[start]:
            continue
        starts.append(start)
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            corner = walk[corner]
    return starts


def _splice(
    holes: list[int], walk: list[int], xy: list[tuple[int, int]], keys: np.ndarray, padded: np.ndarray
) -> set[int]:
    """Join every hole, given by its top left corner, to the outline above it: changes `walk`, extends `xy`.

    Returns the corners that are none any more, because the cut goes on straight from them.
    """
    pixels = padded.view(np.bool_)
    cuts = []
    for hole in holes:
        x, y = xy[hole]
        top = y - int(np.argmin(pixels[y::-1, x + 1]))  # the run of region pixels that ends above the hole
        left = int(np.searchsorted(keys, top * (padded.shape[1] - 1) + x, side="right")) - 1
        cuts.append((left, x, hole, top))
    skipped = set()
    # From right to left along an edge, so that each cut can be put right behind the edge's left corner.
    for left, x, hole, top in sorted(cuts, key=lambda cut: (cut[0], -cut[1])):
        back = len(xy)
        xy.append((x, top))
        walk.append(walk[left])
        if xy[left] == (x, top):
            skipped.add(left)
            walk[left] = walk[hole]
        else:
            xy.append((x, top))
            walk.append(walk[hole])
            walk[left] = back + 1
        walk[hole] = back
    return skipped


def _ring(start: int, walk: list[int], xy: list[tuple[int, int]], skipped: set[int]) -> list[tuple[int, int]]:
    """The corners of the cycle of `walk` that `start` is on, but for those skipped."""
    ring = []
    corner = start
    while True:
        if corner not in skipped:
            ring.append(xy[corner])
        corner = walk[corner]
        if corner == start:
            return ring
