"""`box2mask serve` in a process that is forked from this one, so that hundreds of starts import nothing again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import NoReturn

from benchmarks.service import REPOSITORY, Running, Service


class ForkedService(Service):
    """As Service. memory: bytes that its process may have of its own.

    The process that makes one has imported what serving needs, has no other threads, and has let torch compute in none.
    """

    def __init__(self, settings: Mapping[str, str], memory: int) -> None:
        self._memory = memory
        super().__init__(settings)

    def _start(self, environment: dict[str, str]) -> Running:
        assert threading.active_count() == 1
        pid = os.fork()
        if pid == 0:
            self._serve(environment)
        return _Forked(pid)

    def _serve(self, environment: dict[str, str]) -> NoReturn:
        """In the child: what the command does, from the settings on."""
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(self._log.fileno(), 2)
            resource.setrlimit(resource.RLIMIT_DATA, (self._memory, self._memory))
            os.chdir(REPOSITORY)
            os.environ.clear()
            os.environ.update(environment)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            from app.cli import main

            status = main(["serve"])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        finally:
            sys.stderr.flush()
            os._exit(status)


class _Forked:
    """A child of this process, as Popen has one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended: int | None = None

    def poll(self) -> int | None:
        if self._ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._ended = os.waitstatus_to_exitcode(status) if pid else None
        return self._ended

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (ended := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("box2mask serve", timeout or 0)
            time.sleep(0.05)
        return ended

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
