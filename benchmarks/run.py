"""What the cases of the yardstick share: settings, models with random weights, and sides that run in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from benchmarks.accuracy import DEMO_DETECTOR, DEMO_SEGMENTER, Accuracy, measure
from benchmarks.report import Comparison
from benchmarks.service import Service


class Started(Protocol):
    """A process that is getting ready."""

    def ready(self) -> None: ...
    def close(self) -> None: ...


class Side(Started, Protocol):
    """One that runs a piece of work when told: a Child, or a Posting to a service."""

    def run(self, work: Any) -> float: ...
    def peak_mb(self) -> float: ...


@dataclass
class Run:
    """The settings of one run of the yardstick, and what its cases share.

    scratch: where models with random weights are made, when a case first needs them. dtype: what the service
    computes in. repeats: of every case, or None for each case's own.
    """

    scratch: Path
    device: str
    dtype: str
    repeats: int | None = None
    quick: bool = False
    say: Callable[[str], None] = print
    accuracies: dict[str, Accuracy] = field(default_factory=dict)
    _versions: Iterator[int] = field(default_factory=count)

    @property
    def dtypes(self) -> list[str]:
        """float32 for the code's own share of the gain, then what is served."""
        return list(dict.fromkeys(["float32", self.dtype]))

    def segmenter(self, model: str) -> Path:
        folder = self.scratch / f"sam-{model}"
        if model == "demo":
            return DEMO_SEGMENTER
        if not folder.exists():
            from benchmarks.random_models import make_sam

            self.say(f"making SAM {model} with random weights")
            make_sam(folder, model)
        return folder

    def detector(self, model: str) -> Path:
        folder = self.scratch / "yolof-r50"
        if model == "demo":
            return DEMO_DETECTOR
        if not folder.exists():
            from benchmarks.random_models import make_yolof

            self.say("making YOLOF R50 with random weights")
            make_yolof(folder)
        return folder

    def how_often(self, model: str, usual: int, huge: int = 1) -> int:
        """Repeats of a case on this model."""
        return 1 if self.quick else self.repeats or (huge if model == "huge" else usual)

    def version(self) -> int:
        """Of the picture: one that was in no request yet."""
        return next(self._versions)

    def accuracy(self, dtype: str) -> Accuracy:
        """On the demo weights, measured once for each dtype."""
        if dtype not in self.accuracies:
            self.say(f"measuring accuracy in {dtype}")
            self.accuracies[dtype] = measure(dtype, self.device, scene_count=2 if self.quick else 24)
        return self.accuracies[dtype]

    def service(self, dtype: str, *, segmenter: Path | None = None, detector: Path | None = None) -> Service:
        return Service(
            {
                "BOX2MASK_SEGMENTER": str(segmenter or "none"),
                "BOX2MASK_DETECTOR": str(detector or "none"),
                "BOX2MASK_DTYPE": dtype,
                "BOX2MASK_DEVICE": self.device,
            }
        )


@contextmanager
def standing(sides: Sequence[Started]) -> Iterator[None]:
    """Wait until all sides, which were started together, are ready; end them afterwards."""
    try:
        for side in sides:
            side.ready()
        yield
    finally:
        for side in sides:
            side.close()


def alternate(sides: Mapping[str, Side], warm_up: Any, works: Sequence[Any]) -> dict[str, list[float]]:
    """Run each piece of work on every side in turn, so that what else the machine does meets all of them."""
    for side in sides.values():
        side.run(warm_up)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for work in works:
        for name, side in sides.items():
            seconds[name].append(side.run(work))
    return seconds


def compare(
    case: str,
    reference: Side,
    ours: Mapping[str, Side],
    warm_up: Any,
    works: Sequence[Any],
    accuracy: Mapping[str, str],
) -> list[Comparison]:
    """A row for each of our sides, which are named by their dtype."""
    sides = {"reference": reference, **ours}
    with standing(list(sides.values())):
        seconds = alternate(sides, warm_up, works)
        peaks = {name: side.peak_mb() for name, side in sides.items()}
    return [
        Comparison(case, dtype, seconds["reference"], seconds[dtype], peaks["reference"], peaks[dtype], accuracy[dtype])
        for dtype in ours
    ]
