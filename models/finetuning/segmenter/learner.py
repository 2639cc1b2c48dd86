"""What of a SAM learns: prompt encoder and mask decoder, which compute by the decoder that serving has too."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from models.segmenter.decoder import encode_prompts, predict_masks
from models.segmenter.sam import Sam

PARTS = ("shared_image_embedding", "prompt_encoder", "mask_decoder")
# What makes masks and scores of what the decoder's layers have read: the last attention, the upscaled image, and what
# that is multiplied by; of SAM-HQ the finer mask too.
HEAD = tuple(
    f"mask_decoder.{name}"
    for name in (
        "transformer.final_attn_token_to_image", "transformer.layer_norm_final_attn", "upscale", "iou_prediction_head",
        "output_hypernetworks_mlps", "hq_mask_mlp", "mask_conv", "mask_norm",
    )
)  # fmt: skip
ALL = slice(None)  # of a prompt's masks: the single one, then the three


class Learner(nn.Module):
    """A SAM's prompt encoder and mask decoder in float32, as a copy that may change.

    Where places are (`positional_embedding`) never learns. What of a decoder makes an image's embedding (SAM-HQ's and
    SAM 2's details) has no part in a prompt's masks, and so never gets a gradient here.
    """

    def __init__(self, network: Any, family: type[Sam], *, head_only: bool = False) -> None:
        """network: of `family`, as its `network` reads it. head_only: whether HEAD alone learns, for which no gradient
        passes the layers before: a step takes a third of the time."""
        super().__init__()
        self.family = family
        parts: dict[str, Any] = {name: copy.deepcopy(getattr(network, name)).float() for name in PARTS}
        self.shared_image_embedding = parts["shared_image_embedding"]
        self.prompt_encoder, self.mask_decoder = parts["prompt_encoder"], parts["mask_decoder"]
        self.square: int = network.prompt_encoder.input_image_size  # side of the model's input, in pixels
        self.side: int = 4 * network.prompt_encoder.image_embedding_size[0]  # of the logits' grid, in cells
        self.requires_grad_(True)
        for name, parameter in self.named_parameters():
            if name.endswith("positional_embedding") or (head_only and not name.startswith(HEAD)):
                parameter.requires_grad_(False)

    def forward(
        self,
        features: Tensor,
        image_of: Tensor,
        points: tuple[Tensor, Tensor, Tensor],
        masks: Tensor | None = None,
        wanted: slice = ALL,
    ) -> tuple[Tensor, Tensor]:
        """Logits (P, M, side, side) of P prompts and predicted IoU (P, M).

        features: (B, C, h, w). image_of: (P,) int64 in 0..B-1. points: places (P, T, 2) in pixels of the model's
        input, labels (P, T) and which are real (P, T). masks: earlier masks' logits (P, side, side), or None.
        """
        xy, labels, present = points
        prompts = encode_prompts(self.prompt_encoder, xy, labels)
        dense = None
        if masks is not None:  # each prompt then has an image of its own
            dense = self.prompt_encoder.mask_embed(masks[:, None])
            features, image_of = features[image_of], torch.arange(len(image_of), device=image_of.device)
        return predict_masks(
            self,  # it has the parts that are asked for
            features,
            prompts,
            image_of,
            None if bool(present.all()) else present,
            wanted,
            dense=dense,
            images_class=self.family.images_class,
        )

    def mask_frame(self, resized_hw: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """As `Sam.mask_frame`, of an image of this size in the model's input."""
        return (self.side, (self.side, self.side)) if self.family.stretches else (self.square, resized_hw)
