"""`box2mask run --order`: the results of a run in the order in which a person's look at the photos teaches most."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import TextIO

from app.folders.journal import Journal
from app.results.image_result import ImageResult
from models import uncertainty

NAME = "order.csv"
COLUMNS = ("rank", "image", "priority", "objects", "score_doubt", "mask_doubt", "box_doubt")


class ByUncertainty:
    """A journal's results by falling uncertainty, and by name where it is equal; as `Results`.

    It holds a few numbers of each photo, never all results.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._doubts = {result.name: _doubts(result) for result in journal}
        self._priorities = {name: uncertainty.of_photo(doubts) for name, doubts in self._doubts.items()}

    def __iter__(self) -> Iterator[ImageResult]:
        for name in self._names():
            yield self._journal.result(name)

    def priority(self, name: str) -> float:
        """0..1, `models.uncertainty.of_photo` of this photo, to four digits."""
        return round(self._priorities[name], 4)

    def write(self, file: TextIO) -> None:
        """The list as CSV, with the mean doubt of each sort; a field is empty where nothing tells."""
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for rank, name in enumerate(self._names(), start=1):
            doubts = self._doubts[name]
            means = (_mean(getattr(one, field) for one in doubts) for field in ("score", "masks", "box"))
            rows.writerow([rank, name, f"{self.priority(name):.4f}", len(doubts), *means])

    def _names(self) -> list[str]:
        """As the written numbers go, so that whoever sorts by them gets this order."""
        return sorted(self._priorities, key=lambda name: (-self.priority(name), name))


def _doubts(result: ImageResult) -> list[uncertainty.Doubts]:
    return [uncertainty.of_object(one.score, one.box_xyxy, one.rle, one.mask_agreement) for one in result.objects]


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.4f}" if known else ""
