"""SAM's losses: focal and dice, 20 to 1, and the squared error of the predicted IoU.

Kirillov et al., "Segment Anything", ICCV 2023, appendix A; focal loss after Lin et al., ICCV 2017, dice loss after
Milletari et al., 3DV 2016. Truth is how much of each cell of the logits' grid a thing covers, 0..1, which is 0 or 1
but at edges.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL, DICE = 20.0, 1.0
GAMMA, ALPHA = 2.0, 0.25


def mask_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """Loss (...) of logits (..., h, w) against coverage (..., h, w), one for each mask."""
    shown = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = shown * (1 - truth) + (1 - shown) * truth
    focal = ((ALPHA * truth + (1 - ALPHA) * (1 - truth)) * wrong**GAMMA * entropy).mean((-2, -1))
    overlap, total = (shown * truth).sum((-2, -1)), (shown + truth).sum((-2, -1))
    return FOCAL * focal + DICE * (1 - (2 * overlap + 1) / (total + 1))


@torch.no_grad()
def hard_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU of logits > 0 with coverage > 0.5, over the last two axes."""
    ours, theirs = logits > 0, truth > 0.5
    return (ours & theirs).sum((-2, -1)) / (ours | theirs).sum((-2, -1)).clamp(min=1)


def prompt_loss(logits: Tensor, scores: Tensor, truth: Tensor, *, first: bool) -> Tensor:
    """The loss of P prompts, mean: of logits (P, 4, h, w), scores (P, 4), coverage (P, h, w).

    The single mask counts, and of the three, which may mean a part, the thing or more, only the best. first: whether
    the prompt is the first one of its thing, without a click on an error; later ones mean one thing, so that the three
    count by half.
    """
    truth = truth[:, None].expand_as(logits)
    each = mask_losses(logits, truth)
    known = (scores - hard_iou(logits, truth)).square().mean(1)
    return (each[:, 0] + (1.0 if first else 0.5) * each[:, 1:].min(1).values + known).mean()


def distance(logits: Tensor, scores: Tensor, old_logits: Tensor, old_scores: Tensor) -> Tensor:
    """How far answers (P, 4, h, w) and (P, 4) are from older ones: Kullback-Leibler divergence of cells, mean, with the
    weight of the focal loss, and the squared difference of the scores."""
    old = old_logits.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, old, reduction="none")
    own = F.binary_cross_entropy_with_logits(old_logits, old, reduction="none")
    return FOCAL * (cross - own).mean() + (scores - old_scores).square().mean()
