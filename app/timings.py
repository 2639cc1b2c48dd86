"""What a request's time goes into, stage by stage; the record travels with the request in a context variable.

Knows nothing of HTTP. Where nobody keeps a record (the command line, the MLflow model) nothing is noted.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

# In the order in which a request goes through them; docs/observability.md says what each is.
STAGES = ("receive", "parse", "fetch", "decode", "queue", "encode", "detect", "prompt", "post", "serialise")
# Stretches of a stage that are kept apart before those that meet become one; more, if that leaves many.
_KEPT = 512

Stretch = tuple[float, float]


class Listener(Protocol):
    """Is told of what happens in any request, from any thread."""

    def on_stage(self, stage: str, seconds: float) -> None:
        """A step of a stage that ran in a thread of the pool: one image's decoding, one mask's encoding."""

    def on_fetch(self, outcome: str, seconds: float, size: int) -> None:
        """An image URL was asked for. size: bytes of the file, 0 if there is none."""


class Timings:
    """When which stage of one request was in work. Any thread may add to it.

    Rows are worked on side by side. What happens at the same time in a stage counts once, so that no stage takes longer
    than the whole request.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self.listener = listener
        self.began = time.perf_counter()
        self._lock = threading.Lock()
        self._stretches: dict[str, list[Stretch]] = defaultdict(list)
        self._kept: dict[str, int] = defaultdict(lambda: _KEPT)

    def add(self, stage: str, began: float, ended: float) -> None:
        """Note that one of STAGES was in work from `began` to `ended`, by `time.perf_counter()`."""
        with self._lock:
            stretches = self._stretches[stage]
            stretches.append((began, ended))
            if len(stretches) > self._kept[stage]:
                stretches[:] = _merged(stretches)
                self._kept[stage] = max(_KEPT, 2 * len(stretches))

    def stretches(self) -> dict[str, list[Stretch]]:
        """For each stage that there was, when it was in work: stretches in order, which do not meet."""
        with self._lock:
            return {stage: _merged(self._stretches[stage]) for stage in STAGES if stage in self._stretches}

    def milliseconds(self) -> dict[str, float]:
        """For each stage that there was, how long it was in work."""
        return {
            stage: 1000 * sum(ended - began for began, ended in stretches)
            for stage, stretches in self.stretches().items()
        }


_current: ContextVar[Timings | None] = ContextVar("box2mask_timings", default=None)


@contextmanager
def recording(timings: Timings) -> Iterator[None]:
    """Within it, `timings` is the record of the request in work, also in the tasks that it starts."""
    token = _current.set(timings)
    try:
        yield
    finally:
        _current.reset(token)


def add(stage: str, began: float, ended: float) -> None:
    """`Timings.add` for the request in work, if there is one."""
    timings = _current.get()
    if timings is not None:
        timings.add(stage, began, ended)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Note what happens within it as one of STAGES, of the request in work; the listener is told too."""
    timings = _current.get()
    if timings is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        ended = time.perf_counter()
        timings.add(name, began, ended)
        if timings.listener is not None:
            timings.listener.on_stage(name, ended - began)


class Fetch:
    """What is known of a fetch that goes on: how it ends, and the bytes that came."""

    outcome = "failed"
    size = 0


@contextmanager
def fetching() -> Iterator[Fetch]:
    """Note what happens within it as the stage `fetch`; the listener is told how it ended."""
    fetch = Fetch()
    timings = _current.get()
    began = time.perf_counter()
    try:
        yield fetch
    finally:
        ended = time.perf_counter()
        if timings is not None:
            timings.add("fetch", began, ended)
            if timings.listener is not None:
                timings.listener.on_fetch(fetch.outcome, ended - began, fetch.size)


def _merged(stretches: list[Stretch]) -> list[Stretch]:
    """In order, those that meet as one."""
    merged: list[Stretch] = []
    for began, ended in sorted(stretches):
        if merged and began <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], ended))
        else:
            merged.append((began, ended))
    return merged
