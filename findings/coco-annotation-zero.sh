#!/usr/bin/env bash
# One would guess: the id of an annotation is a name, and which numbers a file takes for its ids changes no figure; the
# format names no smallest one.
# Instead: COCOeval keeps, for each detection, the id of the annotation that it met, and 0 where it met none. An annotation
# of id 0 is never found: its detection counts as a false one. Perfect detections of two objects have an AP of 0.25.
# Why it matters: whoever writes a COCO file with `enumerate` has an annotation 0. In a large set one lost object is too
# little to be noticed, and in a small one, or a class of few objects, a model looks bad that is not. faster-coco-eval
# 1.8.0 gives the same figure, and warns. Box2mask gives all annotations ids of its own, from 1, before it measures.
# Seen with: pycocotools 2.0.11, numpy 2.4.6.
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

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOXES = ([10, 10, 50, 30], [70, 10, 50, 30])


def precision(first):
    """AP of detections that are the true boxes; the annotations' ids begin with `first`."""
    truth, found = COCO(), [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9 - 0.1 * number} for number, box in enumerate(BOXES)
    ]
    truth.dataset = {
        "images": [{"id": 1, "width": 200, "height": 100, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 1500, "iscrowd": 0}
            for number, box in enumerate(BOXES, start=first)
        ],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[8]


with contextlib.redirect_stdout(io.StringIO()):
    from_one, from_zero = precision(1), precision(0)
print(f"pycocotools {version('pycocotools')}: perfect detections of two objects")
print(f"  annotations 1 and 2: AP {from_one[0]:.3f}, recall {from_one[1]:.2f}")
print(f"  annotations 0 and 1: AP {from_zero[0]:.3f}, recall {from_zero[1]:.2f}")
if from_one != (1, 1) or not (abs(from_zero[0] - 0.2525) < 0.001 and from_zero[1] == 0.5):
    sys.exit("no longer so: an annotation of id 0 is found as any other")
print("as stated: the annotation of id 0 is never found")
PY
