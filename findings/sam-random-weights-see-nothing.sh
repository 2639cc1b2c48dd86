#!/usr/bin/env bash
# One would guess: a SamModel with random weights gives meaningless masks, which differ from picture to picture.
# Instead: its image encoder starts with weights of 1e-10, and what it gives is near 1e-20. The masks look alive, as
# the decoder has common weights and hears of the box; they are the same, to the bit, for every picture.
# Why it matters: without the published weights, tests compare a rewritten encoder with this one by random weights. All
# such tests pass: below, with an encoder of half the layers. They compare zero with zero. Draw the weights anew first.
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


def sam(layers):
    """A small SAM of random weights for 128 x 128 pixels."""
    torch.manual_seed(0)
    sizes = {"image_size": 128, "patch_size": 16}
    vision = {"hidden_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2, "mlp_dim": 128,
              "global_attn_indexes": [1], "window_size": 4, **sizes}
    return SamModel(SamConfig(vision_config=vision, prompt_encoder_config={"image_embedding_size": 8, **sizes})).eval()


def masks(model, pictures):
    boxes = torch.tensor([[[10.0, 10.0, 60.0, 60.0]]]).expand(len(pictures), -1, -1)
    with torch.inference_mode():
        embeddings = model.get_image_embeddings(pictures)
        logits = model(image_embeddings=embeddings, input_boxes=boxes, multimask_output=False).pred_masks
    print(f"   largest embedding {embeddings.abs().max():.1e}, largest logit {logits.abs().max():.1e}, "
          f"between two pictures {(logits[0] - logits[1]).abs().max():.1e}")
    return logits


print("transformers", transformers.__version__, "- torch", torch.__version__)
pictures = torch.randn(2, 3, 128, 128)
whole, half = sam(layers=4), sam(layers=2)
for part in ("prompt_encoder", "mask_decoder", "shared_image_embedding"):  # all but the encoder is the same in both
    getattr(half, part).load_state_dict(getattr(whole, part).state_dict())
print("as made, 4 layers and 2 layers:")
by_whole, by_half = masks(whole, pictures), masks(half, pictures)
print("   do the two agree?", torch.allclose(by_whole, by_half))
print("the encoders' weights drawn anew:")
for model in (whole, half):
    torch.manual_seed(1)
    for weights in model.vision_encoder.parameters():
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.1)
anew_whole, anew_half = masks(whole, pictures), masks(half, pictures)
print("   do the two agree?", torch.allclose(anew_whole, anew_half))
blind = torch.equal(by_whole[0], by_whole[1]) and torch.allclose(by_whole, by_half)
sees = not torch.allclose(anew_whole[0], anew_whole[1]) and not torch.allclose(anew_whole, anew_half)
if not (blind and sees):
    sys.exit("no longer so: a SAM of random weights tells pictures apart")
print("as stated: as made, masks tell neither pictures nor encoders apart")
PY
