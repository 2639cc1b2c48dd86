"""One SAM of random weights: in float32, in bfloat16 as published, and in bfloat16 as it is served."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import SamConfig, SamModel
from transformers.models.sam.modeling_sam import SamVisionAttention

from benchmarks.gpu.bench import Bench
from models.square_images import IMAGENET_MEAN, IMAGENET_STD

MEAN, STD = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)


def random_sam(vision: dict[str, Any], device: torch.device) -> SamModel:
    """In float32, with weights that let everything reach the result: Hugging Face's own leave relative positions 0."""
    size, patch = vision.get("image_size", 1024), vision.get("patch_size", 16)
    prompt = {"image_size": size, "patch_size": patch, "image_embedding_size": size // patch}
    torch.manual_seed(0)
    with torch.device(device):
        model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt))
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
                    module.reset_parameters()
                elif isinstance(module, SamVisionAttention):
                    module.rel_pos_h.normal_(0, 0.3)
                    module.rel_pos_w.normal_(0, 0.3)
            model.vision_encoder.pos_embed.normal_(0, 0.3)
            place = model.shared_image_embedding.positional_embedding.normal_()
            model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)
    return model.to(device).eval()


def in_16_bits(model: SamModel) -> SamModel:
    """A copy in bfloat16 as it is served: places stay in float32, which tells a pixel from the next."""
    half = copy.deepcopy(model).to(torch.bfloat16)
    for ours, theirs in (
        (half.shared_image_embedding, model.shared_image_embedding),
        (half.prompt_encoder.shared_embedding, model.prompt_encoder.shared_embedding),
    ):
        ours.positional_embedding.data = theirs.positional_embedding.data.clone()
    return half


@dataclass
class Models:
    """One SAM three times: in float32 and plainly in bfloat16 for Hugging Face's code, in bfloat16 for ours."""

    float32: SamModel
    bf16: SamModel
    ours: SamModel

    @classmethod
    def random(cls, bench: Bench) -> Models:
        model = random_sam(bench.vision, bench.device)
        return cls(model, copy.deepcopy(model).to(torch.bfloat16), in_16_bits(model))

    @property
    def side(self) -> int:
        return int(self.float32.config.vision_config.image_size)
