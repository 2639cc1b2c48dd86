"""Small SAMs of the other families with random weights that let image, place and prompt all reach the masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    EdgeTamVideoConfig,
    EdgeTamVideoModel,
    EdgeTamVisionModel,
    Sam2Config,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3VideoConfig,
    Sam3VideoModel,
    SamHQConfig,
    SamHQModel,
)

from benchmarks.segmenter_reference import random_weights
from models.segmenter.repvit import RepViT

IMAGE_SIZE = 128
SAM3_IMAGE_SIZE = 112  # of whose masks a cell is 3.5 pixels wide, as in the published one
_PROMPTS = {"hidden_size": 32, "image_size": IMAGE_SIZE, "patch_size": 16}
_MASKS = {"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 4}


def sam_hq_config(**vision: Any) -> SamHQConfig:
    """A grid of 8 x 8 in windows of 3, which it does not fill; the layers 1 and 2 attend globally."""
    return SamHQConfig(
        vision_config={
            "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2, "mlp_dim": 48,
            "image_size": IMAGE_SIZE, "patch_size": 16, "output_channels": 32, "num_pos_feats": 16,
            "window_size": 3, "global_attn_indexes": [1, 2], "use_rel_pos": True, **vision,
        },
        prompt_encoder_config=_PROMPTS,
        mask_decoder_config=_MASKS | {"vit_dim": 48},
    )  # fmt: skip


def sam2_config(image_size: int = IMAGE_SIZE, **masks: Any) -> Sam2Config:
    """Grids of 32, 16, 8 and 4 places; windows of 3 fill the second one not, and one block attends globally."""
    return Sam2Config(**_sam2_parts(image_size, masks))


def sam2_video_config() -> Sam2VideoConfig:
    """What is published of SAM 2.1 calls itself this; the memory is of the least size."""
    return Sam2VideoConfig(
        **_sam2_parts(IMAGE_SIZE, {}), image_size=IMAGE_SIZE, memory_attention_hidden_size=32,
        memory_attention_feed_forward_hidden_size=32, memory_attention_num_layers=1, memory_encoder_hidden_size=32,
        memory_encoder_output_channels=8, mask_downsampler_embed_dim=32, memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=32, memory_fuser_num_layers=1,
    )  # fmt: skip


def _sam2_parts(image_size: int, masks: dict[str, Any]) -> dict[str, Any]:
    return {
        "vision_config": {
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [image_size, image_size],
                "blocks_per_stage": [1, 2, 3, 1], "embed_dim_per_stage": [16, 32, 48, 64],
                "num_attention_heads_per_stage": [1, 2, 2, 4], "window_size_per_stage": [4, 6, 4, 2],
                "global_attention_blocks": [4], "window_positional_embedding_background_size": [3, 3],
            },
            "backbone_channel_list": [64, 48, 32, 16],
            "backbone_feature_sizes": [[image_size // size, image_size // size] for size in (4, 8, 16)],
            "fpn_hidden_size": 32,
        },
        "prompt_encoder_config": _PROMPTS | {"image_size": image_size},
        "mask_decoder_config": _MASKS | masks,
    }  # fmt: skip


def random_sam_hq(seed: int = 0, **vision: Any) -> SamHQModel:
    return random_weights(SamHQModel(sam_hq_config(**vision)), seed)


def random_sam2(seed: int = 0, image_size: int = IMAGE_SIZE, **masks: Any) -> Sam2Model:
    return random_weights(Sam2Model(sam2_config(image_size, **masks)), seed)


def random_sam2_video(seed: int = 0) -> Sam2VideoModel:
    return random_weights(Sam2VideoModel(sam2_video_config()), seed)


class TimmBackbone(RepViT):
    """This project's RepViT, called as transformers calls timm's, which is not imported without torchvision."""

    def forward(self, pixels: torch.Tensor, **_: object) -> Any:
        grids = super().forward(pixels).intermediate_hidden_states
        return SimpleNamespace(last_hidden_state=[grid.permute(0, 3, 1, 2) for grid in grids], hidden_states=None)


def random_edgetam(seed: int = 0, *, video: bool = False, **masks: Any) -> Any:
    """transformers' own `EdgeTamModel`, or what is published, a model of videos; around `TimmBackbone`."""
    parts = {
        "vision_config": {
            "model_type": "edgetam_vision_model",
            "backbone_config": {
                "model_type": "timm_wrapper", "architecture": "repvit_m1", "label_names": ["none"], "num_classes": 1,
                "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
            },
            "backbone_feature_sizes": [[IMAGE_SIZE // size, IMAGE_SIZE // size] for size in (4, 8, 16)],
            "fpn_hidden_size": 32,
        },
        "prompt_encoder_config": _PROMPTS,
        "mask_decoder_config": _MASKS | masks,
    }  # fmt: skip
    memory = {
        "image_size": IMAGE_SIZE, "memory_attention_hidden_size": 32, "memory_attention_mlp_hidden_size": 32,
        "memory_attention_num_layers": 1, "memory_encoder_hidden_size": 32, "memory_encoder_output_channels": 32,
        "mask_downsampler_embed_dim": 32, "memory_fuser_embed_dim": 32, "memory_fuser_intermediate_dim": 32,
        "memory_fuser_num_layers": 1, "perceiver_resampler_hidden_size": 32,
    }  # fmt: skip

    def made(config: Any) -> Any:
        return TimmBackbone() if config.model_type == "timm_wrapper" else EdgeTamVisionModel(config)

    name = "edgetam_video" if video else "edgetam"
    place = f"transformers.models.{name}.modeling_{name}.AutoModel.from_config"
    with mock.patch(place, made):
        if video:
            model: Any = EdgeTamVideoModel(EdgeTamVideoConfig(**parts, **memory))
        else:
            model = EdgeTamModel(EdgeTamConfig(**parts))
    random_weights(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, numbers in model.vision_encoder.backbone.named_buffers():
            if name.endswith("running_mean"):
                numbers.normal_(0, 0.3, generator=generator)
            elif name.endswith("running_var"):
                numbers.uniform_(0.5, 2, generator=generator)
        for name, weight in model.vision_encoder.backbone.named_parameters():
            if name.endswith("bn.weight"):  # no norm by its name
                weight.normal_(0.25, 0.1, generator=generator)
    return model


def sam3_vision_config() -> dict[str, Any]:
    """Grids of 32, 16, 8 and 4 places; windows of 3 do not fill the third one, and the layers 1 and 3 attend globally.

    Places are tiled from a square of 4 x 4.
    """
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": {
            "model_type": "sam3_vit_model", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4,
            "num_attention_heads": 2, "image_size": SAM3_IMAGE_SIZE, "patch_size": 14, "window_size": 3,
            "global_attn_indexes": [1, 3], "pretrain_image_size": 56,
        },
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    }  # fmt: skip


_SAM3_PARTS = {
    "prompt_encoder_config": {"hidden_size": 32, "image_size": SAM3_IMAGE_SIZE, "patch_size": 14},
    "mask_decoder_config": _MASKS,
}
_SAM3_LAYERS = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "dropout": 0.0}


