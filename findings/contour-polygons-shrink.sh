#!/usr/bin/env bash
# One would guess: a mask's contour by cv2.findContours, written as a COCO polygon, is read by pycocotools as that mask.
# Instead: OpenCV's contour runs through the middles of the outermost pixels, and cv2.fillPoly fills those pixels
# again. COCO's polygon is an outline between pixels: one column and one row are lost. 10 x 10 pixels come back as
# 9 x 9, a square of 4 x 4 as 3 x 3, and a line of one pixel's width as nothing.
# Why it matters: exporters go this way (Label Studio's brush to COCO, supervision's as_coco). A perfect mask of a small
# object then has an IoU of 0.81 or 0.56 with its own annotation, and counts as missed at higher IoU thresholds.
# Seen with: opencv-python-headless 4.14.0.94 and 5.0.0.93, pycocotools 2.0.11, numpy 2.4.6.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet opencv-python-headless==5.0.0.93 pycocotools==2.0.11 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import cv2
import numpy as np
from pycocotools import mask as coco_mask


def areas(height, width):
    """Pixels of a rectangle, of its contour filled by OpenCV, and of its contour as a COCO polygon."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5 : 5 + height, 7 : 7 + width] = 1
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = int(cv2.fillPoly(np.zeros_like(mask), contours, 1).sum())
    polygons = [contour.ravel().tolist() for contour in contours]
    as_coco = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape)))
    iou = (mask & as_coco).sum() / (mask | as_coco).sum()
    print(f"{height:2} x {width:2} = {mask.sum():3} pixels; filled by OpenCV {filled:3}; by pycocotools {as_coco.sum():3}; IoU {iou:.2f}")
    return int(mask.sum()), filled, int(as_coco.sum())


print("opencv", cv2.__version__, "- pycocotools", version("pycocotools"))
seen = [areas(30, 40), areas(10, 10), areas(4, 4), areas(1, 20)]
if seen != [(1200, 1200, 1131), (100, 100, 81), (16, 16, 9), (20, 20, 0)]:
    sys.exit("no longer so: the polygon has another area")
print("as stated: each time a row and a column are lost")
PY
