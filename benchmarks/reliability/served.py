"""A service to be treated badly: in a process of its own, with its log, its memory, and faults to switch on."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.reliability.faulty_service import FOLDER, JOURNAL, PRELOADED, run

REPOSITORY = Path(__file__).parents[2]
STARTS_WITHIN_S = 600
DEMO = {"BOX2MASK_DETECTOR": "demo-yolof", "BOX2MASK_SEGMENTER": "demo-sam", "BOX2MASK_DEVICE": "cpu"}


class _Command:
    """`box2mask serve`, as it is started in life."""

    def __init__(self, environment: dict[str, str], log_file: Path) -> None:
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve"],
                cwd=REPOSITORY,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.pid = self._process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """The status, None where it has not ended by then. A signal's number is negative."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


class _Forked:
    """The same with faults, forked from a process that has imported all of it: most of a start are imports."""

    def __init__(self, environment: dict[str, str], log_file: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        log_file.touch()
        self._process = context.Process(target=run, args=(environment, str(log_file)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode


class NotServed(RuntimeError):
    """The service did not start; the message has its log."""


class Served:
    """A started service, on a free port of loopback.

    settings: `BOX2MASK_…` variables beside the demo weights; none are taken over from this process's environment.
    folder: where its log and its faults are. faulty: whether faults can be switched on.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, *, faulty: bool = False) -> None:
        self.folder = folder
        self.faults = folder / "faults"
        self.faults.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "service.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOX2MASK_", "AZUREML_"))}
        own = {"BOX2MASK_HOST": "127.0.0.1", "BOX2MASK_PORT": "0", FOLDER: str(self.faults), **DEMO, **(settings or {})}
        self.process = (_Forked if faulty else _Command)(kept | own, self.log_file)
        self.url = ""
        self.port = 0

    def ready(self) -> Served:
        """Wait until it answers. Raises NotServed."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while self.process.wait(0) is None and time.monotonic() < deadline:
            announced = re.search(r"http://[^ ]+:(\d+)", self.log())
            if announced is not None:
                self.url, self.port = f"http://127.0.0.1:{announced[1]}", int(announced[1])
                if self.probe("/health/ready") == 200:
                    return self
            time.sleep(0.05)
        raise NotServed(f"the service did not start; it ended with {self.process.wait(0)}:\n{self.log()}")

    def probe(self, path: str) -> int:
        """The status of a GET; 0 where there is no answer."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=10, trust_env=False).status_code
        except httpx.TransportError:
            return 0

    @contextmanager
    def fault(self, name: str, how: str = "") -> Iterator[None]:
        """The fault, while in this context."""
        self.begin(name, how)
        try:
            yield
        finally:
            (self.faults / name).unlink()

    def begin(self, name: str, how: str = "") -> None:
        """Switch a fault on, at once and whole."""
        unseen = self.faults / f".{name}"
        unseen.write_text(how)
        unseen.replace(self.faults / name)

    def admitted(self) -> list[str]:
        """The x-request-ids of what was let in so far."""
        journal = self.faults / JOURNAL
        return journal.read_text().split() if journal.exists() else []

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def memory_mb(self, kind: str = "VmRSS") -> float:
        """Its physical memory now, in MB (2^20 bytes); "VmHWM": the most so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{kind}:")[1].split()[0]) / 1024

    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def ended(self, within_s: float) -> int | None:
        """The status with which it ended, None where it still runs after so long."""
        return self.process.wait(within_s)

    def terminate(self) -> None:
        os.kill(self.process.pid, signal.SIGTERM)

    def close(self) -> None:
        if self.ended(0) is None:
            self.terminate()
            if self.ended(60) is None:
                os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(settings: Mapping[str, str] | None = None, *, faulty: bool = False) -> Iterator[Served]:
    """A service that is ready, in a folder of its own that goes with it."""
    with tempfile.TemporaryDirectory(prefix="box2mask-") as folder:
        served = Served(Path(folder), settings, faulty=faulty)
        try:
            yield served.ready()
        except Exception as error:
            if (status := served.ended(0)) is not None:
                error.add_note(f"the service has ended with {status}:\n{served.log()[-5000:]}")
            raise
        finally:
            served.close()


def wait_until(condition: Callable[[], bool], within_s: float) -> float | None:
    """The seconds until it holds, or None where it does not within so long."""
    began = time.monotonic()
    while time.monotonic() - began < within_s:
        if condition():
            return time.monotonic() - began
        time.sleep(0.02)
    return None
