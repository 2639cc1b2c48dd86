"""Locust's clients, from one to a thousand: what they wait, how many are sent away, and whether every answer is right.

The queue has its usual 64 places. More clients than that get 429 and come again when they are told to.
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Machine
from benchmarks.reliability import traffic
from benchmarks.reliability.served import REPOSITORY, Served, serving
from benchmarks.report import table

RESULTS = Path(__file__).parent / "results"
CLIENTS = (1, 2, 4, 8, 16, 32, 64, 256, 1000)
IMAGES = 12
DEADLINE_S = 60
SETTINGS = {"BOX2MASK_REQUEST_TIMEOUT_S": str(DEADLINE_S), "BOX2MASK_LOG_LEVEL": "warning"}
PERCENTILES = ("50%", "95%", "99%", "100%")
HEADER = ("clients", "accepted", "a second", *(f"{one} s" for one in PERCENTILES), "429", "their 99% s", "503", "other",
          "wrong or broken", "memory, most MB")  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What so many clients saw. accepted: answered 200. seconds: at PERCENTILES, of these. others: all but 429, 503."""

    clients: int
    accepted: int
    per_second: float
    seconds: tuple[float, ...]
    refused: int
    refused_p99_s: float
    unavailable: int
    others: int
    failures: int
    memory_mb: float

    @property
    def kept(self) -> bool:
        return not self.failures and not self.unavailable and self.accepted > 0 and self.seconds[2] <= DEADLINE_S

    def cells(self) -> tuple[str, ...]:
        return (
            str(self.clients), str(self.accepted), f"{self.per_second:.1f}", *(f"{one:.2f}" for one in self.seconds),
            str(self.refused), f"{self.refused_p99_s:.2f}", str(self.unavailable), str(self.others), str(self.failures),
            f"{self.memory_mb:.0f}",
        )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Returns 0 where every answer was right or a 429 and the accepted ones' 99th percentile is in time, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability load", description=__doc__)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=CLIENTS, help=f"default: {' '.join(map(str, CLIENTS))}"
    )
    parser.add_argument("--seconds", type=int, default=30, help="for each number of clients (default: 30)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help=f"default: {RESULTS}")
    args = parser.parse_args(argv)
    machine = Machine.this()
    steps: list[Step] = []
    with tempfile.TemporaryDirectory(prefix="box2mask-") as scratch, serving(SETTINGS) as served:
        cases = Path(scratch) / "cases"
        # Only what is right: bad requests are answered so fast that nothing else would be seen.
        known = [case for case in traffic.answered(traffic.make(IMAGES), served.url) if case.status == 200]
        cases.write_bytes(pickle.dumps(known))
        for clients in args.clients:
            steps.append(_step(served, clients, args.seconds, cases, Path(scratch) / str(clients)))
            print(steps[-1], file=sys.stderr, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "load.md").write_text(document(machine, steps, args.seconds))
    plot(steps, args.out / "load.png")
    print((args.out / "load.md").read_text())
    return int(not all(step.kept for step in steps))


def _step(served: Served, clients: int, seconds: int, cases: Path, prefix: Path) -> Step:
    done = subprocess.run(
        [
            sys.executable, "-m", "locust", "--headless",
            "--locustfile", str(Path(__file__).with_name("locustfile.py")),
            "--users", str(clients), "--spawn-rate", str(clients),
            "--run-time", f"{seconds}s", "--stop-timeout", "300s",
            "--host", served.url, "--csv", str(prefix), "--only-summary", "--exit-code-on-error", "0",
        ],
        cwd=REPOSITORY,
        env=os.environ | {"CASES": str(cases), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"locust ended with {done.returncode}: {done.stderr[-2000:]}")
    with Path(f"{prefix}_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    counts = {name: int(row["Request Count"]) for name, row in rows.items()}
    accepted, refused = rows.get("200"), rows.get("429")
    return Step(
        clients=clients,
        accepted=counts.get("200", 0),
        per_second=float(accepted["Requests/s"]) if accepted else 0.0,
        seconds=tuple(float(accepted[one]) / 1000 if accepted else 0.0 for one in PERCENTILES),
        refused=counts.get("429", 0),
        refused_p99_s=float(refused["99%"]) / 1000 if refused else 0.0,
        unavailable=counts.get("503", 0),
        others=sum(number for name, number in counts.items() if name not in ("200", "429", "503", "Aggregated")),
        failures=int(rows["Aggregated"]["Failure Count"]),
        memory_mb=served.memory_mb("VmHWM"),
    )


def document(machine: Machine, steps: list[Step], seconds: int) -> str:
    return "\n".join(
        [
            "# Load",
            "",
            f"`make load SECONDS={seconds}`: **{'passed' if all(step.kept for step in steps) else 'FAILED'}**",
            "",
            *machine.lines(),
            f"- deadline of a request: {DEADLINE_S} s; places in the queue: 64; the clients share the processors",
            "",
            table(HEADER, [step.cells() for step in steps]),
            "",
            "![Latency and throughput by the number of clients](load.png)",
            "",
        ]
    )


def plot(steps: list[Step], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 6), layout="constrained")
    clients = [step.clients for step in steps]
    for index, name in enumerate(PERCENTILES):
        above.plot(clients, [step.seconds[index] for step in steps], marker="o", label=name)
    above.set(xscale="log", yscale="log", ylabel="seconds, of the accepted")
    above.legend()
    below.plot(clients, [step.per_second for step in steps], marker="o")
    below.set(xlabel="clients", ylabel="answers a second")
    below.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
