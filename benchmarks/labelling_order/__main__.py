"""What is labelled first: detector and masks against the number of corrected photos, by uncertainty and at random.

`python -m benchmarks.labelling_order` writes benchmarks/results/labelling-order.md and .png. The drawn truth plays the
person who corrects. The photos are demo scenes: most of a kind that the demo detector knows, some blurred or dark.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy import DEMO_SEGMENTER
from benchmarks.labelling_order.photos import Photo, draw
from benchmarks.labelling_order.report import Point, Setting, plot, report
from benchmarks.labelling_order.rules import Foretold, figures_of_rules
from benchmarks.labelling_order.student import Student, answers, figures, lacking
from models import uncertainty
from models.segmenter.sam import Sam
from models.types import Embedding

RESULT = Path(__file__).parents[1] / "results" / "labelling-order.md"
# Scenes of these numbers on are neither those of `box2mask data demo` nor those that the demo weights are measured on.
FIRST_NUMBER = 20_000_000
TEST_NUMBER = 30_000_000


def points(
    student: Student,
    segmenter: Sam,
    seed: int,
    setting: Setting,
    scratch: Path,
    test: Sequence[Photo],
    known: dict[Path, Embedding],
) -> tuple[list[Point], Foretold]:
    """The orders of one pool, and what each budget of each brings. known: embeddings of the test photos."""
    pool = draw(scratch, FIRST_NUMBER + seed * 10_000, setting.pool, setting.hard_share)
    student.train(pool, 0, seed)  # the demo's weights
    found = answers(student.detect, segmenter, pool)
    values = np.array([uncertainty.of_photo(one.doubts) for one in found])
    summed = np.array([sum(each.joined() for each in one.doubts) for one in found])
    orders = {
        "uncertainty": np.argsort(-values, kind="stable"),
        "uncertainty, summed": np.argsort(-summed, kind="stable"),
        "random": np.random.default_rng(seed).permutation(setting.pool),
    }
    before = figures(test, answers(student.detect, segmenter, test, known))
    measured = []
    for name, order in orders.items():
        measured.append(Point(seed, name, 0, 0, 0, *before))
        for budget in setting.budgets:
            chosen = [pool[place] for place in order[:budget]]
            student.train(chosen, setting.steps, seed)
            now = figures(test, answers(student.detect, segmenter, test, known))
            hard, things = sum(one.hard for one in chosen), sum(len(one.labelled.annotations) for one in chosen)
            measured.append(Point(seed, name, budget, hard, things, *now))
            print(measured[-1], flush=True)
    foretold = Foretold(lacking(pool, found), np.array([one.hard for one in pool]), [one.doubts for one in found])
    return measured, foretold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many pools of photos")
    parser.add_argument("--pool", type=int, default=48, help="photos to label, in each pool")
    parser.add_argument("--test", type=int, default=32, help="photos to measure on")
    parser.add_argument("--budgets", type=int, nargs="+", default=[12, 24], help="how many photos are corrected")
    parser.add_argument("--steps", type=int, default=25, help="of each training")
    parser.add_argument("--hard-share", type=float, default=0.4, help="the share of photos that are blurred or dark")
    parser.add_argument("--out", type=Path, default=RESULT, help="file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(args.pool, args.test, tuple(args.budgets), args.steps, args.hard_share)
    began = time.monotonic()
    student, segmenter = Student(), Sam.load(DEMO_SEGMENTER)
    measured: list[Point] = []
    pools: list[Foretold] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        test = draw(folder / "test", TEST_NUMBER, setting.test, setting.hard_share)
        known: dict[Path, Embedding] = {}
        for seed in range(args.seeds):  # what is done is written, whatever becomes of the rest
            more, foretold = points(student, segmenter, seed, setting, folder / str(seed), test, known)
            measured += more
            pools.append(foretold)
            picture = args.out.with_suffix(".png")
            plot(measured, picture)
            lines = report(measured, setting, figures_of_rules(pools), picture.name, time.monotonic() - began)
            args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
