#!/usr/bin/env bash
# One would guess: masks exported to COCO by supervision and read by pycocotools are objects that count.
# Instead: as_coco() marks every mask with a hole, or of two parts, as a crowd (iscrowd 1), since it writes these as
# RLE. pycocotools leaves crowds out of the average precision: it neither asks for them nor minds what is found there.
# Why it matters: a mug with a handle, or a thing behind a pole, is no longer part of the ground truth. Below, a model
# that misses the mug, and one that finds it in two halves, both get 1.0. Training code drops crowds as well.
# Seen with: supervision 0.31.2, pycocotools 2.0.11. Source: the first half stands in the export function's docstring.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet supervision==0.31.2 pycocotools==2.0.11 numpy==2.2.6 opencv-python-headless==4.12.0.88
"$work/venv/bin/python" - "$work" <<'PY'
import contextlib
import io
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

folder = Path(sys.argv[1])
y, x = np.mgrid[:200, :200]
from_mug = np.hypot(x - 70, y - 70)
mug = (from_mug < 50) & (from_mug > 25)  # a ring
plate = np.hypot(x - 150, y - 150) < 30


def average_precision(iscrowd=None):
    """AP of three models against the exported file."""
    image, file = str(folder / "a.png"), str(folder / "a.json")
    cv2.imwrite(image, np.zeros((200, 200, 3), np.uint8))
    masks = np.stack([mug, plate])
    data = {} if iscrowd is None else {"iscrowd": np.array(iscrowd)}
    boxes = sv.mask_to_xyxy(masks).astype(float)
    objects = sv.Detections(xyxy=boxes, mask=masks, class_id=np.array([0, 0]), data=data)
    sv.DetectionDataset(classes=["thing"], images=[image], annotations={image: objects}).as_coco(annotations_path=file)
    models = {
        "finds both": [mug, plate],
        "misses the mug": [plate],
        "finds the mug in two halves": [mug & (y < 70), mug & (y >= 70), plate],
    }
    result = {}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        ids = {"image_id": truth.getImgIds()[0], "category_id": truth.getCatIds()[0]}
        for name, found in models.items():
            rows = [
                {**ids, "score": 0.9 - number / 100, "segmentation": coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))}
                for number, mask in enumerate(found)
            ]
            run = COCOeval(truth, truth.loadRes(rows), "segm")
            run.evaluate()
            run.accumulate()
            run.summarize()
            result[name] = round(float(run.stats[1]), 2)  # at IoU 0.5
    print("iscrowd in the file:", [one["iscrowd"] for one in truth.dataset["annotations"]], "->", result)
    return list(result.values())


print("supervision", version("supervision"), "- pycocotools", version("pycocotools"))
exported = average_precision()
stated = average_precision(iscrowd=[0, 0])
if exported != [1.0, 1.0, 1.0] or not (stated[0] == 1.0 and max(stated[1:]) < 0.9):
    sys.exit("no longer so: a mask with a hole counts")
print("as stated: the mug with a hole does not count, unless iscrowd is given")
PY
