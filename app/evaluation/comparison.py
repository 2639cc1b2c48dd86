"""Whether an evaluation is worse than an earlier one: the two of the same data, asked in the same way."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.evaluation.tables import Table, shown
from models.data import Dataset

_ROUNDING = 1e-9


class ComparisonError(Exception):
    """There is nothing to compare with; says why."""


@dataclass(frozen=True)
class Measured:
    """What of an evaluation.json is compared.

    data: what was measured on, the name aside. asked: images, with those that could not be answered. figures: by what
    people call them, 0..1 or None where the data does not determine one.
    """

    data: dict[str, Any]
    asked: int
    score_threshold: float
    figures: dict[str, float | None]

    @classmethod
    def of(cls, document: dict[str, Any]) -> Measured:
        """Raises KeyError or TypeError for what is no content of an evaluation.json."""
        data = {key: value for key, value in document["data"].items() if key != "name"}
        figures: dict[str, float | None] = {}
        if document["boxes"] is not None:
            figures["mAP of boxes"] = document["boxes"]["coco"]["mAP"]
        rows = Counter[str]()
        for one in document["masks"]:
            rows[one["prompts"]] += 1
            place = "" if rows[one["prompts"]] == 1 else f", row {rows[one['prompts']]}"
            figures[f"IoU of masks ({one['prompts']}{place}), none as 0"] = one["average_iou_all_objects"]
        return cls(data, data["images"] + len(document["failures"]), document["score_threshold"], figures)


@dataclass(frozen=True)
class Earlier:
    """An evaluation to compare others with."""

    path: Path
    measured: Measured

    @classmethod
    def read(cls, path: Path) -> Earlier:
        """Raises ComparisonError."""
        try:
            return cls(path, Measured.of(json.loads(path.read_bytes())))
        except OSError as error:
            raise ComparisonError(
                f"{path}: expected the evaluation.json of an earlier `box2mask evaluate`: {error.strerror}"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ComparisonError(
                f"{path}: expected the evaluation.json of an earlier `box2mask evaluate`, found another file"
            ) from error

    def check(self, dataset: Dataset) -> None:
        """Raises ComparisonError for a data set that it is seen not to be of, before any model is asked."""
        classes = list(self.measured.data["classes"])
        if (self.measured.asked, classes) != (len(dataset), list(dataset.class_names)):
            raise ComparisonError(
                f"{self.path} is of other data: of {self.measured.asked} images of {', '.join(classes)}; "
                f"here are {len(dataset)} of {', '.join(dataset.class_names)}"
            )

    def compared(self, document: dict[str, Any]) -> Comparison:
        """document: an evaluation.json's content. Raises ComparisonError where the two measure different things."""
        before, now = self.measured, Measured.of(document)
        if before.data != now.data:
            key = next(key for key in now.data if before.data.get(key) != now.data[key])
            raise ComparisonError(
                f"{self.path} is of other data, or other images of it were answered: {key} {before.data.get(key)} "
                f"there, {now.data[key]} here"
            )
        if before.score_threshold != now.score_threshold:
            raise ComparisonError(
                f"{self.path} is of --score-threshold {before.score_threshold:g}, and this of {now.score_threshold:g}: "
                "expected the same"
            )
        if alone := before.figures.keys() ^ now.figures.keys():
            raise ComparisonError(
                f"{self.path} and this do not both have {', '.join(sorted(alone))}: expected the same --prompts and "
                "--masks, and a detector in both or in none"
            )
        pairs = {name: (before.figures[name], value) for name, value in now.figures.items()}
        known = {name: (was, value) for name, (was, value) in pairs.items() if was is not None and value is not None}
        if not known:
            raise ComparisonError(f"{self.path}: there is nothing to compare: the data determines no figure")
        return Comparison(self.path, known)


@dataclass(frozen=True)
class Comparison:
    """The figures before and now, by name."""

    path: Path
    figures: dict[str, tuple[float, float]]

    def worse(self, by: float) -> list[str]:
        """The figures that fell by more than this, each as a person reads it."""
        fallen = {name: pair for name, pair in self.figures.items() if pair[0] - pair[1] > by + _ROUNDING}
        return [f"{name} {now:.4f}, was {was:.4f}" for name, (was, now) in fallen.items()]

    def table(self) -> Table:
        rows = [[name, shown(was), shown(now), f"{now - was:+.3f}"] for name, (was, now) in self.figures.items()]
        return Table(f"Compared with {self.path}", ["figure", "there", "here", "change"], rows)
