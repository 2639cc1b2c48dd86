"""The boxes around masks, upright and turned."""

from __future__ import annotations

import cv2
import numpy as np


def box_around(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """x1, y1, x2, y2 of the pixels of a mask (H, W), bool or 0 and 1, from edge to edge; None for an empty mask.

    Fast in any order of memory: a mask that was decoded from COCO's RLE is there by columns.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def rotated_box_around(mask: np.ndarray) -> np.ndarray | None:
    """(4, 2) float64: the corners x, y of the smallest rectangle around the mask's pixels, turned as it may be.

    Clockwise on the screen from the highest one, of two the left one. They may lie outside the image. None for an empty
    mask.
    """
    box = box_around(mask)
    if box is None:
        return None
    x1, y1, x2, y2 = box
    inside = mask[y1:y2, x1:x2]
    rows = np.flatnonzero(inside.any(axis=1))
    left = inside[rows].argmax(axis=1)
    right = inside.shape[1] - inside[rows, ::-1].argmax(axis=1)
    edges = [np.stack((xs, ys), axis=1) for xs in (left, right) for ys in (rows, rows + 1)]
    found = cv2.boxPoints(cv2.minAreaRect(np.concatenate(edges).astype(np.float32))).astype(np.float64)
    corners = np.round(found, 3)
    (ax, ay), (bx, by), (cx, cy) = corners[:3]
    if (bx - ax) * (cy - ay) < (by - ay) * (cx - ax):
        corners = corners[::-1]
    first = min(range(4), key=lambda at: (corners[at][1], corners[at][0]))
    return np.roll(corners, -first, axis=0) + (x1, y1)
