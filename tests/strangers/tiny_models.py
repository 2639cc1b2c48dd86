"""A tiny YOLOF and a tiny SAM in the official file formats, with weights that are all different."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import SamConfig, SamModel

from models.detector import mmcv_ops
from models.detector.configs import read_config
from models.detector.files import build_model
from tests.models.tiny_config import tiny_config

StateDict = dict[str, torch.Tensor]


def detector_weights(folder: Path) -> StateDict:
    """Weights for that config."""
    mmcv_ops.install()
    path = folder / "config.py"
    path.write_text(tiny_config())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build_model(read_config(path), path)
    return filled(model.state_dict())


def sam_config() -> SamConfig:
    return SamConfig(
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 48, "image_size": 64,
            "patch_size": 16, "output_channels": 32, "num_pos_feats": 16, "window_size": 2, "global_attn_indexes": [1],
            "use_rel_pos": True,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16, "image_embedding_size": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 4},
    )  # fmt: skip


def sam_weights() -> StateDict:
    weights = filled(SamModel(sam_config()).state_dict())
    place = "shared_image_embedding.positional_embedding"
    weights["prompt_encoder.shared_embedding.positional_embedding"] = weights[place]
    return weights


def filled(state_dict: StateDict) -> StateDict:
    generator = torch.Generator().manual_seed(1)
    values = {}
    for key, tensor in state_dict.items():
        noise = torch.rand(tensor.shape, generator=generator)
        positive = key.endswith(("running_var", "norm.weight", "bn1.weight", "bn2.weight"))
        values[key] = (noise + 0.5 if positive else noise - 0.5) if tensor.is_floating_point() else tensor
    return values


def write_sam_configs(folder: Path, **preprocessor: Any) -> Path:
    """A SAM's folder without its weights. preprocessor: of preprocessor_config.json; without any, no such file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(sam_config().to_dict(), default=str))
    if preprocessor:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder
