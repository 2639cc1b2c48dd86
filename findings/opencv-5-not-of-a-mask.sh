#!/usr/bin/env bash
# One would guess: cv2.bitwise_not() of a boolean mask gives its opposite, as ~mask does, or is refused.
# Instead: OpenCV 4 refuses a boolean array. OpenCV 5 takes it and inverts all eight bits of every byte: True (1)
# becomes 254, False (0) becomes 255, and both are True. The result is a boolean array that is True everywhere.
# Why it matters: code that had to write mask.astype(np.uint8) drops the cast after the update, runs without an error,
# and selects the whole picture. cv2.bitwise_and, or, xor and countNonZero on such masks are right, which hides it.
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

mask = np.zeros((6, 6), bool)
mask[1:4, 2:5] = True
try:
    inverted = cv2.bitwise_not(mask)
except cv2.error:
    print(cv2.__version__, "bitwise_not: refused")
    outcome = "refused"
else:
    print(cv2.__version__, f"bitwise_not: {inverted.dtype}, {inverted.sum()} pixels of {mask.size} are True,",
          f"bytes {np.unique(inverted.view(np.uint8)).tolist()}; ~mask has {(~mask).sum()}")
    outcome = "all True" if inverted.dtype == bool and inverted.all() else "other"
    both = cv2.bitwise_and(mask, ~mask)
    print(cv2.__version__, f"bitwise_and with ~mask: {both.sum()} pixels; countNonZero: {cv2.countNonZero(mask)}")
if outcome != sys.argv[1]:
    sys.exit(f"no longer so: expected {sys.argv[1]}, got {outcome}")
PY
PYTHONPATH="$work/four" "$work/venv/bin/python" "$work/try.py" "refused"
PYTHONPATH="$work/five" "$work/venv/bin/python" "$work/try.py" "all True"
echo "as stated: what OpenCV 4 refused, OpenCV 5 answers with True everywhere"
