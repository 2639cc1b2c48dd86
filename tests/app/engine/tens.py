"""Work for compute threads whose results anyone can say, as it makes tens of ones, and how to wait for it."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from app.engine.compute import Between, Compute, Work

# Far more than anything here takes; who waits so long waits for ever.
PATIENCE_S = 20.0
A_THREAD_DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 2 * PATIENCE_S))

    return run


class Tens:
    """Work that makes tens of ones; remembers its batches, and stops before each of its steps until it is let on."""

    def __init__(self, steps: int = 0, **kind: Any) -> None:
        self.work: Work[int, int] = Work(self.run, **kind)
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.steps_done = 0
        self._steps = steps
        self._stopped = threading.Semaphore(0)
        self._let_on = threading.Semaphore(0)

    def run(self, items: Sequence[int], between: Between) -> list[int]:
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        for _ in range(self._steps):
            self._stopped.release()
            assert self._let_on.acquire(timeout=PATIENCE_S)
            between()
            self.steps_done += 1
        return [10 * item for item in items]

    async def stopped(self) -> None:
        """Wait until it stands before its next step."""
        assert await asyncio.to_thread(self._stopped.acquire, timeout=PATIENCE_S)

    def let_on(self, steps: int = 1) -> None:
        self._let_on.release(steps)


async def waiting(*calls: Awaitable[int]) -> list[asyncio.Task[int]]:
    """The calls as tasks, each of which has come as far as it comes by itself: its job is in the queue."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def held(compute: Compute) -> tuple[Tens, asyncio.Task[int]]:
    """Keep the patient thread busy, with one step that it stands before."""
    holder = Tens(steps=1)
    [task] = await waiting(compute.do(holder.work, 1))
    await holder.stopped()
    return holder, task


async def outcomes(tasks: Sequence[Awaitable[int]]) -> list[Any]:
    """Results; of what failed the kind of error."""
    return [
        type(outcome) if isinstance(outcome, BaseException) else outcome
        for outcome in await asyncio.gather(*tasks, return_exceptions=True)
    ]
