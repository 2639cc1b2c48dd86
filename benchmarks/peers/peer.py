"""A network in another runtime, in a process of the peers' own environment: called like `benchmarks.child.Child`."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.child import ChildFailed, peak_memory_mb

PYTHON = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"
_PROCESS = Path(__file__).with_name("process.py")


@dataclass(frozen=True)
class Kind:
    """A runtime and its numbers: those of `benchmarks/peers/process.py`, and what to call them."""

    library: str
    numbers: str
    name: str


OPENVINO = Kind("openvino", "float32", "OpenVINO, float32")
OPENVINO_BFLOAT16 = Kind("openvino", "bfloat16", "OpenVINO, bfloat16")
OPENVINO_WEIGHTS = Kind("openvino", "int8-weights", "OpenVINO, weights in int8, else bfloat16")
ONNX_RUNTIME = Kind("onnxruntime", "float32", "ONNX Runtime, float32")


def missing() -> str | None:
    """What to do where there is no environment of the peers'."""
    return (
        None if PYTHON.exists() else f"{PYTHON.parents[1].name} is not there: `make peers` installs the other runtimes"
    )


class Peer:
    """Starts at once; `ready` waits until the network is compiled."""

    def __init__(self, kind: Kind, threads: int, model: Path, inputs: Path) -> None:
        self._kind = kind
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process
        command = [PYTHON, _PROCESS, kind.library, kind.numbers, threads, model, inputs]
        self._process = subprocess.Popen(
            [str(word) for word in command], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )

    def ready(self) -> None:
        """Raises ChildFailed, with the end of what the process said."""
        self._answer()

    def run(self, work: object = None) -> float:
        """Run once; the seconds that it took in the process."""
        return self._ask("run")

    def outputs(self) -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            self._ask(f"save {folder}/outputs.npz")
            with np.load(f"{folder}/outputs.npz") as file:
                return dict(file)

    def peak_mb(self) -> float:
        return peak_memory_mb(self._process.pid)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _ask(self, line: str) -> float:
        assert self._process.stdin is not None
        try:
            print(line, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._answer()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read()[-2000:]
            raise ChildFailed(f"{self._kind.name}: ended with status {self._process.returncode}: {said}")
        return line.strip()
