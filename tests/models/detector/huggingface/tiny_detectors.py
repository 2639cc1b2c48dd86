"""Tiny detectors of every kind in the official format, written by transformers itself, with random weights that differ.

No image processor of transformers needs more than Pillow here, but for RF-DETR's, whose file is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

NAMES = {0: "can", 1: "carton", 2: "milk bottle"}
_LABELS = {"id2label": NAMES, "label2id": {name: index for index, name in NAMES.items()}}
_STAGES = ["stage2", "stage3", "stage4"]
_RESNET = {
    "model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1],
    "layer_type": "basic", "out_features": _STAGES,
}  # fmt: skip
_RT_RESNET = _RESNET | {"model_type": "rt_detr_resnet"}
_HGNET = {
    "model_type": "hgnet_v2", "embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1],
    "stem_channels": [3, 8, 8], "stage_in_channels": [8, 8, 12, 16], "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 12, 16, 20], "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [2, 2, 2, 2],
    "stage_downsample": [False, True, True, True], "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5], "out_features": _STAGES,
}  # fmt: skip
_RT = {
    "d_model": 16, "encoder_hidden_dim": 16, "encoder_in_channels": [12, 16, 20], "encoder_layers": 1,
    "encoder_ffn_dim": 16, "encoder_attention_heads": 2, "decoder_in_channels": [16, 16, 16], "decoder_ffn_dim": 16,
    "decoder_layers": 2, "decoder_attention_heads": 2, "num_queries": 12, "num_denoising": 0, "hidden_expansion": 0.5,
}  # fmt: skip
_DETR = {
    "d_model": 64, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 12,
    "backbone_config": _RESNET, "use_timm_backbone": False,
}  # fmt: skip
_DINO = {
    "model_type": "rf_detr_dinov2", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2,
    "image_size": 56, "patch_size": 14, "num_windows": 2, "out_features": ["stage1", "stage3"],
}  # fmt: skip
_VIT = {
    "model_type": "lw_detr_vit", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2,
    "image_size": 64, "pretrain_image_size": 32, "patch_size": 16, "num_windows": 4, "window_block_indices": [0],
    "out_features": ["stage2", "stage3"],
}  # fmt: skip

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "rt_detr": ("RTDetrConfig", _RT | {"backbone_config": _RT_RESNET}),
    "rt_detr_v2": ("RTDetrV2Config", _RT | {"backbone_config": _RT_RESNET}),
    "d_fine": ("DFineConfig", _RT | {"backbone_config": _HGNET}),
    "rf_detr": (
        "RfDetrConfig",
        {
            "backbone_config": _DINO, "d_model": 16, "num_queries": 12, "group_detr": 2, "decoder_layers": 2,
            "decoder_ffn_dim": 16, "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2,
        },
    ),
    "deimv2": ("Deimv2Config", _RT | {"backbone_config": _HGNET, "lqe_hidden_dim": 16}),
    "lw_detr": (
        "LwDetrConfig",
        {
            "backbone_config": _VIT, "projector_scale_factors": [1.0], "d_model": 16, "num_queries": 12,
            "group_detr": 2, "decoder_layers": 2, "decoder_ffn_dim": 16, "decoder_self_attention_heads": 2,
            "decoder_cross_attention_heads": 2,
        },
    ),
    "detr": ("DetrConfig", _DETR),
    "dab-detr": ("DabDetrConfig", _DETR | {"hidden_size": 64}),
    "table-transformer": ("TableTransformerConfig", _DETR),
    "conditional_detr": ("ConditionalDetrConfig", _DETR),
    "deformable_detr": ("DeformableDetrConfig", _DETR | {"encoder_n_points": 2, "decoder_n_points": 2}),
    "yolos": (
        "YolosConfig",
        {
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
            "image_size": [64, 96], "patch_size": 16, "num_detection_tokens": 12,
        },
    ),
}  # fmt: skip

_SWIN = {
    "model_type": "swin", "image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2], "window_size": 4, "out_features": _STAGES,
}  # fmt: skip
_BERT = {
    "model_type": "bert", "vocab_size": 1100, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 64,
}  # fmt: skip
_GROUNDING_DINO = {
    "backbone_config": _SWIN, "text_config": _BERT, "d_model": 64, "encoder_layers": 1, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
    "num_queries": 12, "encoder_n_points": 2, "decoder_n_points": 2, "max_text_len": 32,
}  # fmt: skip
_OWL = {
    "text_config": {
        "vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 299,
    },
    "vision_config": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 16,
    },
    "projection_dim": 16,
}  # fmt: skip
OPEN_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "grounding-dino": ("GroundingDinoConfig", _GROUNDING_DINO),
    "mm-grounding-dino": ("MMGroundingDinoConfig", _GROUNDING_DINO),
    "owlv2": ("Owlv2Config", _OWL),
    "owlvit": ("OwlViTConfig", _OWL),
}

# By kind its image processor, as published but small.
_PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "rt_detr": ("RTDetrImageProcessorPil", {"size": {"height": 64, "width": 96}}),
    "rt_detr_v2": ("RTDetrImageProcessorPil", {"size": {"height": 64, "width": 64}}),
    "d_fine": ("RTDetrImageProcessorPil", {"size": {"height": 96, "width": 64}, "do_normalize": True}),
    "deimv2": ("RTDetrImageProcessorPil", {"size": {"height": 64, "width": 64}, "do_normalize": True}),
    "lw_detr": ("DeformableDetrImageProcessorPil", {"size": {"height": 64, "width": 64}}),
    "dab-detr": ("ConditionalDetrImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 120}}),
    "table-transformer": ("DetrImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 120}}),
    "detr": ("DetrImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 120}}),
    "conditional_detr": ("ConditionalDetrImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 120}}),
    "deformable_detr": ("DeformableDetrImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 120}}),
    "yolos": ("YolosImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 128}}),
    "grounding-dino": ("GroundingDinoImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 120}}),
    "mm-grounding-dino": ("GroundingDinoImageProcessorPil", {"size": {"shortest_edge": 64, "longest_edge": 120}}),
    "owlv2": ("Owlv2ImageProcessorPil", {"size": {"height": 64, "width": 64}}),
    "owlvit": ("OwlViTImageProcessorPil", {"size": {"height": 64, "width": 64}}),
}
RF_DETR_PROCESSOR = {
    "image_processor_type": "RfDetrImageProcessor", "do_resize": True, "size": {"height": 56, "width": 56},
    "do_rescale": True, "do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25],
}  # fmt: skip

KINDS = tuple(CONFIGS)
OPEN_KINDS = tuple(OPEN_CONFIGS)


def build(kind: str, **changed: Any) -> Any:
    """A network with random weights, in eval mode. changed: values of its config."""
    is_open = kind in OPEN_CONFIGS
    name, values = OPEN_CONFIGS[kind] if is_open else CONFIGS[kind]
    config = getattr(transformers, name)(**values | ({} if is_open else _LABELS) | changed)
    mapping = f"MODEL_FOR_{'ZERO_SHOT_' if is_open else ''}OBJECT_DETECTION_MAPPING"
    return spread(getattr(modeling_auto, mapping)[type(config)](config))


def spread(network: Any) -> Any:
    """With weights by which images, queries and classes all matter, as transformers' own initial ones do not."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            value = noise.abs() + 0.5
        elif "query" in name and "proj" not in name:  # or every query says the same
            value = 2 * noise
        elif tensor.ndim >= 2:
            value = noise * 1.5 / max(1, tensor[0].numel()) ** 0.5
        elif name.endswith("weight"):
            value = 1 + 0.3 * noise
        else:
            value = 0.3 * noise
        tensor.copy_(value)
    network.tie_weights()
    return network.eval()


