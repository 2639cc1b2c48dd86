"""The rules by which photos may be ordered, and how well each foretells what a person has to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models import uncertainty
from models.uncertainty import Doubts

Join = Callable[[Sequence[Doubts]], float]


@dataclass(frozen=True, eq=False)
class Foretold:
    """A pool's photos: what a person has to do in each, which are hard, and the doubts that should have told."""

    work: np.ndarray
    hard: np.ndarray
    doubts: list[list[Doubts]]


def joins() -> dict[str, Join]:
    """The rules that were tried: doubts of a photo's objects -> its place in the order."""
    terms: dict[str, Callable[[Doubts], float]] = {
        "score": lambda one: one.score or 0,
        "masks": lambda one: one.masks or 0,
        "box": lambda one: one.box or 0,
        "all, mean": lambda one: ((one.score or 0) + (one.masks or 0) + (one.box or 0)) / 3,
        "all, joined": lambda one: one.joined(),
    }
    found: dict[str, Join] = {"objects found": lambda doubts: float(len(doubts))}
    for name, term in terms.items():
        found |= {f"{name}; {how}": rule for how, rule in _of_objects(term).items()}
    found["the service's"] = uncertainty.of_photo
    return found


def _of_objects(term: Callable[[Doubts], float]) -> dict[str, Join]:
    return {
        "largest": lambda doubts: max(map(term, doubts), default=uncertainty.NOTHING_FOUND),
        "mean": lambda doubts: float(np.mean([*map(term, doubts)])) if doubts else uncertainty.NOTHING_FOUND,
        "sum": lambda doubts: sum(map(term, doubts)) if doubts else uncertainty.NOTHING_FOUND,
    }


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's, with middle ranks of equal values."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def figures_of_rules(pools: Sequence[Foretold]) -> list[str]:
    """How well each rule foretells what a person has to do, over all photos of the pools."""
    work, hard = (np.concatenate([getattr(one, field) for one in pools]) for field in ("work", "hard"))
    first, rows = max(1, len(work) // 5), []
    for name, join in joins().items():
        values = np.array([join(doubts) for one in pools for doubts in one.doubts])
        top = np.argsort(-values, kind="stable")[:first]
        rows.append((rank_correlation(values, work), name, work[top].sum() / work.sum(), hard[top].mean()))
    rows.sort(reverse=True)
    chance = f"| at random | 0 | {first / len(work):.2f} | {hard.mean():.2f} |"
    return [f"| {name} | {rank:.2f} | {share:.2f} | {kind:.2f} |" for rank, name, share, kind in rows] + [chance]