def sam3_config(**text: Any) -> dict[str, Any]:
    """Of a `Sam3Model`: the part that finds by texts. text: of the text encoder."""
    return {
        "model_type": "sam3",
        "vision_config": sam3_vision_config(),
        "text_config": {
            "model_type": "clip_text_model", "vocab_size": 99, "hidden_size": 32, "intermediate_size": 37,
            "projection_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32,
            "hidden_act": "gelu", **text,
        },
        "geometry_encoder_config": _SAM3_LAYERS | {"roi_size": 3},
        "detr_encoder_config": _SAM3_LAYERS,
        "detr_decoder_config": _SAM3_LAYERS | {"num_queries": 12},
        "mask_decoder_config": {"hidden_size": 32, "num_upsampling_stages": 2, "num_attention_heads": 4},
    }  # fmt: skip


def random_sam3_tracker(seed: int = 0, **masks: Any) -> Sam3TrackerModel:
    tracker = _SAM3_PARTS | {"mask_decoder_config": _MASKS | masks}
    return random_weights(Sam3TrackerModel(Sam3TrackerConfig(vision_config=sam3_vision_config(), **tracker)), seed)


def random_sam3_video(seed: int = 4, **text: Any) -> Sam3VideoModel:
    """What is published of SAM 3 is this: a detector by texts and a tracker, with one backbone."""
    tracker = {
        "model_type": "sam3_tracker_video", **_SAM3_PARTS, "vision_config": sam3_vision_config(),
        "image_size": SAM3_IMAGE_SIZE, "memory_attention_hidden_size": 32, "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32, "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 8, "mask_downsampler_embed_dim": 32, "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32, "memory_fuser_num_layers": 1,
    }  # fmt: skip
    model = Sam3VideoModel(Sam3VideoConfig(detector_config=sam3_config(**text), tracker_config=tracker))
    random_weights(model, seed)
    random_weights(model.tracker_model, seed)
    return model


def tracker_of(video: Sam3VideoModel) -> Sam3TrackerModel:
    """The same weights in transformers' model of images, which 5.23 does not read from the folder of the whole."""
    tracker = random_sam3_tracker()
    own = tracker.state_dict()
    parts = {"vision_encoder.backbone.": video.detector_model.vision_encoder.backbone,
             "vision_encoder.neck.": video.tracker_neck, "": video.tracker_model}  # fmt: skip
    theirs = {start + name: value for start, part in parts.items() for name, value in part.state_dict().items()}
    tracker.load_state_dict({name: theirs[name] for name in own})
    return tracker.eval()
