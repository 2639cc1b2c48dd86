"""The network of SAM 3's detector: transformers' `Sam3Model`, from its own folder or from that of a model of videos."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import load_state_dict, read_json_object
from models.detector.huggingface.network import explained, filled, quiet
from models.detector.mmcv_ops.roi_align import AVERAGE, roi_align_forward
from models.model_errors import say_once
from models.wrappers import StateDict, unwrapped

_TRACKERS = re.compile(r"^(.*\.)?tracker_(model|neck)\.")
_PREFIX = re.compile(r"^(.*\.)?detector_model\.")
# Releases of transformers write the text encoder's weights with `text_model.` in their names, or without it.
_TEXT = re.compile(r"(?<=\btext_encoder\.)(?=(embeddings|encoder|final_layer_norm)\.)")


def load_network(folder: Path, weights: Path) -> Any:
    """The folder's `Sam3Model` in float32 on the CPU, in eval mode. weights: a file, or the folder.

    Raises ModelFilesError where its config makes none, and CheckpointError where the weights are unsafe or do not fit.
    """
    from transformers import Sam3Config, Sam3Model

    path = folder / "config.json"
    content = read_json_object(path)
    with quiet(), explained(path, str(content["model_type"])):
        own_part: Any = content["detector_config"] if content["model_type"] == "sam3_video" else content
        config = Sam3Config.from_dict(own_part)
        with torch.device("meta"):
            empty = Sam3Model(config)
    own = empty.state_dict()
    state_dict = unwrapped(_named(load_state_dict(weights)[0]), own, weights, say_once)
    network = filled(Sam3Model, config, state_dict, weights).eval().requires_grad_(False)
    network.geometry_encoder._encode_boxes = types.MethodType(_encode_boxes, network.geometry_encoder)
    return network


def _named(weights: StateDict) -> StateDict:
    """The detector's weights by the names that they have in it, without a tracker's."""
    named = {_PREFIX.sub("", name): tensor for name, tensor in weights.items() if not _TRACKERS.match(name)}
    return {_TEXT.sub("text_model.", name): tensor for name, tensor in named.items()}


def _encode_boxes(
    encoder: Any, boxes: Tensor, boxes_mask: Tensor, boxes_labels: Tensor, vision_features: Tensor
) -> tuple[Tensor, Tensor]:
    """In place of `Sam3GeometryEncoder._encode_boxes` of transformers 5.23, which needs torchvision's RoIAlign.

    boxes: (B, N, 4) as (cx, cy, w, h) in 0..1. vision_features: (B, C, h, w). Gives (B, N, C) and the mask.
    """
    height, width = vision_features.shape[-2:]
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    corners = torch.cat([center - half, center + half], dim=-1) * boxes.new_tensor([width, height] * 2)
    pooled = encoder.boxes_pool_project(_pooled(vision_features.float(), corners.float(), encoder.roi_size))
    x, y, w, h = boxes.flatten(0, 1).unbind(-1)
    places = encoder.boxes_pos_enc_project(encoder._encode_box_coordinates(x, y, w, h))
    found = encoder.boxes_direct_project(boxes) + (pooled.flatten(1) + places).view(*boxes.shape[:2], -1)
    return encoder.label_embed(boxes_labels.long()) + found, boxes_mask


def _pooled(features: Tensor, corners: Tensor, side: int) -> Tensor:
    """RoIAlign of boxes (B, N, 4) in pixels of the features (B, C, h, w): (B * N, C, side, side)."""
    batch, count = corners.shape[:2]
    image = torch.arange(batch, device=corners.device).repeat_interleave(count).to(corners)
    rois = torch.cat([image[:, None], corners.flatten(0, 1)], dim=1)
    output = features.new_zeros(len(rois), features.shape[1], side, side)
    unused = features.new_empty(0)
    roi_align_forward(features, rois, output, unused, unused, side, side, 1.0, 0, AVERAGE, False)
    return output
