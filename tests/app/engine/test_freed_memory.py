"""Memory that is free goes back to the system, while there is work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from app.engine import freed_memory

REPOSITORY = Path(__file__).parents[3]
# Many blocks below the size that is mapped by itself, and one that lasts above them all.
FRAGMENTS = """
import ctypes, os
from app.engine.freed_memory import trim
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [malloc(65536) for _ in range(3200)]
for block in blocks:
    ctypes.memset(block, 1, 65536)
lasting = malloc(100_000)  # too large for a hole further down, as some C libraries would take for it
for block in blocks:
    free(block)
before = resident_mb()
print(trim(), before - resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="another C library")
def test_what_is_free_below_something_that_lasts_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FRAGMENTS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    trimmed, given_back = done.stdout.split()
    assert trimmed == "True" and float(given_back) > 150


def test_it_is_done_again_after_work_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    work, trimmed_at = 0, list[int]()

    def trim() -> bool:
        trimmed_at.append(work)
        return True

    async def story() -> None:
        nonlocal work
        task = asyncio.create_task(freed_memory.trim_regularly(lambda: work, every_s=0.01))
        for _ in range(3):
            await asyncio.sleep(0.1)
            work += 1
        await asyncio.sleep(0.1)
        task.cancel()

    monkeypatch.setattr(freed_memory, "trim", trim)
    asyncio.run(story())
    assert trimmed_at == [1, 2, 3]
