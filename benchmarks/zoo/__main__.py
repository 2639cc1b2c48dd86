"""`python -m benchmarks.zoo`: asks the zoo's families one after the other, and writes tables of what they answered."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

from benchmarks.machine import Machine
from benchmarks.zoo import listed
from benchmarks.zoo.asked import Limits, Outcome, ask
from benchmarks.zoo.chosen import all_that_differ, one_of_each, tree
from benchmarks.zoo.report import document
from models.demo.scenes import render_scene
from models.detector.zoo import LIST, families, write_families

EPILOG = """\
An interrupted run goes on where it stopped when the command is run again: what its --out has is not asked anew.

examples:
  python -m benchmarks.zoo --out zoo.jsonl
  python -m benchmarks.zoo --all --out zoo.jsonl
  python -m benchmarks.zoo --configs atss/atss_r50_fpn_1x_coco.py --out one.jsonl
  python -m benchmarks.zoo --again --out zoo.jsonl --report benchmarks/results/zoo.md --write
"""


def main(argv: list[str] | None = None) -> int:
    """Returns 0 if no config failed, else 1. A command line that cannot be understood ends in argparse's SystemExit."""
    args = build_parser().parse_args(argv)
    _prepare(args.threads)
    root = tree()
    limits = Limits(args.memory, args.threads, args.longest, args.proposals)
    chosen, distinct = args.configs or one_of_each(root, {one.name: one.config for one in families()}), 0
    if args.all:
        chosen, distinct = all_that_differ(root, chosen)
        print(f"{distinct} configs have {len(chosen)} models", file=sys.stderr, flush=True)
    image = render_scene(np.random.default_rng(0), (args.size[1], args.size[0])).image
    done = read(args.out)
    for number, config in enumerate(chosen, 1):
        if config in done and not (args.again and done[config].state != "served"):
            continue
        outcome = done[config] = ask(root, config, image, limits)
        with args.out.open("a") as file:
            file.write(outcome.line() + "\n")
        said = outcome.said or f"{outcome.boxes} boxes in {outcome.answer_s} s, {outcome.peak_mb:.0f} MB"
        print(f"[{number}/{len(chosen)}] {config}: {outcome.state}: {said}", file=sys.stderr, flush=True)
    outcomes = [done[config] for config in sorted(chosen)]
    if args.report:
        command = "python -m benchmarks.zoo" + " --all" * args.all + f" --longest {args.longest}" * bool(args.longest)
        command += f" --proposals {args.proposals}" * bool(args.proposals)
        text = document(Machine.this(), command, args.size, limits, outcomes, distinct)
        args.report.write_text(text)
        print(f"written to {args.report}", file=sys.stderr)
    if args.write:
        found = listed.families(root, done, one_of_each(root, {one.name: one.config for one in families()}))
        write_families(found)
        listed.write_document(found)
        print(f"written to {LIST} and {listed.DOCUMENT}", file=sys.stderr)
    return int(any(outcome.state == "failed" for outcome in outcomes))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo",
        description="Ask one config of each family of MMDetection's zoo, with random weights, over HTTP.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="all configs that differ in more than schedule and data")
    which.add_argument(
        "--configs", nargs="+", metavar="CONFIG", help="only these, by their paths in the zoo's configs/"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where outcomes go, one JSON in a line")
    parser.add_argument("--again", action="store_true", help="ask those anew that FILE has as refused or failed")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="also write a table of time and memory, in Markdown"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="also replace the list of `box2mask detectors` and docs/detectors.md by FILE's",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, default=(640, 480), metavar=("W", "H"), help="of the scene (default: 640 480)"
    )
    parser.add_argument(
        "--longest", type=int, metavar="PIXELS", help="resize images to this at most, in place of the config's own size"
    )
    parser.add_argument(
        "--proposals", type=int, metavar="N", help="that a detector in two stages looks at, at most (default: its own)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of each network (default: 1)")
    parser.add_argument("--memory", type=float, default=8.0, metavar="GB", help="at most, of one config (default: 8)")
    return parser


def read(path: Path) -> dict[str, Outcome]:
    """The outcomes in a file, by config; the last one of each."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {outcome.config: outcome for outcome in map(Outcome.of, filter(None, lines))}


def _prepare(threads: int) -> None:
    """Import what each config's processes need, which are forked from this one; libraries have nothing to say here."""
    import cv2
    import torch

    import app.engine.engine
    import app.engine.loading
    import app.server  # noqa: F401
    from models.detector import mmcv_ops, old_libraries

    warnings.simplefilter("ignore")
    cv2.setNumThreads(0)  # a forked process would wait for its threads for ever
    torch.set_num_threads(threads)
    old_libraries.mend()
    mmcv_ops.install()
    import mmdet.models  # noqa: F401


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no service is left behind
    sys.exit(main())
