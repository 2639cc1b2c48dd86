"""The service as its users run it: `box2mask serve` in a process of its own, on a free port, over keep-alive HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import httpx

from benchmarks.child import peak_memory_mb

REPOSITORY = Path(__file__).parents[1]
# What the `box2mask` script does, also where the package is not installed.
COMMAND = (sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main(['serve']))")
STARTS_WITHIN_S = 600
TIMEOUT_S = 1800


class ServiceFailed(RuntimeError):
    """The service did not start, or answered something else than 200; the message has what it said."""


class Running(Protocol):
    """What is used of a started process, as Popen has it."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Service:
    """A started service. It has a free port of its own; `url` is known when it is `ready`.

    settings: `BOX2MASK_…` variables; none are taken over from this process's environment.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOX2MASK_", "AZUREML_"))}
        own = {"BOX2MASK_HOST": "127.0.0.1", "BOX2MASK_PORT": "0"} | dict(settings)
        self.url = ""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the service
        self._process = self._start(kept | own)
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def _start(self, environment: dict[str, str]) -> Running:
        return subprocess.Popen(COMMAND, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=self._log)

    def ready(self) -> None:
        """Wait until a request would be answered. Raises ServiceFailed."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while self._process.poll() is None and time.monotonic() < deadline:
            announced = re.search(r"http://[^ ]+:\d+", self.log())
            if announced is not None:
                try:
                    self._client.get(f"{announced[0]}/health/ready").raise_for_status()
                    self.url = announced[0]
                    return
                except httpx.HTTPError:  # not listening yet, or 503 while it loads
                    pass
            time.sleep(0.1)
        raise ServiceFailed(f"the service did not start; it ended with {self._process.poll()}:\n{self.log()}")

    def post(self, path: str, body: bytes) -> bytes:
        """The answer to one request. Raises ServiceFailed where it is not 200."""
        response = self._client.post(f"{self.url}{path}", content=body)
        if response.status_code != 200:
            raise ServiceFailed(f"{path}: {response.status_code} {response.text[:500]}")
        return response.content

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        return os.pread(self._log.fileno(), 2**20, 0).decode(errors="replace")

    def peak_mb(self) -> float:
        return peak_memory_mb(self._process.pid)

    def close(self) -> None:
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


class Posting:
    """A side that posts each run's work, a body, to one path of a service."""

    def __init__(self, service: Service, path: str) -> None:
        self.service = service
        self.path = path

    def ready(self) -> None:
        self.service.ready()

    def run(self, work: bytes) -> float:
        began = time.perf_counter()
        self.service.post(self.path, work)
        return time.perf_counter() - began

    def peak_mb(self) -> float:
        return self.service.peak_mb()

    def close(self) -> None:
        self.service.close()
