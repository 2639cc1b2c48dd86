"""Focal losses (Lin et al., "Focal Loss for Dense Object Detection", eq. 5), forward and backward."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from models.detector.mmcv_ops.sampling import widened


def sigmoid_focal_loss_forward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the focal loss of every logit into `output`.

    input, output: (N, C) logits and losses. target: (N,) int64 in 0..C, where C is the background.
    weight: (C,) factors by target class, or empty for none.
    Formula: -a (1 - p)^gamma log(p) with p the probability of the truth and a = alpha for the target
    class, 1 - alpha for the others (Lin et al., "Focal Loss for Dense Object Detection", eq. 5). The
    logarithm is taken of the logit, so it stays exact where a sigmoid would round to 0 or 1.
    """
    truth, balance = _truth(input, target, weight, alpha)
    logits = truth * widened(input)  # p = sigmoid(logits)
    output.copy_(-balance * torch.sigmoid(-logits) ** gamma * F.logsigmoid(logits))


def sigmoid_focal_loss_backward(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    grad_input: torch.Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of `sigmoid_focal_loss_forward`'s loss by each logit into `grad_input` (N, C)."""
    truth, balance = _truth(input, target, weight, alpha)
    logits = truth * widened(input)
    p, q = torch.sigmoid(logits), torch.sigmoid(-logits)
    grad_input.copy_(truth * balance * q**gamma * (gamma * p * F.logsigmoid(logits) - q))


def _truth(
    input: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, C) each: the sign of each logit's truth, +1 at the target class and -1 elsewhere, and its factor."""
    is_target = target[:, None] == torch.arange(input.shape[1], device=input.device)
    truth = is_target.to(widened(input).dtype) * 2 - 1
    balance = torch.where(is_target, alpha, 1 - alpha).to(truth)
    if weight.numel():
        balance = balance * weight.to(truth)[target][:, None]
    return truth, balance
