#!/usr/bin/env bash
# One would guess: EdgeTamConfig() describes EdgeTAM as published, with RepViT-M1 as its image backbone, as its
# documentation and the channels in it say.
# Instead: its backbone is ResNet-50. The default is given under a misspelt name, which is kept as a field that nobody
# reads, and the field that counts has the default of every timm model.
# Why it matters: a model made from it has another network than its name says, whose grids do not fit the channels of
# its neck. Saved folders pass the error on.
# Name the backbone: EdgeTamConfig(vision_config={"backbone_config": {"model_type": "timm_wrapper", "architecture":
# "repvit_m1", ...}}).
# Seen with: transformers 5.23.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet transformers==5.23.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import transformers
from transformers import EdgeTamConfig

vision = EdgeTamConfig().vision_config
backbone = vision.backbone_config.to_dict()
names = {key: value for key, value in backbone.items() if value in ("repvit_m1", "resnet50")}
print("transformers", transformers.__version__)
print("backbone:", names, "- channels of the neck:", vision.backbone_channel_list)
if backbone["architecture"] != "resnet50" or vision.backbone_channel_list != [384, 192, 96, 48]:
    sys.exit("no longer so: the default backbone fits its channels")
print("as stated: the default backbone is ResNet-50, whose stages have 256 to 2048 channels")
PY
