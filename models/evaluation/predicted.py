"""What a file of predictions says of the images of a data set."""

from __future__ import annotations

from dataclasses import dataclass

from models.evaluation.masks import Rle


@dataclass(frozen=True)
class Predicted:
    """One predicted object; the fields are those of `Found`."""

    label: str | None
    score: float | None
    box_xyxy: tuple[float, float, float, float]
    rle: Rle | None = None


@dataclass(frozen=True)
class Predictions:
    """For each image of the data set its objects; and what should be said of how the file was read."""

    found: list[list[Predicted]]
    notes: tuple[str, ...] = ()
