"""How a training went: its losses, the figures of every validation, which was the best, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

POINTS = 1000  # of the loss curve, however many steps there are


@dataclass
class History:
    """Plain values throughout, so that a checkpoint can hold it.

    metric: the figure that decides. losses: (step, mean loss since the point before). epochs: one dict of figures for
    each validation, with "epoch" and "step"; 0 is the start's.
    """

    metric: str
    losses: list[tuple[int, float]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)

    def add_loss(self, step: int, loss: float, steps: int) -> None:
        """The loss of one of `steps` steps, counted from 1."""
        self.pending.append(loss)
        if len(self.pending) >= max(1, steps // POINTS):
            self.losses.append((step, sum(self.pending) / len(self.pending)))
            self.pending = []

    def recent_loss(self) -> float | None:
        """The mean over the last few points."""
        return _mean([loss for _, loss in self.losses[-10:]] + self.pending)

    def loss_since(self, step: int) -> float | None:
        """The mean over the points after a step."""
        return _mean([loss for at, loss in self.losses if at > step] + self.pending)

    def add_epoch(self, figures: dict[str, Any]) -> bool:
        """Figures of a validation; those of the same step, measured before an interruption, are replaced. Returns
        whether they are the best so far; of equals, the later are."""
        self.epochs = [one for one in self.epochs if one["step"] < figures["step"]] + [figures]
        return self.best is figures

    @property
    def best(self) -> dict[str, Any] | None:
        best: dict[str, Any] | None = None
        for one in self.epochs:
            if best is None or not self._worse(one, best):
                best = one
        return best

    def stalled(self, patience: int) -> bool:
        """Whether none of the last `patience` validations was better than the best before them. That of the start is
        not asked: a training often has to leave it before it can better it."""
        trained = [one for one in self.epochs if one["step"]]
        before, last = trained[:-patience], trained[-patience:]
        if not before:
            return False
        mark = History(self.metric, epochs=before).best
        assert mark is not None
        return not any(self._worse(mark, one) for one in last)

    def _worse(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        a, b = one.get(self.metric), other.get(self.metric)
        if a is None or b is None:  # what nothing in the data can tell is worse than anything told
            return a is None and b is not None
        return a > b if self.metric == "loss" else a < b

    def plain(self) -> dict[str, Any]:
        return {"metric": self.metric, "losses": self.losses, "epochs": self.epochs, "pending": self.pending}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
