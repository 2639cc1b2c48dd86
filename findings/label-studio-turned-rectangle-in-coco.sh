#!/usr/bin/env bash
# One would guess: the COCO export of a rectangle that was turned in Label Studio has the box around the turned
# rectangle as it is seen on the picture.
# Instead: the corners are turned in percent of the width and the height, as if the picture were square. On a picture of
# 200 x 100 pixels, the box of a rectangle of 40 x 10 that is turned by 30 degrees starts at 40 in place of 45 and is
# 18.7 high in place of 28.7. On a square picture it is right.
# Why it matters: the boxes of every turned object on a picture that is not square are wrong, by up to tens of pixels,
# and nothing says so: a detector is trained on them.
# Seen with: label-studio-sdk 2.1.2.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet label-studio-sdk==2.1.2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path

from label_studio_sdk.converter import Converter

CONFIG = '<View><Image name="i" value="$image"/><RectangleLabels name="l" toName="i"><Label value="can"/></RectangleLabels></View>'
LEFT, TOP, WIDTH, HEIGHT, DEGREES = 50.0, 20.0, 40.0, 10.0, 30.0  # in pixels, turned about the top left corner


def exported(width, height):
    """The box that the export has, x1 y1 x2 y2 in pixels of a picture of this size."""
    value = {
        "x": 100 * LEFT / width, "y": 100 * TOP / height, "width": 100 * WIDTH / width,
        "height": 100 * HEIGHT / height, "rotation": DEGREES, "rectanglelabels": ["can"],
    }
    result = {"id": "r", "type": "rectanglelabels", "from_name": "l", "to_name": "i", "original_width": width, "original_height": height, "value": value}
    folder = Path(f"{width}x{height}")
    folder.mkdir()
    tasks = [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": [result]}]}]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    converter = Converter(CONFIG, str(folder), download_resources=False)
    converter.convert_to_coco(str(folder / "tasks.json"), str(folder / "out"), is_dir=False)
    x, y, w, h = json.loads((folder / "out" / "result.json").read_text())["annotations"][0]["bbox"]
    return [round(one, 1) for one in (x, y, x + w, y + h)]


cos, sin = math.cos(math.radians(DEGREES)), math.sin(math.radians(DEGREES))
corners = [(LEFT + x * cos - y * sin, TOP + x * sin + y * cos) for x in (0, WIDTH) for y in (0, HEIGHT)]
expected = [round(f(one[axis] for one in corners), 1) for f in (min, max) for axis in (0, 1)]
print("label-studio-sdk", version("label-studio-sdk"))
print("the turned rectangle reaches over", expected)
square, wide = exported(200, 200), exported(200, 100)
print("exported from 200 x 200:", square)
print("exported from 200 x 100:", wide)
if square != expected or wide == expected:
    sys.exit("no longer so")
print("as stated: right on the square picture, wrong on the other")
PY
