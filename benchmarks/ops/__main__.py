"""`python -m benchmarks.ops --compiled PYTHON`: each op here and compiled, in turns, and writes a table of the ratios.

PYTHON is an interpreter whose mmcv 2.1.0 has its ops compiled, beside the same torch. Either side is a process of its
own with one thread. The times are those of the processor, so that what else the machine does is not in them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import Machine
from benchmarks.ops.cases import CASES
from benchmarks.report import duration, table

ROOT = Path(__file__).parents[2]
HEADER = ("op", "pass", "compiled, median", "ours, median", "compiled / ours", "compiled, memory", "ours, memory")


class Side:
    """A process that runs cases by their number."""

    def __init__(self, python: str, kind: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.ops.side", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def run(self, case: int) -> list[dict[str, float]]:
        """What the forward pass took, and the backward pass where there is one."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(case, file=self._process.stdin, flush=True)
        found: list[dict[str, float]] = json.loads(self._process.stdout.readline())
        return found


def main(argv: list[str] | None = None) -> int:
    """Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=__doc__)
    parser.add_argument("--compiled", required=True, metavar="PYTHON", help="the interpreter with the compiled ops")
    parser.add_argument("--cases", nargs="+", type=int, metavar="N", help="only these, from 0")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/ops.md", help="where to write")
    args = parser.parse_args(argv)
    machine = Machine.this()
    compiled, plain = Side(args.compiled, "compiled"), Side(sys.executable, "plain")
    rows: list[tuple[str, ...]] = []
    for number in args.cases or range(len(CASES)):
        case = CASES[number]
        runs = [(compiled.run(number), plain.run(number)) for _ in range(case.repeats + 1)]
        first, later = runs[0], runs[1:]  # what is loaded and allocated once is not a call's
        for at, name in enumerate(("forward", "backward")[: len(first[0])]):
            theirs, ours = ([run[side][at]["seconds"] for run in later] for side in (0, 1))
            ratio = statistics.median(theirs) / statistics.median(ours)
            memory = [f"{first[side][at]['mb']:.0f} MB" for side in (0, 1)]
            times = [duration(statistics.median(one)) for one in (theirs, ours)]
            rows.append((case.name, name, *times, f"{ratio:.2f}×", *memory))
            print("; ".join(rows[-1]), file=sys.stderr, flush=True)
    lines = [
        "# mmcv's ops in plain torch beside its compiled ones",
        "",
        *machine.lines(),
        "- `python -m benchmarks.ops --compiled PYTHON`, mmcv 2.1.0 beside the same torch",
        "",
        "One thread, float32; processor time; either side's process in turns. Memory is by how much the process grew",
        "in its first call, output and gradients included.",
        "",
        table(HEADER, rows),
    ]
    args.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
