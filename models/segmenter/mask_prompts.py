"""Masks as prompts: an earlier mask's logits, or a binary mask made into such, to what they add to the image.

SAM has learnt from its own logits, whose sign says which side of an edge a cell is on, and whose size how far from it.
So a binary mask is given an edge like that: see `logits_of_mask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from transformers import SamModel

from models.segmenter.decoder import Images, PlaceTables
from models.segmenter.portions import Portion
from models.segmenter.protocol import DecodeRequest

# Of a binary mask's logits: how far from 0 they go, at least and at most, and by how many cells they are blurred.
LEAST, MOST, BLUR = 1.0, 10.0, 1.0


def cell_coverage(mask: np.ndarray, square: int, resized_hw: tuple[int, int], side: int) -> np.ndarray:
    """How much of each cell (side, side) float32, of the padded square, a mask (H, W) bool of an image covers, 0..1."""
    height, width = resized_hw
    padded = np.zeros((square, square), np.float32)
    padded[:height, :width] = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    if square % side:  # SAM 3's cells are 3.5 pixels wide
        return cv2.resize(padded, (side, side), interpolation=cv2.INTER_AREA)
    return padded.reshape(side, square // side, side, square // side).mean((1, 3))


def covered_cells(mask: np.ndarray, square: int, resized_hw: tuple[int, int], side: int) -> np.ndarray:
    """The cells (side, side) bool that a mask covers by half, or, of one that is small or thin, more than others."""
    coverage = cell_coverage(mask, square, resized_hw, side)
    return coverage > min(0.5, coverage.max() / 2)


def logits_of_mask(mask: np.ndarray, square: int, resized_hw: tuple[int, int], side: int) -> np.ndarray:
    """A mask (H, W) bool of an image as logits (side, side) float16, with an edge as soft as those of SAM's own.

    square, resized_hw: the side of the model's input, and the image's size in it. The logits go from -MOST to MOST,
    blurred by BLUR cells, and are at least LEAST on the mask's own side of its edge, so that nothing thin is lost.
    benchmarks/results/refinement.md has what other rules gave.
    """
    inside = covered_cells(mask, square, resized_hw, side)
    soft = MOST * (2 * cv2.GaussianBlur(inside.astype(np.float32), (0, 0), BLUR, borderType=cv2.BORDER_REPLICATE) - 1)
    return np.where(inside, soft.clip(LEAST), soft.clip(max=-LEAST)).astype(np.float16)


def dense_prompts(encoder: Any, masks: Sequence[np.ndarray | None]) -> Tensor:
    """What prompts' masks add to their images, (P, C, h, w): where there is none, what SAM has for that.

    encoder: the prompt encoder of a family. masks: of each prompt logits (4h, 4w), or None.
    """
    none = encoder.no_mask_embed.weight
    height, width = encoder.image_embedding_size
    dense = none.reshape(1, -1, 1, 1).repeat(len(masks), 1, height, width)
    given = [number for number, mask in enumerate(masks) if mask is not None]
    if given:
        logits = np.stack([mask for mask in masks if mask is not None]).astype(np.float32)
        if none.dtype == torch.float16:  # in which sums of larger ones would be infinite
            logits = logits.clip(-1000, 1000)
        dense[given] = encoder.mask_embed(torch.from_numpy(logits[:, None]).to(none.device, none.dtype))
    return dense


def images_with_masks(
    images_class: type[Images],
    model: SamModel,
    places: PlaceTables,
    requests: Sequence[DecodeRequest],
    portion: Portion,
) -> Images:
    """An image for each prompt of a portion, as its own mask is in it; no other prompt has the use of it.

    images_class: that of the model's family.
    """
    weight = model.prompt_encoder.no_mask_embed.weight
    features = torch.stack([requests[r].embedding.features for r, piece in portion for _ in piece])
    masks = [(requests[r].prompts.mask_logits or [None] * piece.stop)[n] for r, piece in portion for n in piece]
    dense = dense_prompts(model.prompt_encoder, masks)
    return images_class(model, features.to(weight.device, weight.dtype), places, dense, projected=False)
