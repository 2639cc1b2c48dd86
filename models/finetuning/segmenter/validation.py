"""How good masks are: by boxes and by clicks, in the size of the images, as serving makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from models.evaluation.masks import filled_box, middle_point
from models.finetuning.segmenter.examples import Example
from models.finetuning.segmenter.learner import Learner
from models.rle import decode_rle
from models.segmenter.portions import filled_up
from models.segmenter.protocol import DecodeRequest
from models.segmenter.upsampling import binary_masks
from models.types import Embedding, Prompts

AT_ONCE = 8  # prompts


@dataclass(frozen=True)
class Asked:
    """An image to validate on. prompts: of its N objects their annotated boxes, then a click in the middle of each."""

    example: Example
    prompts: tuple[Prompts, Prompts]


def asked(example: Example) -> Asked:
    middles = [middle_point(decode_rle(rle)) for rle in example.rles]
    return Asked(example, (Prompts(boxes_xyxy=example.boxes_xyxy), Prompts(points_xy=np.array(middles)[:, None])))


@torch.no_grad()
def ious(learner: Learner, embedding: Embedding, asked: Asked) -> np.ndarray:
    """(2, N): IoU of the single mask by each object's box, and by a click in its middle."""
    found = []
    for prompts in asked.prompts:
        points = learner.family.labelled_points(DecodeRequest(embedding, prompts, multimask=False))
        scores = []
        for start in range(0, len(prompts), AT_ONCE):
            piece = range(start, min(start + AT_ONCE, len(prompts)))
            logits = _single_masks(learner, embedding, points, piece)
            masks = binary_masks(logits, *learner.mask_frame(embedding.resized_hw), embedding.size_hw)
            scores += [_iou(mask, asked.example.rles[index]) for mask, index in zip(masks, piece, strict=True)]
        found.append(scores)
    return np.array(found)


def _single_masks(
    learner: Learner, embedding: Embedding, points: tuple[np.ndarray, np.ndarray], piece: range
) -> np.ndarray:
    """(P, side, side) float32 logits."""
    features = embedding.features[None]
    xy, labels, present = (torch.from_numpy(one).to(features.device) for one in filled_up([(0, piece)], [points]))
    image_of = torch.zeros(len(piece), dtype=torch.int64, device=features.device)
    logits: Tensor = learner(features, image_of, (xy, labels, present), wanted=slice(0, 1))[0]
    return logits[:, 0].float().cpu().numpy()


def _iou(mask: np.ndarray, rle: Any) -> float:
    found = coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))
    return float(coco_mask.iou([found], [dict(rle)], [0])[0, 0])


def figures(of_images: Sequence[np.ndarray]) -> dict[str, float]:
    """The means over all objects of what `ious` says of each image, and the mean of both."""
    box, click = np.concatenate(of_images, axis=1).mean(1)
    return {"mask_iou": float(box + click) / 2, "box_iou": float(box), "click_iou": float(click)}


def filled_box_iou(examples: Sequence[Example]) -> float:
    """The mean IoU of masks that fill the annotated boxes."""
    return float(
        np.mean(
            [
                coco_mask.iou([dict(filled_box(tuple(box), one.image.size_hw))], [dict(rle)], [0])[0, 0]
                for one in examples
                for rle, box in zip(one.rles, one.boxes_xyxy.tolist(), strict=True)
            ]
        )
    )
