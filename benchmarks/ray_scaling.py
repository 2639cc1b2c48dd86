"""What more processes bring to a folder on Ray, with models that sleep: photos a second by 1 to 32 of them.

    python -m benchmarks.ray_scaling [--actors 1 2 4 8 16 32] > benchmarks/results/ray-scaling.md

Each process sleeps 50 ms for a photo and 2 ms for its mask; photos have 200 KB. The pace is that of the middle half of
the results, by when each was in the journal: without the time in which processes start and end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from app.cluster.folders.connecting import Pool, Pools, connected
from benchmarks.folder_on_ray import through_ray, write_photos
from benchmarks.machine import Machine
from benchmarks.report import table
from benchmarks.sleeping_models import Sleeping

ENCODE_S, DECODE_S = 0.05, 0.002
PHOTOS = 240  # for each process
_CPUS = 0.01  # of a process that sleeps, so that Ray finds room for all


def pace(actors: int, photos: int, scratch: Path, *, separate_io: bool = False) -> tuple[float, float]:
    """Photos a second, and how busy the processors were in all of the run, 0..1. photos: for each process."""
    count = photos * actors
    folder, out = scratch / f"photos-{count}", scratch / f"out-{actors}"
    write_photos(folder, count)
    with connected("local", Pools(Pool(actors, 0, _CPUS), separate_io=separate_io)) as pools:
        psutil.cpu_percent()
        ran = through_ray(str(folder), str(out), Sleeping(ENCODE_S, DECODE_S, 1), pools)
        busy = psutil.cpu_percent() / 100
    assert ran.summary.done == count, f"expected {count} photos, got {ran.summary.done}"
    shutil.rmtree(folder)
    return ran.pace, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--photos", type=int, default=PHOTOS, help="for each process")
    parser.add_argument("--separate-io", action="store_true", help="as of `box2mask run`")
    args = parser.parse_args()
    machine = Machine.this()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for actors in args.actors:
            found, busy = pace(actors, args.photos, Path(folder), separate_io=args.separate_io)
            linear = found / actors * (ENCODE_S + DECODE_S)
            print(f"{actors} processes: {found:.1f} photos a second", file=sys.stderr, flush=True)
            rows.append((str(actors), f"{found:.1f}", f"{linear:.2f}", f"{busy:.0%}"))
    print("# What more processes bring to a folder on Ray\n")
    print("\n".join(machine.lines()))
    ms = 1000 * (ENCODE_S + DECODE_S)
    print(
        f"\nMade by `python -m benchmarks.ray_scaling`: models that sleep {ms:.0f} ms for a photo, photos of 200 KB.\n"
    )
    print(table(("processes", "photos a second", "of their number times 19.2", "busy in all of the run"), rows))


if __name__ == "__main__":
    main()
