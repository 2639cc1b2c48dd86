"""Work beside the event loop: in a pool's threads, with the request that it is for, and with faults that are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from app.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


async def call_in(pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in the pool. Raises as `guarded` does."""
    context = copy_context()  # with the request that this is for
    work = partial(context.run, partial(guarded, function, *args, **kwargs))
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def guarded(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function. Raises Unavailable where the memory does not suffice, and else what it raises."""
    try:
        return function(*args, **kwargs)
    except MemoryError as error:
        raise Unavailable("the memory does not suffice for this request") from error
    except (SystemExit, KeyboardInterrupt) as error:  # of a library's; they would end the event loop
        raise RuntimeError(f"the work raised {error!r}") from error
