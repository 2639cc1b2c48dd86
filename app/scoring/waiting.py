"""Awaits many things at once, or one for so long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from app.errors import DeadlineExceeded

T = TypeVar("T")


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Drop what is awaited inside as soon as it has taken longer. Raises DeadlineExceeded then."""
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise  # another's
        raise DeadlineExceeded(f"not answered within {seconds:g} s") from error


async def each(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all, also those after one that failed, and raise the first failure in the order of the calls."""
    calls = list(calls)
    if len(calls) == 1:  # needs no task: a click waits for one thing after the other
        return [await calls[0]]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast(list[T], outcomes)


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; as soon as one has failed, drop the others."""
    calls = list(calls)
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        if tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()  # raises the failure
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
