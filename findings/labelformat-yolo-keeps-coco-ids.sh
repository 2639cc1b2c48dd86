#!/usr/bin/env bash
# One would guess: a COCO file that labelformat turns into a YOLO set can be trained on by Ultralytics; YOLO counts classes
# from 0, so the ids of COCO, which begin at 1 and have gaps, become places in the list of names.
# Instead: the ids stay. data.yaml says `nc: 2` and names them 1 and 2, the label files say 1 and 2, and Ultralytics
# refuses the set: a set of 2 classes has the indices 0 and 1.
# Why it matters: nearly every COCO file counts from 1, those of CVAT and of box2mask among them. `box2mask data convert`
# writes a YOLO set that begins at 0, and `box2mask data` reads labelformat's by the names that data.yaml gives.
# Seen with: labelformat 0.1.17, ultralytics 8.3.200, torch 2.13.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet labelformat==0.1.17 ultralytics==8.3.200 torch==2.13.0 torchvision==0.28.0 \
    opencv-python-headless==5.0.0.93
"$work/venv/bin/pip" uninstall --quiet --yes opencv-python
"$work/venv/bin/pip" install --quiet --force-reinstall --no-deps opencv-python-headless==5.0.0.93
YOLO_CONFIG_DIR="$work" "$work/venv/bin/python" -W ignore - "$work" <<'PY'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import yaml
from labelformat.formats import COCOObjectDetectionInput, YOLOv8ObjectDetectionOutput
from PIL import Image
from ultralytics.data.utils import check_det_dataset

folder = Path(sys.argv[1]) / "set"
(folder / "images").mkdir(parents=True)
Image.new("RGB", (200, 100)).save(folder / "images" / "a.jpg")
box = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [10, 10, 50, 30], "area": 1500}
coco = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}],
    "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "can"}],
    "annotations": [box],
}
(folder / "coco.json").write_text(json.dumps(coco))
places = YOLOv8ObjectDetectionOutput(output_file=folder / "data.yaml", output_split="train")
places.save(label_input=COCOObjectDetectionInput(input_file=folder / "coco.json"))
written = yaml.safe_load((folder / "data.yaml").read_text())
line = (folder / "labels" / "a.txt").read_text().strip()
(folder / "data.yaml").write_text(yaml.safe_dump({**written, "val": "images"}))  # which Ultralytics wants to be there
try:
    check_det_dataset(str(folder / "data.yaml"))
    said = "nothing"
except KeyError as error:
    said = str(error)
print("labelformat", version("labelformat"), "ultralytics", version("ultralytics"))
print(f"data.yaml: nc {written['nc']}, names {written['names']}; a label: {line}")
print("Ultralytics says:", said)
if list(written["names"]) != [1, 2] or not line.startswith("1 ") or "class indices" not in said:
    sys.exit("no longer so: the classes are counted from 0, or Ultralytics takes them")
print("as stated: the set keeps COCO's ids, and Ultralytics refuses it")
PY
