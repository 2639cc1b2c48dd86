"""Which of several ways to compute the same is the fastest on this machine: tried, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# How often each way is tried, in turns.
_TRIALS = 4


def least_seconds(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The shortest time that each way took, by its name. The ways take turns, so that all meet the same load."""
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(_TRIALS):
        for name, compute in ways.items():
            began = time.perf_counter()
            compute()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return seconds
