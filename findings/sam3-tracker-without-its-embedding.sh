#!/usr/bin/env bash
# One would guess: Sam3TrackerModel adds its no_memory_embedding to the features that its decoder reads, as Sam2Model
# does, and as SAM 3's own code does for single images.
# Instead: it adds it to the last of four grids, and the decoder reads the first three. The embedding changes nothing.
# Why it matters: the published decoder was trained with it, so masks differ from those of SAM 3's own code and of
# Sam3VideoModel, which leaves the fourth grid out before. No error or warning tells of it.
# Take a release of transformers in which this is mended, or `del model.vision_encoder.neck.fpn_layers[3:]` after loading.
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
from transformers import Sam3TrackerConfig, Sam3TrackerModel

backbone = {"model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 112, "global_attn_indexes": [0], "pretrain_image_size": 112}
config = Sam3TrackerConfig(
    vision_config={"model_type": "sam3_vision_model", "backbone_config": backbone, "fpn_hidden_size": 32,
                   "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]},
    prompt_encoder_config={"hidden_size": 32, "image_size": 112},
    mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2},
)
torch.manual_seed(0)
model = Sam3TrackerModel(config).eval()
image, box = torch.randn(1, 3, 112, 112), torch.tensor([[[10.0, 10, 60, 70]]])


@torch.inference_mode()
def change():
    """How much the logits change with the embedding."""
    found = []
    for value in (0.0, 5.0):
        model.no_memory_embedding.fill_(value)
        model.no_memory_embedding[..., ::2] *= -1
        found.append(model(image, input_boxes=box).pred_masks)
    return float((found[0] - found[1]).abs().max())


print("transformers", transformers.__version__, "- torch", torch.__version__)
as_it_is = change()
del model.vision_encoder.neck.fpn_layers[3:]
mended = change()
print(f"logits change with the embedding by {as_it_is:.3g}; without the fourth grid by {mended:.3g}")
if not as_it_is == 0 < mended:
    sys.exit("no longer so: the embedding reaches the decoder")
print("as stated: the embedding changes nothing")
PY
