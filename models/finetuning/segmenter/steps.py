"""One step of a segmenter's training: some images with some of their things, asked for in rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.finetuning.segmenter.learner import Learner
from models.finetuning.segmenter.losses import distance, prompt_loss
from models.finetuning.segmenter.prompts import SimulatedPrompts

TURNS = 3  # steps, of which one has clicks on errors, and one has old answers


@dataclass(frozen=True)
class Batch:
    """B images and P of their things.

    features: (B, C, h, w). old_features: the same by the encoder as it was. sizes_hw: of each image in the model's
    input. image_of: (P,) int64. boxes_xyxy: (P, 4) in pixels of the input. truths: (P, side, side) float32, how much of
    each cell a thing covers.
    """

    features: Tensor
    old_features: Tensor
    sizes_hw: Sequence[tuple[int, int]]
    image_of: Tensor
    boxes_xyxy: np.ndarray
    truths: np.ndarray


@dataclass(frozen=True)
class Rules:
    """How a step is made. clicks: rounds after the first prompt. keep: the weight of staying with what the model
    answered before."""

    clicks: int
    keep: float


def rules_of_step(step: int, clicks: int, keep: float) -> Rules:
    """First prompts are in every step; clicks on errors and old answers take turns, so that a step stays cheap."""
    turn = step % TURNS
    return Rules(clicks if turn == 1 else 0, TURNS * keep if turn == 2 else 0.0)


def add_gradients(learner: Learner, old: Learner, batch: Batch, rules: Rules, rng: np.random.Generator) -> float:
    """Add the gradients of one step to the learner's, and to those of the features if they want any; its loss of masks.

    Round by round, so that no more than one round is in memory. old: the learner as it was at the beginning.
    """
    device = batch.features.device
    leaf = batch.features.detach().requires_grad_(batch.features.requires_grad)
    truths = torch.from_numpy(batch.truths).to(device)
    prompts = SimulatedPrompts(learner.square, learner.family)
    prompts.begin(rng, batch.boxes_xyxy, batch.truths)
    fed: Tensor | None = None
    total = 0.0
    rounds = 1 + rules.clicks
    for number in range(rounds):
        points = prompts.points(device)
        logits, scores = learner(leaf, batch.image_of, points, fed)
        loss = prompt_loss(logits, scores, truths, first=number == 0) / rounds
        loss.backward()
        total += float(loss.detach())
        if number + 1 < rounds:
            fed = _fed_back(rng, logits.detach(), scores.detach())
            prompts.click(rng, fed.cpu().numpy(), batch.truths)
    if rules.keep:
        anywhere = SimulatedPrompts(learner.square, learner.family)
        anywhere.begin_anywhere(rng, batch.sizes_hw)
        points, image_of = anywhere.points(device), torch.arange(len(leaf), device=device)
        with torch.no_grad():
            before = old(batch.old_features, image_of, points)
        kept = rules.keep * distance(*learner(leaf, image_of, points), *before)
        kept.backward()
        if not bool(kept.detach().isfinite()):
            return float(kept.detach())
    if leaf.grad is not None:
        batch.features.backward(leaf.grad)
    return total


def _fed_back(rng: np.random.Generator, logits: Tensor, scores: Tensor) -> Tensor:
    """(P, side, side) of (P, 4, side, side): of half of the prompts the single mask, of the others the best of three by
    the model's own score."""
    best = 1 + scores[:, 1:].argmax(1)
    single = torch.from_numpy(rng.random(len(best)) < 0.5).to(best.device)
    return logits[torch.arange(len(best), device=best.device), best.masked_fill(single, 0)]
