"""Cut-outs of objects with the outlines of the true and of the predicted mask, as JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import ceil

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from models.evaluation import ScoredObject

# Blue and orange of Okabe and Ito's palette, which the colour-blind can tell apart too.
TRUE_RGB, FOUND_RGB = (86, 180, 233), (230, 159, 0)
LONGEST_SIDE = 320
# Around the object, as a share of its longer side.
MARGIN = 0.2


def ranked(objects: Sequence[ScoredObject], count: int) -> dict[str, list[ScoredObject]]:
    """Of the objects that have a mask the `count` best, middle and worst by IoU; none is in two of the three."""
    order = sorted(
        (one for one in objects if one.scores is not None), key=lambda one: -one.scores.iou if one.scores else 0.0
    )
    count = min(count, max(1, len(order) // 3))
    best, rest = order[:count], order[count:]
    worst = rest[max(0, len(rest) - count) :]
    middle = rest[: len(rest) - len(worst)]
    start = (len(middle) - count + 1) // 2
    return {"best": best, "median": middle[max(0, start) : max(0, start) + count], "worst": worst}


def cutout(image: np.ndarray, scored: ScoredObject) -> bytes:
    """A JPEG of the object in its image (H, W, 3) uint8 RGB, enlarged or reduced to `LONGEST_SIDE`."""
    masks = [coco_mask.decode(dict(rle)) for rle in (scored.truth, scored.found) if rle is not None]
    x1, y1, x2, y2 = _around(scored)
    crop = image[y1:y2, x1:x2]
    scale = LONGEST_SIDE / max(crop.shape[:2])
    size_wh = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    canvas = cv2.resize(crop, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    outlines = []
    for mask in masks:
        large = cv2.resize(np.ascontiguousarray(mask[y1:y2, x1:x2]), size_wh, interpolation=cv2.INTER_NEAREST)
        outlines.append(cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0])
    for lines in outlines:  # a dark edge, so that no background hides a line
        cv2.drawContours(canvas, lines, -1, (0, 0, 0), 4)
    for lines, colour in zip(outlines, (TRUE_RGB, FOUND_RGB), strict=False):
        cv2.drawContours(canvas, lines, -1, colour, 2)
    buffer = BytesIO()
    Image.fromarray(canvas).save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def _around(scored: ScoredObject) -> tuple[int, int, int, int]:
    """The part of the image with the object's masks and box, and a margin; at least one pixel."""
    height, width = scored.truth["size"]
    extents = [coco_mask.toBbox(dict(rle)) for rle in (scored.truth, scored.found) if rle is not None]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in extents if w and h]
    boxes += [scored.box_xyxy] if scored.box_xyxy is not None else []
    corners = np.array(boxes or [(0, 0, width, height)], np.float64)
    x1, y1 = (float(value) for value in corners[:, :2].min(axis=0))
    x2, y2 = (float(value) for value in corners[:, 2:].max(axis=0))
    margin = max(4.0, MARGIN * max(x2 - x1, y2 - y1))
    left, top = (min(max(int(start - margin), 0), side - 1) for start, side in ((x1, width), (y1, height)))
    right = min(max(ceil(x2 + margin), left + 1), width)
    bottom = min(max(ceil(y2 + margin), top + 1), height)
    return left, top, right, bottom
