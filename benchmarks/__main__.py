"""`python -m benchmarks`: measures this machine, prints the rows as they come, writes `benchmarks/results/NAME.md`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cases import ALL_CASES, CASES, MODELS, PEER_CASES, models_of
from benchmarks.machine import Machine
from benchmarks.peers.peer import missing
from benchmarks.report import TABLES, Row, document, table
from benchmarks.run import Run

RESULTS = Path(__file__).parent / "results"

EPILOG = """\
cases (those beside other runtimes need `make peers` and are run where they are named):
{cases}

examples:
  python -m benchmarks
  python -m benchmarks --cases png decode --repeats 5
  python -m benchmarks --models base --dtype float32 --out /dev/stdout
"""


def main(argv: list[str] | None = None) -> int:
    """Returns 0. A command line that cannot be understood ends in argparse's SystemExit."""
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
    if (why := missing()) and any(name in PEER_CASES for name in args.cases or ()):
        parser.error(why)
    machine = Machine.this()
    rows: list[Row] = []
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", file=sys.stderr, flush=True)

    device = args.device if args.device != "auto" else "cuda" if machine.gpu else "cpu"
    dtype = args.dtype if args.dtype != "auto" else machine.best_dtype
    chosen = args.models or (["demo"] if args.quick else [])
    with tempfile.TemporaryDirectory(prefix="box2mask-bench-") as temporary:
        scratch = args.scratch or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        run = Run(scratch.resolve(), device, dtype, args.repeats, args.quick, say)
        for name in args.cases or CASES:
            for model in models_of(name, chosen):
                say(f"{name} ({model})" if model != "none" else name)
                found = ALL_CASES[name].measure(run, model)
                rows += found
                for kind in TABLES.values():
                    cells = [row.cells() for row in found if isinstance(row, kind)]
                    if cells:
                        print(table(kind.header, cells), flush=True)
    command = _command(args)
    out = args.out or RESULTS / f"{args.name or machine.name}.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(document(machine, command, rows, list(run.accuracies.values())))
    say(f"written to {out}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    cases = "\n".join(f"  {name:<12} {case.measure.__doc__}" for name, case in ALL_CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run the straightforward loop and the service in turns on the same images, and compare.",
        epilog=EPILOG.format(cases=cases),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=ALL_CASES, metavar="CASE", help="only these")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="sizes of SAM, in place of each case's own")
    parser.add_argument("--repeats", type=_positive, metavar="N", help="pairs of runs, in place of each case's own")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="what the service computes in; auto: bfloat16 where the hardware has it",
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="of every side (default: one for each core)")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where models are made, and kept")
    parser.add_argument("--device", default="auto", help="cpu or cuda, for both sides; auto takes a GPU")
    parser.add_argument("--quick", action="store_true", help="demo weights, once: to see that it works")
    parser.add_argument("--name", help="of the result file (default: after the processor)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write, in place of benchmarks/results")
    return parser


def _command(args: argparse.Namespace) -> str:
    """What was asked for, without where it was to be written."""
    words = ["python", "-m", "benchmarks"]
    for name, value in vars(args).items():
        if name not in ("out", "name", "scratch") and value not in (None, False):
            words += [
                f"--{name}",
                *(map(str, value) if isinstance(value, list) else [str(value)] * (value is not True)),
            ]
    return shlex.join(words)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no service is left behind
    sys.exit(main())
