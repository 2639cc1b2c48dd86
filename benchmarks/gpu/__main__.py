"""Checks what is written for NVIDIA GPUs against its plain twins, times both, and writes the tables: see `gpu.sh`.

Needs torch, transformers and OpenCV, and for YOLOF mmdet. Weights are random but for the demo's, which say how far the
masks are from Hugging Face's in float32.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.bench import HUGE, TINY, Bench
from benchmarks.gpu.lanes import both_lanes, transfers
from benchmarks.gpu.networks import check_kernels, decode, encode
from benchmarks.gpu.random_sam import Models
from benchmarks.gpu.report import document, machine, versions
from benchmarks.gpu.served import cold_start, demo, ready, served, yolof

RESULTS = Path(__file__).parents[1] / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 where a check failed, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the processor: shows that the script works")
    parser.add_argument("--out", type=Path, help="folder for the result (default: $OUT, or benchmarks/results)")
    parser.add_argument("--ready", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.cpu and not torch.cuda.is_available():
        print("benchmarks.gpu: no NVIDIA GPU that torch can use; --cpu runs tiny sizes without one", file=sys.stderr)
        return 2
    if args.cpu:
        bench = Bench(torch.device("cpu"), TINY, (1, 2, 4), (1, 3), repeats=1, photo_hw=(96, 128), scenes=2)
    else:
        bench = Bench(torch.device("cuda", torch.cuda.current_device()), HUGE)
    with torch.inference_mode():
        if args.ready:
            ready(bench)
            return 0
        print(f"{machine(bench)}, {versions()}")
        models = Models.random(bench)
        parts = (check_kernels, encode, decode, both_lanes, transfers)
        sections: list[functools.partial[None]] = [functools.partial(part, bench, models) for part in parts]
        sections += [functools.partial(part, bench) for part in (demo, served, yolof, cold_start)]
        for section in sections:
            began = time.monotonic()
            try:
                section()
            except Exception as error:  # the time on a GPU is dear: the rest still runs, and this one has failed
                traceback.print_exc()
                bench.passed = False
                name = section.func.__name__
                bench.checks.append((name, type(error).__name__, "no error", "FAILED"))
            print(f"       {section.func.__name__}: {time.monotonic() - began:.0f} s")
    folder = args.out or Path(os.environ.get("OUT") or RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{re.sub('[^a-z0-9]+', '-', machine(bench).lower())}.md"
    path.write_text(document(bench))
    print(f"{'all checks passed' if bench.passed else 'SOME CHECKS FAILED'}; written to {path}")
    return 0 if bench.passed else 1


if __name__ == "__main__":
    sys.exit(main())
