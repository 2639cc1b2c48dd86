"""One side of the comparison, a process of its own: `python -m benchmarks.ops.side compiled|plain`.

It reads a case's number from each line of its input, runs the case once, and writes what it took as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.ops.cases import CASES, Call


def main(kind: str) -> int:
    """kind: `compiled` for mmcv's own ops, `plain` for those of this project. Returns 0 at the input's end."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if kind == "plain":
        from models.detector import mmcv_ops

        assert mmcv_ops.install(), "this environment's mmcv has its ops compiled"
    made: dict[int, tuple[Call, Call | None]] = {}
    for line in sys.stdin:
        number = int(line)
        if number not in made:
            made.clear()
            made[number] = CASES[number].make()
        print(json.dumps([_measured(call) for call in made[number] if call is not None]), flush=True)
    return 0


def _measured(call: Call) -> dict[str, Any]:
    """Seconds, and by how many MB the process grew meanwhile at most."""
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most that there has been
    before = _memory("VmRSS")
    began = time.process_time()
    call()
    return {"seconds": time.process_time() - began, "mb": _memory("VmHWM") - before}


def _memory(name: str) -> float:
    """In MB (2^20 bytes), from Linux's /proc."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
