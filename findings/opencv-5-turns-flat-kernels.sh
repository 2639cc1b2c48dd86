#!/usr/bin/env bash
# One would guess: a kernel given as a flat array, np.ones(5), works along the same axis in OpenCV 4 and 5.
# Instead: OpenCV 4 reads it as a column, OpenCV 5 as a row. cv2.dilate() with it grew a mask up and down; now it grows
# the mask to the left and right. The shape of the answer is the same, and there is no error.
# Why it matters: closing gaps and smoothing rims of masks along one axis goes on to work, along the other axis.
# The same turn is behind other changes: findNonZero(mask)[:, 0] gave points, and now gives their x alone.
# Seen with: opencv-python-headless 4.14.0.94 and 5.0.0.93, numpy 2.4.6.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6
"$work/venv/bin/pip" install --quiet --no-deps --target "$work/four" opencv-python-headless==4.14.0.94
"$work/venv/bin/pip" install --quiet --no-deps --target "$work/five" opencv-python-headless==5.0.0.93
cat >"$work/try.py" <<'PY'
import sys

import cv2
import numpy as np

mask = np.zeros((9, 9), np.uint8)
mask[4, 4] = 1
grown = {
    "np.ones(5)": cv2.dilate(mask, np.ones(5, np.uint8)),
    "np.ones((5, 1))": cv2.dilate(mask, np.ones((5, 1), np.uint8)),
    "np.ones((1, 5))": cv2.dilate(mask, np.ones((1, 5), np.uint8)),
}
extents = {}
for kernel, result in grown.items():
    height, width = int(result.any(axis=1).sum()), int(result.any(axis=0).sum())
    extents[kernel] = f"{height} high, {width} wide"
    print(cv2.__version__, f"one pixel, dilated by {kernel}: {extents[kernel]}")
print(cv2.__version__, "findNonZero gives the shape", cv2.findNonZero(mask).shape)
if extents["np.ones(5)"] != sys.argv[1] or extents["np.ones((5, 1))"] != "5 high, 1 wide":
    sys.exit(f"no longer so: expected {sys.argv[1]}")
PY
PYTHONPATH="$work/four" "$work/venv/bin/python" "$work/try.py" "5 high, 1 wide"
PYTHONPATH="$work/five" "$work/venv/bin/python" "$work/try.py" "1 high, 5 wide"
echo "as stated: the flat kernel has turned by 90 degrees; kernels of two dimensions have not"
