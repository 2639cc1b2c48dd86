"""SAM 3's points and boxes, from Hugging Face's folders: what transformers' `Sam3TrackerModel` is meant to compute.

Its folder as published, of a model of videos, holds a detector by texts as well: see
`models.detector.huggingface.concepts`. Tracker and detector share the backbone; each has a neck of its own.

The decoder has been trained on features with an embedding added that says that there is no memory of earlier images.
transformers 5.23 adds it to a coarser grid, which nobody reads; here it is added as Meta's code does it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Sam3TrackerConfig, Sam3TrackerModel

from models.interruptions import called_between_layers
from models.segmenter import sam_folder
from models.segmenter.pyramid import Sam3Pyramid
from models.segmenter.sam import Encode
from models.segmenter.sam2 import Sam2, joined
from models.square_images import HALF_MEAN, HALF_STD
from models.wrappers import StateDict

# How much finer than the backbone's grid those are that the decoder reads.
_SCALES = [4, 2, 1]
# By what names of weights begin in a folder as published: and what that is in the tracker.
_NAMES = (
    (re.compile(r"^(.*\.)?detector_model\.vision_encoder\.backbone\."), "vision_encoder.backbone."),
    (re.compile(r"^(.*\.)?tracker_neck\."), "vision_encoder.neck."),
    (re.compile(r"^(.*\.)?tracker_model\."), ""),
    (re.compile(r"^.*\.detector_model\."), "detector_model."),
)


class Sam3(Sam2):
    """A loaded SAM 3 for points and boxes; make one with `Sam3.load`. It is a `models.segmenter.protocol.Segmenter`."""

    model_types: ClassVar[tuple[str, ...]] = sam_folder.SAM3
    config_class: ClassVar[Any] = Sam3TrackerConfig
    model_class: ClassVar[Any] = Sam3TrackerModel
    mean_std: ClassVar[tuple[Sequence[float], Sequence[float]]] = (HALF_MEAN, HALF_STD)

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        """As of `Sam`."""
        set_places(model.vision_encoder.backbone)
        del model.vision_encoder.neck.fpn_layers[len(_SCALES) :]
        super().__init__(model, *args, **kwargs)
        set_places(model.vision_encoder.backbone)

    @classmethod
    def network(cls, path: Path, folder: Path) -> Any:
        def tracker(config: dict[str, Any]) -> dict[str, Any]:
            own = _tracker_config(config)
            scales = (own.get("vision_config") or {}).get("scale_factors") or _SCALES
            if scales[: len(_SCALES)] != _SCALES:
                raise ValueError(f"scale_factors: expected {_SCALES} first, got {scales}")
            return own

        return sam_folder.load_network(
            path, folder, cls.config_class, cls.model_class, part=tracker, named=_tracker_weights
        )

    def _fast_features(self) -> Encode:
        """The published backbone, which lets other work in before each of its layers, and our own neck."""
        backbone, pyramid = self._model.vision_encoder.backbone, Sam3Pyramid(self._model)
        grid = self._model.prompt_encoder.image_embedding_size

        def encode(samples: Any, between: Any) -> Tensor:
            with called_between_layers(backbone, between):
                seen = backbone(self.pixels(samples)).last_hidden_state  # (B, hw, D)
            return joined(*pyramid(seen.transpose(1, 2).unflatten(2, grid)))

        return encode


def set_places(backbone: Any) -> None:
    """Compute the places of a `Sam3ViTModel` anew where its weights are, in float32: bfloat16 mixes up neighbours."""
    device = next(backbone.parameters()).device
    device = torch.device("cpu") if device.type == "meta" else device
    for layer in backbone.layers:
        layer.position_ids = layer.precompute_positions(layer.config, layer.window_size).float().to(device)
        rotary = layer.rotary_emb
        rotary.inv_freq = rotary.compute_axial_rope_parameters(rotary.config)[0].to(device)
        rotary.original_inv_freq = rotary.inv_freq.clone()


def _tracker_config(config: dict[str, Any]) -> dict[str, Any]:
    """What of a config.json is the tracker's."""
    if config.get("model_type") != "sam3_video":
        return config
    tracker, detector = config.get("tracker_config") or {}, config.get("detector_config") or {}
    vision = {key: detector[key] for key in ("vision_config",) if key in detector}
    return vision | tracker


def _tracker_weights(weights: StateDict) -> StateDict:
    """The weights by the names that they have in the tracker; those of the detector keep theirs."""
    named = {}
    for name, tensor in weights.items():
        for pattern, start in _NAMES:
            name, found = pattern.subn(start, name, count=1)
            if found:
                break
        named[name] = tensor
    return named
