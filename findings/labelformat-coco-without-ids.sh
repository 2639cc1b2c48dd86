#!/usr/bin/env bash
# One would guess: a COCO file that labelformat writes can be opened by pycocotools, whose format it is.
# Instead: its annotations have neither an `id` nor an `area`, with boxes and with outlines alike. pycocotools and
# faster-coco-eval end with KeyError('id') while they index it; those that go over the annotations one by one read it.
# Why it matters: the set can be looked at, and even trained on, and the evaluation at the end has no truth to measure
# against. Ids that are added must begin at 1: COCOeval never finds an annotation 0 (coco-annotation-zero.sh).
# Seen with: labelformat 0.1.17, pycocotools 2.0.11, faster-coco-eval 1.8.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet labelformat==0.1.17 pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
"$work/venv/bin/python" - "$work/set" <<'PY'
import contextlib
import io
import json
import sys
from importlib.metadata import version
from pathlib import Path

import faster_coco_eval
from labelformat import formats
from PIL import Image
from pycocotools.coco import COCO

folder = Path(sys.argv[1])
(folder / "images").mkdir(parents=True)
(folder / "labels").mkdir()
Image.new("RGB", (200, 100)).save(folder / "images" / "a.jpg")
(folder / "data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnc: 1\nnames: [cup]\n")
print("labelformat", version("labelformat"), "pycocotools", version("pycocotools"))
seen = []
for what, line, read, write in (
    ("boxes", "0 0.2 0.25 0.25 0.3", formats.YOLOv8ObjectDetectionInput, formats.COCOObjectDetectionOutput),
    ("outlines", "0 0.1 0.1 0.2 0.1 0.2 0.4", formats.YOLOv8InstanceSegmentationInput,
     formats.COCOInstanceSegmentationOutput),
):
    (folder / "labels" / "a.txt").write_text(line + "\n")
    path = folder / f"{what}.json"
    write(output_file=path).save(label_input=read(input_file=folder / "data.yaml", input_split="train"))
    (annotation,) = json.loads(path.read_text())["annotations"]
    said = []
    for library in (COCO, faster_coco_eval.COCO):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                library(str(path))
            said.append("opened")
        except KeyError as error:
            said.append(f"KeyError({error})")
    print(f"  {what}: an annotation has {', '.join(annotation)}; pycocotools: {said[0]}, faster-coco-eval: {said[1]}")
    seen.append(("id" in annotation, "area" in annotation, *said))
if seen != [(False, False, "KeyError('id')", "KeyError('id')")] * 2:
    sys.exit("no longer so: the annotations have ids, or are opened without")
print("as stated: annotations without ids, which pycocotools cannot open")
PY
