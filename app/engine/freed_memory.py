"""Gives memory that is free, but that the C library keeps, back to the system.

Images, masks and tensors of all sizes come and go in many threads at once. What they leave behind is free in places
that the C library cannot give back by itself, as something that lasts lies above them; so a process under load would
seem to grow for hours, by its fragments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio.to_thread

from models.c_library import c_function

_EVERY_S = 10.0


def trim() -> bool:
    """Give back every whole page that is free; whether this system's C library can (the GNU C library)."""
    malloc_trim = c_function("malloc_trim")
    if malloc_trim is None:
        return False
    malloc_trim(0)
    return True


async def trim_regularly(work_done: Callable[[], int], every_s: float = _EVERY_S) -> None:
    """Trim while there is work, for ever. work_done: a count of it, which stands still where there was none."""
    seen = 0
    while True:
        await asyncio.sleep(every_s)
        if (now := work_done()) != seen:
            seen = now
            if not await anyio.to_thread.run_sync(trim):
                return
