#!/usr/bin/env bash
# One would guess: COCOeval(..., "segm") sorts the found masks into small, medium and large by the masks' areas.
# Instead: loadRes() takes the area of the box as soon as the results have a "bbox" beside the mask. A thin thing in a
# large box is then "large" as a result and "small" as ground truth, and what is wrongly found leaves its size's AP.
# Why it matters: whoever turns boxes into masks has both, and writes both. The AP over all sizes stays the same, so
# that nobody looks; AP small, medium and large change, by a factor of two here.
# Seen with: pycocotools 2.0.11, numpy 2.4.6. Source: a comment in MMDetection 3.3.0's CocoMetric, which drops the box.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pycocotools==2.0.11 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import contextlib
import io
import sys
from importlib.metadata import version

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZE = 200


def pole(left):
    """A leaning pole, (H, W) bool: 720 pixels, in a box of 7,800."""
    mask = np.zeros((SIZE, SIZE), bool)
    for row in range(120):
        mask[20 + row, left + row // 2 : left + row // 2 + 6] = True
    return mask


def rle(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def scores(with_box):
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": SIZE, "height": SIZE}],
        "categories": [{"id": 1, "name": "pole"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(pole(left).sum()),
             "segmentation": rle(pole(left)), "bbox": coco_mask.toBbox(rle(pole(left))).tolist()}
            for number, left in ((1, 10), (2, 120))
        ],
    }
    found = []
    for left, score in ((60, 0.95), (10, 0.9)):  # the first is wrong, the second is right
        one = {"image_id": 1, "category_id": 1, "score": score, "segmentation": rle(pole(left))}
        if with_box:
            one["bbox"] = coco_mask.toBbox(one["segmentation"]).tolist()
        found.append(one)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(found)
        run = COCOeval(truth, results, "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    print(f"results with bbox: {with_box!s:5}  area of a mask {results.dataset['annotations'][0]['area']:6.0f}"
          f"  AP {run.stats[0]:.3f}  AP small {run.stats[3]:.3f}")
    return run.stats


print("pycocotools", version("pycocotools"), "- masks of", pole(10).sum(), "pixels")
with_box, without = scores(True), scores(False)
if with_box[0] != without[0] or not with_box[3] > 1.5 * without[3]:
    sys.exit("no longer so: a bbox in the results does not change the AP of small masks")
print("as stated: the same masks, and twice the AP for small ones")
PY
