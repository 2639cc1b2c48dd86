#!/usr/bin/env bash
# One would guess: "Brush labels to COCO" of Label Studio's exports gives each stroke's pixels as one annotation, as the
# "COCO" export does with polygons.
# Instead: each part of a stroke is an annotation of its own, holes are filled, and both are said nowhere. The plain
# "COCO" export has no annotation of a stroke at all, and not even its image.
# Why it matters: these are the two ways from brush masks to COCO that Label Studio offers. Rings, handles and things
# behind others come out with other areas and other counts; the files are valid and load everywhere.
# Seen with: label-studio-sdk 2.1.2, whose converter Label Studio 1.23.2 exports by.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import mask2rle
from PIL import Image

logging.disable(logging.CRITICAL)
HEIGHT, WIDTH = 60, 100
mask = np.zeros((HEIGHT, WIDTH), np.uint8)
mask[10:50, 20:80] = 255
mask[20:40, 40:60] = 0  # the hole of a ring
mask[5:8, 90:95] = 255  # a second part of the same object
Image.new("RGB", (WIDTH, HEIGHT)).save("a.png")
value = {"format": "rle", "rle": mask2rle(mask), "brushlabels": ["ring"]}
stroke = {
    "id": "r", "from_name": "mask", "to_name": "image", "type": "brushlabels", "original_width": WIDTH,
    "original_height": HEIGHT, "value": value,
}
annotation = {"id": 1, "completed_by": 1, "created_at": "2026-01-01", "result": [stroke]}
Path("tasks").mkdir()
Path("tasks/1.json").write_text(json.dumps({"id": 1, "data": {"image": "a.png"}, "annotations": [annotation]}))
interface = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="mask" toName="image"><Label value="ring"/></BrushLabels></View>'
)


def exported(kind, name):
    Converter(interface, ".", download_resources=False).convert("tasks", kind, kind, is_dir=True)
    found = json.loads(next(Path(kind).rglob(name)).read_text())
    print(f"{kind}: {len(found['images'])} images, annotations with areas {[one['area'] for one in found['annotations']]}")
    return found


print("label-studio-sdk", version("label-studio-sdk"), f"- one stroke of {(mask > 0).sum()} pixels in two parts, with a hole")
plain, brush = exported("COCO", "result.json"), exported("BRUSH_TO_COCO", "result_coco.json")
areas = sorted(one["area"] for one in brush["annotations"])
if plain["annotations"] or plain["images"] or len(areas) != 2 or areas[1] < 2200:
    sys.exit("no longer so")
print("as stated: two objects, the hole of 400 pixels filled; and nothing at all in plain COCO")
PY
