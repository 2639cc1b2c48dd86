"""Points of the comparison as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.labelling_order.student import BATCH
from benchmarks.machine import Machine

# The orders that are compared; the first is the service's.
COLOURS = {"uncertainty": "tab:orange", "uncertainty, summed": "tab:green", "random": "tab:blue"}


@dataclass(frozen=True)
class Setting:
    """pool, test: photos to label, and to measure on. budgets: how many photos are corrected. steps: of each training.
    hard_share: of the photos of the hard kind."""

    pool: int
    test: int
    budgets: tuple[int, ...]
    steps: int
    hard_share: float


@dataclass(frozen=True)
class Point:
    """The figures after a training on so many corrected photos, how many of these were hard, and the things in them."""

    seed: int
    order: str
    corrected: int
    hard: int
    things: int
    box_map: float
    mask_iou: float


def table(measured: Sequence[Point], name: str, field: str) -> tuple[list[int], np.ndarray]:
    """Budgets, and (budgets, seeds) values of one order."""
    mine = [one for one in measured if one.order == name]
    budgets = sorted({one.corrected for one in mine})
    seeds = sorted({one.seed for one in mine})
    value = {(one.corrected, one.seed): float(getattr(one, field)) for one in mine}
    return budgets, np.array([[value[budget, seed] for seed in seeds] for budget in budgets])


def plot(measured: Sequence[Point], path: Path) -> None:
    """Means over the seeds, with the standard error of each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    fields = {"box_map": "detector: COCO mAP", "mask_iou": "masks: mean IoU of all objects"}
    for axes, (field, title) in zip(figure.subplots(1, 2), fields.items(), strict=True):
        for name, colour in COLOURS.items():
            budgets, values = table(measured, name, field)
            spread = values.std(axis=1, ddof=1) / values.shape[1] ** 0.5 if values.shape[1] > 1 else None
            axes.errorbar(budgets, values.mean(axis=1), spread, label=name, color=colour, marker="o", capsize=3)
        axes.set(xlabel="corrected photos", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def report(
    measured: Sequence[Point], setting: Setting, rules: Sequence[str], picture: str, seconds: float
) -> list[str]:
    seeds = len({one.seed for one in measured})
    budgets, _ = table(measured, "random", "box_map")
    lines = [
        "# What to label first: by uncertainty and at random",
        "",
        *Machine.this().lines(),
        f"- `python -m benchmarks.labelling_order`: {seeds} seeds, {setting.pool} photos to label in each, of which",
        f"  about {setting.hard_share:.0%} are blurred or dark; {setting.test} photos of that mixture to measure on;",
        f"  {setting.steps} steps of {BATCH} photos for the demo detector's neck and head, its backbone kept as it is;",
        f"  the demo SAM, not trained; {seconds / 60:.0f} minutes",
        "",
        "The drawn truth plays the person. Mean over the seeds, and its standard error. Mask IoU is of all true things",
        "by the detector's boxes, with 0 for those that it misses.",
        "",
        f"![Figures against the number of corrected photos]({picture})",
        "",
        "| corrected | order | of them blurred or dark | things in them | detector mAP | mask IoU |",
        "|---|---|---|---|---|---|",
    ]

    def shown(name: str, field: str, place: int) -> str:
        values = table(measured, name, field)[1][place]
        error = f" ± {values.std(ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
        return f"{values.mean():.3f}{error}"

    for place, budget in enumerate(budgets):
        for name in COLOURS if budget else ("random",):
            hard, things = (table(measured, name, field)[1][place].mean() for field in ("hard", "things"))
            lines.append(
                f"| {budget} | {name if budget else '-'} | {hard:.1f} | {things:.0f} | {shown(name, 'box_map', place)} "
                f"| {shown(name, 'mask_iou', place)} |"
            )
    lines += ["", "Minus random order, of the same seed:", ""]
    lines += ["| corrected | order | detector mAP | mask IoU |", "|---|---|---|---|"]
    for place, budget in enumerate(budgets):
        for name in [*COLOURS][:-1] if budget else ():
            differences = [
                table(measured, name, field)[1][place] - table(measured, "random", field)[1][place]
                for field in ("box_map", "mask_iou")
            ]
            cells = (f"{one.mean():+.3f} ({(one > 0).sum()} of {len(one)} seeds)" for one in differences)
            lines.append(f"| {budget} | {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "## The rules that were tried",
        "",
        "On the photos to label: Spearman's rank correlation with what a person has to do on a photo (1 - IoU of each",
        "true object's mask, and 1 for each wrong detection); of the fifth that each rule puts first, its share of all",
        "such work, and the part of it that is blurred or dark.",
        "",
        "| rule | rank correlation | work in the first fifth | blurred or dark in it |",
        "|---|---|---|---|",
        *rules,
    ]
    return lines
