"""SAM's prompts as points with labels: what the decoder has of clicks and boxes alike."""

from __future__ import annotations

import numpy as np

from models.segmenter.decoder import BOX_CORNERS
from models.types import Embedding, Prompts


def to_resized(embedding: Embedding) -> np.ndarray:
    """(2,) by which (x, y) in pixels of the image become pixels of the model's input."""
    return np.array(embedding.resized_hw[::-1]) / np.array(embedding.size_hw[::-1])


def token_count(prompts: Prompts) -> int:
    """Tokens of each prompt: its points, then its box's two corners or, without a box, one that is no point."""
    if prompts.points_xy is None:
        return 0 if prompts.boxes_xyxy is None else 2
    return prompts.points_xy.shape[1] + (1 if prompts.boxes_xyxy is None else 2)


def labelled_points(embedding: Embedding, prompts: Prompts) -> tuple[np.ndarray, np.ndarray]:
    """N prompts as points (N, T, 2) float64 in pixels of the model's input, and labels (N, T) for `encode_prompts`."""
    count, scale = len(prompts), to_resized(embedding)
    points, labels = np.zeros((count, 0, 2)), np.zeros((count, 0), np.int64)
    if prompts.points_xy is not None and prompts.point_labels is not None:
        points, labels = prompts.points_xy * scale, prompts.point_labels
        if prompts.boxes_xyxy is None:
            points = np.concatenate([points, np.zeros((count, 1, 2))], axis=1)
            labels = np.concatenate([labels, np.full((count, 1), -1)], axis=1)
    if prompts.boxes_xyxy is not None:
        points = np.concatenate([points, prompts.boxes_xyxy.reshape(count, 2, 2) * scale], axis=1)
        labels = np.concatenate([labels, np.tile(BOX_CORNERS, (count, 1))], axis=1)
    return points, labels
