"""The results as rows, and the rows as markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy import Accuracy
from benchmarks.machine import Machine


@dataclass(frozen=True)
class Comparison:
    """One case on both sides: the seconds of each run, in pairs that ran one after the other."""

    case: str
    dtype: str
    reference_s: list[float]
    ours_s: list[float]
    reference_mb: float
    ours_mb: float
    accuracy: str

    header = (
        "case", "numbers", "reference, median", "ours, median", "ratio", "least ratio",
        "reference, peak memory", "ours, peak memory", "repeats", "accuracy",
    )  # fmt: skip

    @property
    def ratio(self) -> float:
        return statistics.median(self.reference_s) / statistics.median(self.ours_s)

    def cells(self) -> tuple[str, ...]:
        least = min(a / b for a, b in zip(self.reference_s, self.ours_s, strict=True))
        return (
            self.case, self.dtype, duration(statistics.median(self.reference_s)),
            duration(statistics.median(self.ours_s)), f"{self.ratio:.2f}×", f"{least:.2f}×",
            f"{self.reference_mb:.0f} MB", f"{self.ours_mb:.0f} MB", str(len(self.ours_s)), self.accuracy,
        )  # fmt: skip


@dataclass(frozen=True)
class PeerComparison:
    """One case in another runtime and in ours, in turns. far: each one's relative error against ours in float32."""

    case: str
    peer: str
    dtype: str
    peer_s: list[float]
    ours_s: list[float]
    peer_mb: float
    ours_mb: float
    peer_far: float
    ours_far: float

    header = (
        "case", "beside", "ours in", "theirs, median", "ours, median", "theirs / ours", "least", "most",
        "their peak memory", "our peak memory", "repeats", "their error", "our error",
    )  # fmt: skip

    def cells(self) -> tuple[str, ...]:
        ratios = [theirs / ours for theirs, ours in zip(self.peer_s, self.ours_s, strict=True)]
        theirs, ours = statistics.median(self.peer_s), statistics.median(self.ours_s)
        return (
            self.case, self.peer, self.dtype, duration(theirs), duration(ours), f"{theirs / ours:.2f}×",
            f"{min(ratios):.2f}×", f"{max(ratios):.2f}×", f"{self.peer_mb:.0f} MB", f"{self.ours_mb:.0f} MB",
            str(len(ratios)), f"{self.peer_far:.1g}", f"{self.ours_far:.1g}",
        )  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """What was measured beside what bounds it. distance: how far the one is from the other."""

    case: str
    dtype: str
    measured: str
    limit: str
    distance: str
    note: str

    header = ("case", "numbers", "measured", "limit", "distance", "note")

    def cells(self) -> tuple[str, ...]:
        return (self.case, self.dtype, self.measured, self.limit, self.distance, self.note)


Row = Comparison | PeerComparison | Limit


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table whose columns also line up as plain text."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def document(machine: Machine, command: str, rows: Sequence[Row], accuracies: Sequence[Accuracy]) -> str:
    """The whole result file."""
    parts = [f"# {machine.name}", "\n".join([*machine.lines(), f"- `{command}`"]), NOTES]
    for title, kind in TABLES.items():
        cells = [row.cells() for row in rows if isinstance(row, kind)]
        if cells:
            parts += [f"## {title}", table(kind.header, cells)]
    if accuracies:
        parts += ["## Accuracy on the demo weights", table(ACCURACY_HEADER, [_accuracy(one) for one in accuracies])]
    return "\n\n".join(parts) + "\n"


TABLES: dict[str, type[Row]] = {
    "Against the straightforward loop": Comparison,
    "Beside other runtimes": PeerComparison,
    "Against the machine's limit": Limit,
}

NOTES = """\
Times are of models with random weights, but for the demo ones. Reference and service ran in turns on the same images;
ratio is that of the medians, least ratio the worst of any pair of runs. Peak memory is that of each side's own process.
`encode`, `decode` and `png` call the code itself; everything else of ours is a request over HTTP, answered in full,
and of the reference a call of its scoring function with the same body. Accuracy is that of the service's answers on
the demo weights in the same numbers; a PNG is compared pixel by pixel.

Beside other runtimes all sides have the same inputs and as many threads, and run in turns, each in a process of its
own; above 1× ours is the faster one. An error is the norm of the difference from ours in float32, over its norm."""

ACCURACY_HEADER = (
    "numbers", "masks", "mean IoU", "least IoU", "`iou_score` within", "boxes", "sides within", "scores within",
)  # fmt: skip


def _accuracy(one: Accuracy) -> tuple[str, ...]:
    return (
        one.dtype, str(len(one.ious)), f"{one.ious.mean():.5f}", f"{one.ious.min():.5f}",
        f"{one.scores_off.max():.2g}", str(len(one.boxes_px)),
        f"{one.boxes_px.max(initial=0):.2g} px", f"{one.box_scores_off.max(initial=0):.2g}",
    )  # fmt: skip


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.{0 if seconds >= 0.1 else 1}f} ms"


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99."""
    p50, p99 = np.percentile(seconds, (50, 99))
    return float(p50), float(p99)
