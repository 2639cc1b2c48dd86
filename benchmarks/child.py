"""A process that holds a model and runs it when told, while the other side's process sleeps.

One model per process is what makes the peak memory of each side its own.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Task = Callable[[Any], Any]


class ChildFailed(RuntimeError):
    """A child could not be made ready or failed in a run; the message is its own traceback."""


class Child:
    """A process made by `setup(*arguments)`, which returns the function that each run calls.

    `setup` and what it is given must be picklable. The process starts at once; `ready` waits for it.
    """

    def __init__(self, setup: Callable[..., Task], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would begin with this process's memory
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, setup, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ready(self) -> None:
        """Wait until the model is loaded. Raises ChildFailed."""
        self._receive()

    def run(self, work: Any = None) -> float:
        """Run once; the seconds that it took in the child, without the pipe."""
        return self._ask(work, False)[0]

    def answer(self, work: Any = None) -> Any:
        """Run once, for what the task returns."""
        return self._ask(work, True)[1]

    def peak_mb(self) -> float:
        return peak_memory_mb(self._process.pid)

    def close(self) -> None:
        self._pipe.close()  # which the child takes as the end
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, work: Any, wanted: bool) -> Any:
        self._pipe.send((work, wanted))
        return self._receive()

    def _receive(self) -> Any:
        try:
            failure, value = self._pipe.recv()
        except EOFError as error:
            self._process.join()
            raise ChildFailed(f"a child ended with status {self._process.exitcode}") from error
        if failure is not None:
            raise ChildFailed(failure)
        return value


def _serve(pipe: Connection, setup: Callable[..., Task], arguments: tuple[Any, ...]) -> None:
    sys.stdout = sys.stderr  # what libraries have to say is no result
    try:
        task = setup(*arguments)
        pipe.send((None, None))
        while True:
            work, wanted = pipe.recv()
            began = time.perf_counter()
            result = task(work)
            elapsed = time.perf_counter() - began
            pipe.send((None, (elapsed, result if wanted else None)))
            del result
    except EOFError:  # the parent has closed its end
        pass
    except Exception:  # to be raised in the parent
        pipe.send((traceback.format_exc(), None))


def peak_memory_mb(pid: int | None) -> float:
    """The most physical memory that a process has had, in MB (2^20 bytes), from Linux's /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
