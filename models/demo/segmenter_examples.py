"""What the demo segmenter learns from: scenes with prompts, masks and facts about every cell.

Most are close-ups: a quarter of SAM's input, as if the rest of it were not there.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from torch.utils.data import IterableDataset

from models.demo.scenes import scene_stream, tight_boxes
from models.demo.views import WHOLE_SIZE, View, batches

IMAGE_SIZE = WHOLE_SIZE
PATCH_SIZE = 8
CELL = PATCH_SIZE // 4  # pixels of a mask's cell
WINDOW = 8  # patches, of the layers that attend to their neighbourhood only
# What the encoder's features must tell of every cell, in training only: whether a thing is there, whether another thing
# or none begins beside it, and how far it is to the thing's left, upper, right and lower edge, in EDGE_SCALE pixels.
CELL_FACTS = 6
EDGE_SCALE = 64.0


class SegmenterExamples(IterableDataset):
    """Batches of scenes as SAM's training wants them, each with `prompts` prompts for things drawn from it.

    Yields, of B views of S pixels with K prompts each:
    pixels (B, 3, S, S) uint8 RGB padded with zeros; targets (B, K, S / 2, S / 2) float16, how much of each cell the
    thing covers; boxes (B, K, 4), points (B, K, 2, 2) and their labels (B, K, 2), in pixels of SAM's whole input;
    facts (B, 7, S / 2, S / 2) float16: CELL_FACTS and whether there are edges to measure; and the row and column in
    the grid of patches where the images lie (2,).
    """

    def __init__(self, seed: int, batch: int, prompts: int = 4) -> None:
        self.seed, self.batch, self.prompts = seed, batch, prompts

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        cv2.setNumThreads(1)
        rng = np.random.default_rng(self.seed)
        for views in batches(rng, scene_stream(self.seed, IMAGE_SIZE), self.batch):
            # Windows of the encoder's layers must begin where they will begin in a whole image.
            steps = (IMAGE_SIZE - len(views[0].image)) // (WINDOW * PATCH_SIZE)
            place = WINDOW * rng.integers(0, steps + 1, 2)
            examples = [self._example(rng, view) for view in views]
            pixels, targets, boxes, points, labels, facts = (np.stack(arrays) for arrays in zip(*examples, strict=True))
            offset = (PATCH_SIZE * place[::-1]).astype(np.float32)
            yield pixels, targets, boxes + np.tile(offset, 2), points + offset, labels, facts, place

    def _example(self, rng: np.random.Generator, view: View) -> tuple[np.ndarray, ...]:
        """A view with prompts for K of its things."""
        cover, count, size = view.cover, self.prompts, len(view.image)
        chosen = rng.integers(len(cover), size=count)
        cells = cover.reshape(len(cover), size // CELL, CELL, size // CELL, CELL).mean((2, 4))
        all_boxes = tight_boxes(cover > 0.5)
        boxes = all_boxes[chosen]
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        jitter = rng.normal(0, 0.05, (count, 4)) * sides * (rng.random((count, 1)) < 0.4)
        boxes = np.clip(boxes + np.clip(jitter, -12, 12), 0, size).astype(np.float32)
        points = np.zeros((count, 2, 2), np.float32)
        labels = np.full((count, 2), -1, np.float32)
        for k, thing in enumerate(cover[chosen] > 0.5):
            points[k, 0], labels[k, 0] = _pick(rng, thing, rng.random() < 0.5), 1
            kind = rng.random()
            if kind < 0.2:
                points[k, 1], labels[k, 1] = _pick(rng, thing, False), 1
            elif kind < 0.35:
                points[k, 1], labels[k, 1] = _pick(rng, ~thing, False), 0
        facts = cell_facts(cells, all_boxes)
        return view.image.transpose(2, 0, 1), cells[chosen].astype(np.float16), boxes, points, labels, facts


def cell_facts(cells: np.ndarray, boxes_xyxy: np.ndarray) -> np.ndarray:
    """What there is to know of every cell (7, h, w) float16: CELL_FACTS, and whether it belongs to a thing.

    cells: (N, h, w) how much of each cell N things cover. boxes_xyxy: (N, 4) their boxes in pixels.
    """
    owner = np.where(cells.max(0) > 0.5, cells.argmax(0), -1)
    edge = np.zeros(owner.shape, bool)
    for axis in (0, 1):
        differs = np.diff(owner, axis=axis) != 0
        before = [(0, 1) if a == axis else (0, 0) for a in (0, 1)]
        after = [pair[::-1] for pair in before]
        edge |= np.pad(differs, before) | np.pad(differs, after)
    y, x = (np.mgrid[: owner.shape[0], : owner.shape[1]] + 0.5) * CELL
    x1, y1, x2, y2 = np.moveaxis(boxes_xyxy[owner], -1, 0)
    edges = np.stack([x - x1, y - y1, x2 - x, y2 - y]) / EDGE_SCALE
    facts = np.concatenate([cells.sum(0).clip(0, 1)[None], edge[None], edges, (owner >= 0)[None]])
    return facts.astype(np.float16)


def _pick(rng: np.random.Generator, where: np.ndarray, middle: bool) -> tuple[float, float]:
    """A point (x, y) where `where` is true, on request away from its edges."""
    if middle:
        depth = cv2.distanceTransform(where.astype(np.uint8), cv2.DIST_L2, 3)
        where = depth >= 0.6 * depth.max()
    rows, columns = np.nonzero(where)
    if not rows.size:
        return 0.0, 0.0
    i = int(rng.integers(rows.size))
    return float(columns[i]), float(rows[i])
