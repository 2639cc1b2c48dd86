"""A folder of drawn scenes by `box2mask run` in one process, and by `--ray local` with two actors: files, time, memory.

    python -m benchmarks.ray_batch --scenes 2000 --turns 1 > benchmarks/results/ray-batch.md

Both have two networks at work at once, each with one thread. Runs go in turns. The memory is that of the process that
the command is, which on Ray's side holds no photo: when 200 photos are done, and when all are.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.demo.dataset import draw_dataset

TOLERANCE = 1e-4
EARLY = 200
MODELS = {
    "BOX2MASK_DETECTOR": "demo-yolof", "BOX2MASK_SEGMENTER": "demo-sam", "BOX2MASK_DEVICE": "cpu",
    "BOX2MASK_DTYPE": "float32", "TQDM_MININTERVAL": "0",
}  # fmt: skip


@dataclass
class Ran:
    """seconds: from start to end. first: until the first result. memory: MB of the process when so many were done."""

    seconds: float
    first: float
    memory: dict[int, float] = field(default_factory=dict)


def run(photos: Path, out: Path, options: list[str], threads: int, marks: tuple[int, ...]) -> Ran:
    """One run of the command."""
    command = [sys.executable, "-m", "app", "run", str(photos), "--out", str(out), *options]
    environment = os.environ | MODELS | {"OMP_NUM_THREADS": str(threads)}
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    ran = Ran(0.0, 0.0)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            done = done_of(out)
            if done and not ran.first:
                ran.first = time.perf_counter() - begin
            for mark in marks:
                if done >= mark and mark not in ran.memory:
                    ran.memory[mark] = resident_mb(process.pid)

    watching = threading.Thread(target=watch)
    watching.start()
    _, errors = process.communicate()
    ran.seconds = time.perf_counter() - begin
    ended.set()
    watching.join()
    if process.returncode:
        raise RuntimeError(errors.decode())
    return ran


def resident_mb(pid: int) -> float:
    """What a process has of the memory; nan when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return math.nan
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), math.nan)


def done_of(out: Path) -> int:
    """Photos with a drawn result."""
    try:
        return sum(not name.startswith(".") for name in os.listdir(out / "overlays"))
    except FileNotFoundError:
        return 0


def differences(one: Path, other: Path) -> list[str]:
    """Files that are not the same but for the last digits of numbers."""
    names = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (one, other)]
    found = [str(name) for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        left, right = (root / name for root in (one, other))
        if name.name == "journal.jsonl" or left.read_bytes() == right.read_bytes():
            continue
        if name.suffix != ".json" or not alike(*(json.loads(path.read_text()) for path in (left, right))):
            found.append(str(name))
    return found


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(alike(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float):
        return isinstance(other, int | float) and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(one == other)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--turns", type=int, default=1, help="how often each runs, one after the other")
    parser.add_argument("--photos", type=Path, default=Path("/tmp/scenes"), help="where they are, or are drawn to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if not (args.photos / "images").is_dir():
            draw_dataset(args.photos, args.scenes)
        photos = args.photos / "images"
        here: list[Ran] = []
        there: list[Ran] = []
        unlike: set[str] = set()
        marks = (EARLY, args.scenes - 1)
        for turn in range(args.turns):
            for ran, name, options, threads in (
                (here, "here", [], 2),
                (there, "ray", ["--ray", "local", "--actors", "2"], 1),
            ):
                ran.append(run(photos, root / f"{name}{turn}", options, threads, marks))
                print(f"{name}: {ran[-1]}", file=sys.stderr)
            unlike.update(differences(root / f"here{turn}", root / f"ray{turn}"))
    print(f"{args.scenes} drawn scenes, demo models, float32, {os.cpu_count()} cores, {args.turns} turns each\n")
    print("| | seconds | until the first result | from there to the end | MB at 200 | MB at the end |")
    print("|---|---|---|---|---|---|")
    for name, ran in (("`box2mask run`", here), ("`--ray local --actors 2`", there)):
        seconds, first = (statistics.median(getattr(one, what) for one in ran) for what in ("seconds", "first"))
        memory = " | ".join(f"{ran[-1].memory.get(mark, math.nan):.0f}" for mark in marks)
        print(f"| {name} | {seconds:.1f} | {first:.1f} | {seconds - first:.1f} | {memory} |")
    ratio = statistics.median(a.seconds / b.seconds for a, b in zip(there, here, strict=True))
    warm = statistics.median((a.seconds - a.first) / (b.seconds - b.first) for a, b in zip(there, here, strict=True))
    print(f"\nRay's time by the other: {ratio:.3f}; from the first result on: {warm:.3f}.")
    print(f"Files that are not the same: {', '.join(sorted(unlike)) or 'none'}.")


if __name__ == "__main__":
    main()
