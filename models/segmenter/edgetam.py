"""EdgeTAM for single images, from Hugging Face's folders: what transformers' `EdgeTamModel` computes, without timm.

It is SAM 2 with another image backbone, RepViT-M1, so its network is made from transformers' `Sam2Model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import EdgeTamModel, Sam2Config, Sam2Model

from models.interruptions import called_between_layers
from models.segmenter import sam_folder
from models.segmenter.pyramid import Pyramid
from models.segmenter.repvit import CHANNELS, RepViT, folded
from models.segmenter.sam import Encode
from models.segmenter.sam2 import Sam2
from models.square_images import Sample

# timm's name of the one backbone that is published; the hub's owner may come before it, a tag of weights after it.
_BACKBONE = "repvit_m1"
_PARTS = {
    "vision_config": "sam2_vision_model",
    "prompt_encoder_config": "sam2_prompt_encoder",
    "mask_decoder_config": "sam2_mask_decoder",
}


class EdgeTamNetwork(Sam2Model):
    """A `Sam2Model` with RepViT-M1; weights have the names that they have in transformers' `EdgeTamModel`."""

    _keys_to_ignore_on_load_unexpected = EdgeTamModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: Sam2Config) -> None:
        super().__init__(config)
        self.vision_encoder.backbone = RepViT()


class EdgeTam(Sam2):
    """A loaded EdgeTAM; make one with `EdgeTam.load`. It is a `models.segmenter.protocol.Segmenter`."""

    model_types: ClassVar[tuple[str, ...]] = sam_folder.EDGETAM
    model_class: ClassVar[Any] = EdgeTamNetwork

    @classmethod
    def network(cls, path: Path, folder: Path) -> Any:
        return sam_folder.load_network(path, folder, cls.config_class, cls.model_class, part=_sam2_config)

    def _fast_features(self) -> Encode:
        """The backbone with its norms folded, which lets other work in before each of its layers, and our own neck."""
        backbone, pyramid = folded(self._model.vision_encoder.backbone), Pyramid(self._model)

        def encode(samples: Sequence[Sample], between: Callable[[], None] | None) -> Tensor:
            pixels = self.pixels(samples).contiguous(memory_format=torch.channels_last)
            with called_between_layers(backbone, between):
                grids = backbone(pixels).intermediate_hidden_states
            return pyramid.joined([pyramid.project(stage, grid) for stage, grid in enumerate(grids)])

        return encode


def _sam2_config(config: dict[str, Any]) -> dict[str, Any]:
    """What config.json says, as that of a `Sam2Model`. Raises ValueError for another backbone than RepViT-M1."""
    vision = dict(config.get("vision_config") or {})
    backbone = vision.pop("backbone_config", None) or {}
    name = str(backbone.get("architecture") or _BACKBONE).rpartition("/")[2].split(".")[0]
    if name != _BACKBONE:
        raise ValueError(f"vision_config.backbone_config.architecture: expected {_BACKBONE}, got {name}")
    vision.setdefault("backbone_channel_list", list(CHANNELS[::-1]))
    if vision["backbone_channel_list"] != list(CHANNELS[::-1]):
        raise ValueError(
            f"vision_config.backbone_channel_list: expected {list(CHANNELS[::-1])}, as of {_BACKBONE}, "
            f"got {vision['backbone_channel_list']}"
        )
    parts = {**config, "vision_config": vision}
    return {name: {**(parts.get(name) or {}), "model_type": kind} for name, kind in _PARTS.items()}