def write(
    folder: Path,
    kind: str,
    change: Callable[[Any], None] | None = None,
    config: Mapping[str, Any] | None = None,
    **saved: Any,
) -> Path:
    """A folder of this kind. change: something to do to the network before. config: other values of its config. saved:
    for `save_pretrained`."""
    network = build(kind, **(config or {}))
    if change is not None:
        change(network)
    network.save_pretrained(folder, **saved)
    if kind == "rf_detr":
        (folder / "preprocessor_config.json").write_text(json.dumps(RF_DETR_PROCESSOR))
    else:
        processor(kind).save_pretrained(folder)
    if kind in OPEN_CONFIGS:
        tokenizer(kind).save_pretrained(folder)
    return folder


def tokenizer(kind: str) -> Any:
    """A tokenizer that knows letters, and the numbers of BERT's special tokens that Grounding DINO counts on."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    if kind.endswith("dino"):
        words = {f"[unused{index}]": index for index in range(1100)}
        known = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
        known |= {word: 200 + index for index, word in enumerate(("can", "milk", "carton", "bottle"))}
        known |= {text: 300 + index for index, text in enumerate([*letters, *(f"##{letter}" for letter in letters)])}
        taken = set(known.values())
        vocabulary = {word: index for word, index in words.items() if index not in taken} | known
        return transformers.BertTokenizer(vocab=vocabulary, model_max_length=64)
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "c a", "m i"]
    vocabulary = {"!": 0, "<|startoftext|>": 1} | {piece.replace(" ", ""): 2 + n for n, piece in enumerate(pieces)}
    vocabulary |= {"<|endoftext|>": 299}
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[("c", "a"), ("m", "i")], pad_token="!", model_max_length=16
    )


def processor(kind: str) -> Any:
    name, values = _PROCESSORS[kind]
    return getattr(transformers, name)(**values)
