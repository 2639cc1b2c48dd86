"""Weights as they are measured and written: a mean over the last steps, brought nearer to what they were at first.

A mean over steps is steadier than the last step. What lies between old and new weights loses little of what is new, and
keeps most of what was known: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

from __future__ import annotations

from torch import Tensor

State = dict[str, Tensor]
# Of each new step in the mean, at least: about so many steps count. Early on, the last fifth of them.
LEAST_SHARE, EARLY = 0.02, 0.2


class AveragedWeights:
    """first: the weights at the beginning. mean: their mean so far."""

    def __init__(self, first: State, old_share: float) -> None:
        """old_share: of the first weights in the result, 0..1."""
        self._first, self._old_share = first, old_share
        self.mean = {name: one.clone() for name, one in first.items()}

    def add(self, state: State, step: int) -> None:
        """The weights after a step, counted from 1."""
        share = max(LEAST_SHARE, 1 / (1 + EARLY * step))
        for name, one in self.mean.items():
            one.lerp_(state[name], share)

    def result(self) -> State:
        return {name: one.lerp(self._first[name], self._old_share) for name, one in self.mean.items()}
