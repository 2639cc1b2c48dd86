"""Every fault once, in real processes: what the callers got, how it went on, and how long that took."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability.outcomes import Broken, Outcome
from benchmarks.reliability.scenarios import CALLERS, FATAL, SHARED, run_fatal, shared_service
from benchmarks.report import table

# In which it must have recovered, or ended.
WITHIN_S = 5.0
HEADER = ("fault", "callers", "then", "seconds", "as promised")


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where every fault went as it must, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability faults", description=__doc__)
    names = [fault.__name__ for fault in (*SHARED, *FATAL)]
    parser.add_argument("--only", nargs="+", choices=names, metavar="FAULT", help=f"of {', '.join(names)}")
    args = parser.parse_args(argv)
    wanted = args.only or names
    rows: list[tuple[str, ...]] = []

    def note(name: str, run: Callable[[], Outcome]) -> None:
        try:
            outcome = run()
        except Broken as error:
            rows.append((name, "-", str(error), "-", "NO"))
        else:
            rows.append((name, *cells(name, outcome)))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)

    shared = [fault for fault in SHARED if fault.__name__ in wanted]
    if shared:
        with tempfile.TemporaryDirectory(prefix="box2mask-") as folder:
            served = shared_service(Path(folder))
            try:
                served.ready()
                for fault in shared:
                    note(fault.__name__, lambda fault=fault: fault(served))  # type: ignore[misc]
            finally:
                served.close()
    for fatal in FATAL:
        if fatal.__name__ in wanted:
            note(fatal.__name__, lambda fatal=fatal: run_fatal(fatal))  # type: ignore[misc]
    print(table(HEADER, rows))
    return int(any(row[-1] == "NO" for row in rows))


def cells(name: str, outcome: Outcome) -> tuple[str, ...]:
    kinds = {0: "connection closed", -1: "HUNG"}
    callers = ", ".join(f"{number} x {kinds.get(status, status)}" for status, number in sorted(outcome.callers.items()))
    kept = outcome.callers == CALLERS.get(name, outcome.callers) and not outcome.hung and outcome.seconds <= WITHIN_S
    return callers or "-", outcome.then, f"{outcome.seconds:.2f}", "yes" if kept else "NO"
