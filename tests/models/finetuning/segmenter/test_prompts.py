"""Prompts simulated from masks: boxes that are moved a little, clicks on things and on errors."""

from __future__ import annotations

import numpy as np
import torch

from models.finetuning.segmenter.prompts import MOST_NOISE, SimulatedPrompts, noisy_box, on_thing
from models.segmenter.sam import Sam
from models.segmenter.sam2 import Sam2

CPU = torch.device("cpu")
SQUARE, SIDE = 256, 64


def bar() -> np.ndarray:
    """A thing in rows 10 to 13 and columns 20 to 39 of the grid's cells."""
    truth = np.zeros((SIDE, SIDE), np.float32)
    truth[10:14, 20:40] = 1
    return truth


def test_boxes_are_moved_by_a_tenth_and_not_too_far() -> None:
    box = np.array([20.0, 40, 220, 60])
    moved = np.stack([noisy_box(np.random.default_rng(number), box, SQUARE) for number in range(400)]) - box
    most = MOST_NOISE * SQUARE
    assert np.abs(moved).max() <= most + 1e-9 == 5 + 1e-9
    assert np.abs(moved[:, [0, 2]]).mean() > 4, "a tenth of 200 is more than may be"
    assert 1.2 < moved[:, [1, 3]].std() < 2.2, "a tenth of 20"


def test_a_box_stays_in_the_input_and_is_never_turned_inside_out() -> None:
    for number in range(200):
        x1, y1, x2, y2 = noisy_box(np.random.default_rng(number), np.array([0.0, 0, 3, 256]), SQUARE)
        assert 0 <= x1 <= x2 <= SQUARE and 0 <= y1 <= y2 <= SQUARE


def test_half_of_the_things_begin_with_a_box_and_the_others_with_a_click_on_them() -> None:
    truths = np.stack([bar()] * 200)
    prompts = SimulatedPrompts(SQUARE, Sam)
    prompts.begin(np.random.default_rng(0), np.array([[80.0, 40, 160, 56]] * 200), truths)
    xy, labels, present = prompts.points(CPU)
    boxes = (labels == 2).any(1)
    assert 70 < int(boxes.sum()) < 130 and present.all()
    clicks = xy[~boxes]
    assert (labels[~boxes] == torch.tensor([1, -1])).all(), "a click ends with a point that is none"
    assert (
        (clicks[:, 0, 0] >= 80) & (clicks[:, 0, 0] <= 160) & (clicks[:, 0, 1] >= 40) & (clicks[:, 0, 1] <= 56)
    ).all()
    assert clicks[:, 0, 0].std() > 15, "anywhere on it"


def test_further_clicks_are_on_what_is_wrong_with_the_right_label() -> None:
    truth = bar()
    half, more = truth.copy(), truth.copy()
    half[:, 30:] = 0
    more[30:40, 50:60] = 1
    logits = 2 * np.stack([half, more, truth]) - 1
    for number in range(30):
        prompts = SimulatedPrompts(SQUARE, Sam)
        rng = np.random.default_rng(number)
        prompts.begin(rng, np.array([[80.0, 40, 160, 56]] * 3), np.stack([truth] * 3))
        prompts.click(rng, logits, np.stack([truth] * 3))
        xy, labels, _ = prompts.points(CPU)
        found = []
        for places, kinds in zip(xy.tolist(), labels.tolist(), strict=True):
            clicks = [(x, y, kind) for (x, y), kind in zip(places, kinds, strict=True) if kind in (0, 1)]
            found.append(clicks[-1])
        (x, y, kind), (x2, y2, kind2), (x3, y3, kind3) = found
        assert kind == 1 and x >= 120 and 40 <= y <= 56, "where it is missing"
        assert kind2 == 0 and 200 <= x2 <= 240 and 120 <= y2 <= 160, "where it is too much"
        assert kind3 == 1 and 80 <= x3 <= 160 and 40 <= y3 <= 56, "on the thing where nothing is wrong"


def test_points_are_those_of_the_family() -> None:
    for family, ends in ((Sam, 2), (Sam2, 3)):
        prompts = SimulatedPrompts(SQUARE, family)
        prompts._add(np.array([1.0, 2, 3, 4]), None)
        _, labels, _ = prompts.points(CPU)
        assert labels.shape[1] == ends, "SAM 2 ends a box with a point that is none"


def test_a_thin_thing_has_cells_too() -> None:
    truth = np.zeros((SIDE, SIDE), np.float32)
    truth[5, 5:20] = 0.3
    assert on_thing(truth).sum() == 15
