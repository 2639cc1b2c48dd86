#!/usr/bin/env bash
# One would guess: SamHQModel makes its masks from the image as its decoder's layers leave it, as SamModel does.
# Instead: its mask decoder puts that image into a name that it never reads. It goes on with the image from before the
# layers, and swaps its rows and columns on the way.
# Why it matters: masks of SAM-HQ are wrong at any prompt, while shapes and predicted IoU are as they should be. No error
# or warning tells of it.
# Take a release of transformers in which this is mended, or put a module in the place of mask_decoder.transformer that
# writes its second result into the tensor image_embeddings that it was given, with rows and columns swapped.
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
from transformers import SamConfig, SamHQConfig, SamHQModel, SamModel


def upscaled_and_seen(model_class, config_class):
    """What a model upscales for its masks, what the layers gave for the image, and what they got: (1, C, h, w) each."""
    torch.manual_seed(0)
    vision = {"num_hidden_layers": 1, "hidden_size": 96, "num_attention_heads": 4, "initializer_range": 0.02,
              "global_attn_indexes": [0], "image_size": 256}
    parts = {"vision_config": vision, "prompt_encoder_config": {"image_size": 256, "image_embedding_size": 16}}
    if model_class is SamHQModel:
        parts["mask_decoder_config"] = {"vit_dim": 96}
    decoder = (model := model_class(config_class(**parts)).eval()).mask_decoder
    seen = {}

    def keep(_, args, kwargs, output):
        seen["got"] = kwargs["image_embeddings"].clone()
        seen["gave"] = output[1].squeeze(1).transpose(1, 2).reshape(seen["got"].shape)

    decoder.transformer.register_forward_hook(keep, with_kwargs=True)
    decoder.upscale_conv1.register_forward_pre_hook(lambda _, args: seen.update(upscaled=args[0].clone()))
    with torch.inference_mode():
        model(torch.randn(1, 3, 256, 256), input_points=torch.full((1, 1, 1, 2), 99.0))
    return seen["upscaled"], seen["gave"], seen["got"]


print("transformers", transformers.__version__, "- torch", torch.__version__)
results = {}
for model_class, config_class in ((SamModel, SamConfig), (SamHQModel, SamHQConfig)):
    upscaled, gave, got = upscaled_and_seen(model_class, config_class)
    swapped = got.transpose(2, 3)
    results[model_class] = [torch.allclose(upscaled, other, atol=1e-5) for other in (gave, swapped)]
    print(f"{model_class.__name__}: upscales what the layers gave: {results[model_class][0]}; "
          f"what they got, with rows and columns swapped: {results[model_class][1]}")
if results != {SamModel: [True, False], SamHQModel: [False, True]}:
    sys.exit("no longer so: SamHQModel reads what its decoder's layers make of the image")
print("as stated: SamHQModel drops what its decoder's layers make of the image")
PY
