"""Prompts as people give them, simulated from masks: a box or a click, then clicks where the mask is wrong.

After Kirillov et al., "Segment Anything", ICCV 2023, appendix A. Coordinates are pixels of the model's input, a padded
square; masks are coverage of the cells of the logits' grid, (S / 4, S / 4) float32 in 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.segmenter.portions import filled_up
from models.segmenter.protocol import DecodeRequest
from models.segmenter.sam import Sam
from models.types import Embedding, Prompts

# Of a box's corners: the deviation as a share of its sides, and the most, in pixels of an input of 1024.
NOISE, MOST_NOISE = 0.1, 20 / 1024
BOXES = 0.5  # of the first prompts; the others are clicks

Points = tuple[Tensor, Tensor, Tensor]


class SimulatedPrompts:
    """The prompts of P things, which begin with a box or a click each and then get a click for each round."""

    def __init__(self, square: int, family: type[Sam]) -> None:
        """square: side of the model's input. family: says how a prompt becomes labelled points."""
        self._square, self._family = square, family
        self._boxes: list[np.ndarray | None] = []
        self._clicks: list[list[tuple[float, float]]] = []
        self._labels: list[list[int]] = []

    def begin(self, rng: np.random.Generator, boxes_xyxy: np.ndarray, truths: np.ndarray) -> None:
        """Of each thing, by chance, its box (P, 4), moved a little, or a click on it. truths: (P, side, side)."""
        for box, truth in zip(boxes_xyxy, truths, strict=True):
            given = rng.random() < BOXES
            self._boxes.append(noisy_box(rng, box, self._square) if given else None)
            self._clicks.append([] if given else [self._place(rng, on_thing(truth))])
            self._labels.append([] if given else [1])

    def begin_anywhere(self, rng: np.random.Generator, sizes_hw: Sequence[tuple[int, int]]) -> None:
        """For each size of an image in the model's input, a click or a box anywhere in it."""
        for height, width in sizes_hw:
            if rng.random() < BOXES:
                sides = np.array([width, height]) * rng.uniform(0.05, 0.7, 2)
                corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - sides)
                self._add(np.concatenate([corner, corner + sides]), None)
            else:
                self._add(None, (float(rng.uniform(0, width)), float(rng.uniform(0, height))))

    def _add(self, box: np.ndarray | None, click: tuple[float, float] | None) -> None:
        self._boxes.append(box)
        self._clicks.append([] if click is None else [click])
        self._labels.append([] if click is None else [1])

    def click(self, rng: np.random.Generator, logits: np.ndarray, truths: np.ndarray) -> None:
        """A further click for each thing, anywhere in what its mask has wrong: 1 where it is missing, 0 where it is too
        much. Where nothing is wrong, on the thing. logits, truths: (P, side, side)."""
        for index, (mask, truth) in enumerate(zip(logits > 0, truths, strict=True)):
            wrong = mask != (truth > 0.5)
            row, column = self._cell(rng, wrong if wrong.any() else on_thing(truth))
            self._clicks[index].append(self._within(rng, row, column, len(truth)))
            self._labels[index].append(int(truth[row, column] > 0.5 or not wrong.any()))

    def points(self, device: torch.device) -> Points:
        """Places (P, T, 2), labels (P, T) and which are real (P, T), as the family's decoder has them."""
        whole = (self._square, self._square)
        embedding = Embedding(torch.empty(0), whole, whole)
        labelled = []
        for box, clicks, labels in zip(self._boxes, self._clicks, self._labels, strict=True):
            prompts = Prompts(
                np.array([clicks]) if clicks else None,
                np.array([labels]) if clicks else None,
                None if box is None else box[None],
            )
            labelled.append(self._family.labelled_points(DecodeRequest(embedding, prompts, multimask=False)))
        portion = [(index, range(1)) for index in range(len(labelled))]
        xy, kinds, present = (torch.from_numpy(array).to(device) for array in filled_up(portion, labelled))
        return xy, kinds, present

    def _place(self, rng: np.random.Generator, cells: np.ndarray) -> tuple[float, float]:
        return self._within(rng, *self._cell(rng, cells), len(cells))

    def _cell(self, rng: np.random.Generator, cells: np.ndarray) -> tuple[int, int]:
        rows, columns = np.nonzero(cells)
        chosen = int(rng.integers(len(rows)))
        return int(rows[chosen]), int(columns[chosen])

    def _within(self, rng: np.random.Generator, row: int, column: int, side: int) -> tuple[float, float]:
        """A place (x, y) in a cell."""
        x, y = (np.array([column, row]) + rng.uniform(0, 1, 2)) * self._square / side
        return float(x), float(y)


def on_thing(truth: np.ndarray) -> np.ndarray:
    """The cells (side, side) bool that a thing covers by half; of a thin one, those that it covers most."""
    return truth > min(0.5, float(truth.max()) / 2)


def noisy_box(rng: np.random.Generator, box_xyxy: np.ndarray, square: int) -> np.ndarray:
    """The box with each corner moved by chance, within the input, and never turned inside out."""
    sides = np.tile(box_xyxy[2:] - box_xyxy[:2], 2)
    most = MOST_NOISE * square
    moved = np.clip(box_xyxy + np.clip(rng.normal(0, NOISE, 4) * sides, -most, most), 0, square)
    return np.concatenate([np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])])
