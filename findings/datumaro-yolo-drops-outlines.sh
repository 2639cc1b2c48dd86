#!/usr/bin/env bash
# One would guess: Datumaro reads a data set of Ultralytics' segmentation models (data.yaml, images/, labels/ with
# outlines) with its outlines, or as boxes; or it says that it cannot.
# Instead: as "yolo", it returns the images whose label file is empty or has boxes, and none of the others. No error and
# no warning: label files whose first line is not of five fields are passed over, and with them their images.
# Why it matters: a set of 4 images, 3 of them labelled, becomes a set of one background image; a set of which all have
# objects is not found at all.
# Seen with: datumaro 1.13.12.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datumaro==1.13.12
"$work/venv/bin/python" -W ignore - "$work" <<'PY'
import sys
from importlib.metadata import version
from pathlib import Path

from datumaro.components.dataset import Dataset
from PIL import Image

folder = Path(sys.argv[1]) / "set"
(folder / "images").mkdir(parents=True)
(folder / "labels").mkdir()
outline = "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n"
labels = {"one": outline, "two": outline * 2, "three": outline, "background": ""}
for name, text in labels.items():
    Image.new("RGB", (64, 64)).save(folder / "images" / f"{name}.png")
    (folder / "labels" / f"{name}.txt").write_text(text)
(folder / "data.yaml").write_text("train: images\nval: images\nnames:\n  0: can\n")

print("datumaro", version("datumaro"))
found = {item.id: len(item.annotations) for item in Dataset.import_from(str(folder), "yolo")}
print("written:", {name: text.count("\n") for name, text in labels.items()}, "objects")
print("read:   ", found)
if found != {"background": 0}:
    sys.exit("no longer so: images with outlines are read, or refused")
print("as stated: the images with outlines are gone, without a word")
PY
