#!/usr/bin/env bash
# One would guess: pycocotools' mask.encode() takes every value above 0 as "inside", or refuses other values than 0 and 1.
# Instead: it starts a new run wherever a value changes, whatever the values are. With three values or more, what
# comes back has the inside and the outside mixed up: 0 1 2 0 0 is read back as 0 1 0 1 1.
# Why it matters: a mask that was resized smoothly, saved as JPEG, or is a map of labels has such values. The result
# is a valid RLE with a plausible area, and nothing warns.
# Seen with: pycocotools 2.0.11, numpy 2.4.6.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pycocotools==2.0.11 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from pycocotools import mask as coco_mask


def there_and_back(mask):
    return coco_mask.decode(coco_mask.encode(np.asfortranarray(mask)))


print("pycocotools", version("pycocotools"))
labels = np.array([[0, 1, 2, 0, 0]], np.uint8)
print("labels        ", labels[0], "->", there_and_back(labels)[0])

# A disc of 0 and 255 whose rim is smooth, as a resize leaves it.
y, x = np.mgrid[:200, :200]
smooth = np.clip((60 - np.hypot(x - 100, y - 100)) / 8 * 255, 0, 255).astype(np.uint8)
inside = smooth > 0
back = there_and_back(smooth).astype(bool)
overlap = (inside & back).sum() / (inside | back).sum()
print(f"smooth disc    {inside.sum()} pixels above 0 -> {back.sum()} pixels; IoU of the two {overlap:.2f}")
hard = there_and_back(inside.astype(np.uint8)).astype(bool)
print(f"the same as 0/1 {inside.sum()} pixels -> {hard.sum()} pixels")

if there_and_back(labels)[0].tolist() != [0, 1, 0, 1, 1] or overlap > 0.9 or not np.array_equal(hard, inside):
    sys.exit("no longer so: encode() reads a mask of several values in another way")
print("as stated: values beyond 0 and 1 turn inside and outside around")
PY
