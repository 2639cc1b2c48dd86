#!/usr/bin/env bash
# One would guess: contour2rle(contours, 0, img_width, img_height), given the image's width and height, packs the
# contour as a brush stroke of Label Studio that unpacks to the same mask.
# Instead: it makes an array of img_width rows and img_height columns, and draws there. What is unpacked is cut off and
# scattered. It is right for square images only, and for others if width and height are given in each other's place.
# Why it matters: this is the package's own way from contours of predicted masks to pre-annotations. The number of
# bytes is right, so the import succeeds; tests with square images pass.
# Seen with: label-studio-sdk 2.1.2, opencv-python-headless 4.12.0.88, numpy 2.2.6.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-sdk==2.1.2 opencv-python-headless==4.12.0.88 numpy==2.2.6
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import cv2
import numpy as np
from label_studio_sdk.converter.brush import contour2rle, decode_rle


def overlap(height, width, first, second):
    """IoU of a mask and of what comes back from Label Studio's form of it."""
    mask = np.zeros((height, width), np.uint8)
    mask[10:30, 20:50] = 1
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    stroke = decode_rle(contour2rle(contours, 0, first, second))
    back = stroke.reshape(height, width, 4)[:, :, 3] > 0  # as the package's own decode_from_annotation does
    iou = (back & (mask > 0)).sum() / (back | (mask > 0)).sum()
    print(f"image {width} wide, {height} high; img_width={first}, img_height={second}: IoU {iou:.2f}")
    return iou


print("label-studio-sdk", version("label-studio-sdk"))
square = overlap(100, 100, 100, 100)
named = overlap(60, 100, first=100, second=60)
swapped = overlap(60, 100, first=60, second=100)
if not (square == swapped == 1 and named < 0.5):
    sys.exit("no longer so: width and height may be given by their names")
print("as stated: only with width and height in each other's place does the mask come back")
PY
