"""Freed memory stays in the process."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from models import training_process

# Whether it was done, and how many megabytes the process has more, with four blocks of 64 MB taken and freed.
FREED = """
import resource, sys
from models.training_process import keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20

done = sys.argv[1] == "keep" and keep_freed_memory()
before = resident()
blocks = [b"x" * (64 << 20) for _ in range(4)]
assert resident() - before > 250
del blocks
print(done, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where the system is another")
def test_freed_blocks_are_kept() -> None:
    def freed(how: str) -> tuple[str, int]:
        done, kept = subprocess.check_output([sys.executable, "-c", FREED, how], text=True).split()
        return done, int(kept)

    done, kept = freed("keep")
    if done == "False":
        pytest.skip("this C library has no mallopt")
    assert kept > 250
    assert freed("leave")[1] < 10, "by default they go back to the system"


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())  # a C library without mallopt
        assert not training_process.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not training_process.keep_freed_memory()
