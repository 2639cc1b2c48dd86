#!/usr/bin/env bash
# One would guess: a SamModel made from a config codes places as the published SAM does, and only has to learn the rest.
# Instead: the frequencies of its code for places are drawn with a standard deviation of half the encoder's width, 384
# for ViT-B, and not 1 as in SAM's own code. Half a pixel further, the code of a point is already unrelated.
# Why it matters: whoever trains a small SAM from the start gives it places that have nothing in common with their
# neighbours, so that what is learnt for one box says nothing of the next. No error or warning tells of it.
# Set prompt_encoder.shared_embedding.positional_embedding to torch.randn(2, 128) before training. Published weights
# bring their own and are not concerned.
# Seen with: transformers 5.23.0, torch 2.13.0 (the CPU build is enough).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
import sys

import torch
import transformers
from transformers import SamConfig, SamModel

torch.manual_seed(0)
model = SamModel(SamConfig(vision_config={"num_hidden_layers": 1})).eval()  # as ViT-B in all but depth
frequencies = model.prompt_encoder.shared_embedding.positional_embedding


def likeness(pixels):
    """The mean cosine between the codes of points and of points so many pixels to their right, of 1,024."""
    with torch.inference_mode():
        points = torch.linspace(50, 900, 100)[None, None, :, None].repeat(1, 1, 1, 2)
        moved = points + torch.tensor([pixels, 0.0])
        code, moved_code = (model.prompt_encoder.shared_embedding(at, (1024, 1024)) for at in (points, moved))
        return torch.cosine_similarity(code, moved_code, dim=-1).mean().item()


def report(name):
    values = [likeness(pixels) for pixels in (0.5, 1, 8, 64)]
    print(f"{name}: deviation {frequencies.std():5.1f}; likeness at 0.5, 1, 8, 64 pixels:",
          ", ".join(f"{value:.3f}" for value in values))
    return values


print("transformers", transformers.__version__, "- torch", torch.__version__)
made = report("as made    ")
with torch.no_grad():
    frequencies.copy_(torch.randn_like(frequencies))
drawn = report("drawn anew ")
if not (abs(made[1]) < 0.3 and drawn[1] > 0.99 and drawn[2] > 0.9):
    sys.exit("no longer so: the code of a neighbouring pixel is alike")
print("as stated: as made, the next pixel is as far as any other")
PY
