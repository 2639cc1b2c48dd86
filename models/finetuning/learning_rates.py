"""How the learning rate of a training runs from step to step."""

from __future__ import annotations

import math

RESTARTS = 3  # cosine waves of warmup_cosine_with_restarts
POWER = 2.0  # of warmup_polynomial; 1 would be warmup_linear


def factor(kind: str, step: int, steps: int, warmup: int) -> float:
    """The share of the highest learning rate at a step (0 .. steps - 1) of a schedule; never 0 in the warm-up."""
    if kind == "constant":
        return 1.0
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if kind == "warmup_constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    if kind == "warmup_linear":
        return 1 - done
    if kind == "warmup_polynomial":
        return (1 - done) ** POWER
    if kind == "warmup_cosine_with_restarts" and done < 1:
        done = done * RESTARTS % 1
    return 0.5 * (1 + math.cos(math.pi * done))
