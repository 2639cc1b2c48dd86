#!/usr/bin/env bash
# One would guess: an Ultralytics segmentation set keeps every outline of a label file; only equal lines are duplicates.
# Instead: two objects of one class whose outlines have the same bounding box are "duplicate labels": the outlines are
# made into boxes first, and of equal boxes one stays. The other object is gone from training and from validation.
# Why it matters: two sticks that cross, the blades of scissors, a plate and its rim, or masks that reach the edges of
# their image have the same box and share few pixels. Below, the second stick of a cross is taken away, and the training
# is shown a picture in which it is background. The only sign is "1 duplicate labels removed" while the set is read.
# Seen with: ultralytics 8.3.200, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ultralytics==8.3.200 torch==2.13.0 torchvision==0.28.0 opencv-python-headless==5.0.0.93
"$work/venv/bin/pip" uninstall --quiet --yes opencv-python
"$work/venv/bin/pip" install --quiet --force-reinstall --no-deps opencv-python-headless==5.0.0.93
YOLO_CONFIG_DIR="$work" "$work/venv/bin/python" -W ignore - "$work" <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from ultralytics.data.dataset import YOLODataset

folder = Path(sys.argv[1]) / "set"
(folder / "images").mkdir(parents=True)
(folder / "labels").mkdir()
sticks = [
    np.array([(0.2, 0.2), (0.25, 0.2), (0.8, 0.75), (0.8, 0.8), (0.75, 0.8), (0.2, 0.25)]),
    np.array([(0.8, 0.2), (0.75, 0.2), (0.2, 0.75), (0.2, 0.8), (0.25, 0.8), (0.8, 0.25)]),
]
masks = [cv2.fillPoly(np.zeros((200, 200), np.uint8), [(one * 200).astype(np.int32)], 1) > 0 for one in sticks]
cv2.imwrite(str(folder / "images" / "cross.png"), np.any(masks, 0).astype(np.uint8) * 255)
lines = ["0 " + " ".join(map(str, one.ravel().tolist())) for one in sticks]
(folder / "labels" / "cross.txt").write_text("\n".join(lines) + "\n")

dataset = YOLODataset(str(folder / "images"), data={"names": {0: "stick"}, "channels": 3}, task="segment", augment=False)
kept = len(dataset.labels[0]["segments"])
iou = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
print("ultralytics", version("ultralytics"))
print(f"sticks: 2, with an IoU of {iou:.2f}; in the data set: {kept}")
if kept != 1:
    sys.exit("no longer so: both are kept")
print("as stated: of two objects with the same bounding box, one is dropped")
PY
