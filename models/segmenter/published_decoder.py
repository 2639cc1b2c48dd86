"""Decodes prompts by Hugging Face's own modules: the plain twin of `models.segmenter.decoder`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import SamModel

from models.segmenter.mask_prompts import dense_prompts
from models.segmenter.prompt_points import to_resized
from models.segmenter.protocol import DecodeRequest

# A family's mask decoder, as SAM's: features, places, sparse and dense prompts, multimask -> logits and scores.
PublishedMasks = Callable[[Tensor, Tensor, Tensor | None, Tensor, bool], tuple[Tensor, Tensor]]


def decode_as_published(
    model: SamModel,
    masks: PublishedMasks,
    request: DecodeRequest,
    piece: range,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Logits (P, M, S / 4, S / 4) and scores (P, M), on the device, of the prompts of `piece`."""
    place = model.get_image_wide_positional_embeddings().to(dtype)
    prompts, scale = request.prompts, to_resized(request.embedding)
    points, labels, boxes = (
        None if array is None else torch.from_numpy(array[None, piece.start : piece.stop]).to(device)
        for array in (
            None if prompts.points_xy is None else prompts.points_xy * scale,
            prompts.point_labels,
            None if prompts.boxes_xyxy is None else prompts.boxes_xyxy * np.tile(scale, 2),
        )
    )
    sparse, dense = model.prompt_encoder(points, labels, boxes, None)
    features = request.embedding.features[None].to(device, dtype)
    if prompts.mask_logits is None:
        logits, scores = masks(features, place, sparse, dense, request.multimask)
        return logits[0], scores[0]
    # It takes one mask for an image: so each prompt gets an image of its own.
    dense = dense_prompts(model.prompt_encoder, prompts.mask_logits[piece.start : piece.stop])
    features, place = (one.expand(len(piece), -1, -1, -1) for one in (features, place))
    sparse = None if sparse is None else sparse.transpose(0, 1)  # (1, P, T, C) -> (P, 1, T, C)
    logits, scores = masks(features, place, sparse, dense, request.multimask)
    return logits[:, 0], scores[:, 0]
