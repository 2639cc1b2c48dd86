"""A ResNet that timm would build, as transformers' own: DETR's published folders name one, and then timm is not needed.

Both compute the same; what differs is what they call their layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from models.wrappers import StateDict

_BOTTLENECK = {"layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]}
_BASIC = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
_KNOWN: dict[str, dict[str, Any]] = {
    "resnet18": _BASIC | {"depths": [2, 2, 2, 2]},
    "resnet34": _BASIC | {"depths": [3, 4, 6, 3]},
    "resnet50": _BOTTLENECK | {"depths": [3, 4, 6, 3]},
    "resnet101": _BOTTLENECK | {"depths": [3, 4, 23, 3]},
    "resnet152": _BOTTLENECK | {"depths": [3, 8, 36, 3]},
}
# What stands before timm's names in a checkpoint of transformers, of today's and of before version 5.
_BACKBONE = re.compile(r"^(?P<start>.*\bbackbone\.(?:conv_encoder\.)?model\.)(?P<name>.*)$")
_STEM = {"conv1": "embedder.embedder.convolution", "bn1": "embedder.embedder.normalization"}
_LAYER = re.compile(r"^layer(?P<stage>\d)\.(?P<block>\d+)\.(?P<part>conv|bn|downsample\.)(?P<number>\d)\.(?P<rest>.*)$")


def as_transformers(backbone: Mapping[str, Any]) -> dict[str, Any] | None:
    """transformers' config of the ResNet that a `timm_backbone` config names; None where it is another network."""
    known = _KNOWN.get(str(backbone.get("backbone")).partition(".")[0])  # after the dot: which weights
    indices = backbone.get("out_indices") or [4]
    stages = isinstance(indices, list | tuple) and all(isinstance(one, int) and 1 <= one <= 4 for one in indices)
    if known is None or not stages or backbone.get("output_stride") not in (None, 32):
        return None
    return {
        "model_type": "resnet",
        "num_channels": backbone.get("num_channels") or 3,
        "embedding_size": 64,
        "out_features": [f"stage{index}" for index in indices],
        **known,
    }


def renamed(state_dict: StateDict) -> StateDict:
    """The weights with the backbone's under transformers' names; what has these already stays."""
    return {_renamed(key): tensor for key, tensor in state_dict.items()}


def _renamed(key: str) -> str:
    found = _BACKBONE.match(key)
    if found is None:
        return key
    first, _, rest = found["name"].partition(".")
    if first in _STEM:
        return f"{found['start']}{_STEM[first]}.{rest}"
    layer = _LAYER.match(found["name"])
    if layer is None:
        return key
    number = int(layer["number"])
    if layer["part"] == "downsample.":
        place = f"shortcut.{('convolution', 'normalization')[number]}" if number < 2 else ""
    else:
        place = f"layer.{number - 1}.{'convolution' if layer['part'] == 'conv' else 'normalization'}"
    if not place:
        return key
    stage = int(layer["stage"]) - 1
    return f"{found['start']}encoder.stages.{stage}.layers.{layer['block']}.{place}.{layer['rest']}"
