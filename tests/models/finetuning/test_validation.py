"""Figures of validations."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data import Annotation, Dataset, LabelledImage
from models.finetuning.validation import BoxFigures


@pytest.mark.parametrize(("threshold", "recall"), [(None, 0.0), (0.0, 1.0), (0.1, 1.0), (0.2, 0.0)])
def test_a_threshold_of_none_is_not_one_of_zero(threshold: float | None, recall: float) -> None:
    image = LabelledImage(Path("a.png"), (40, 40), (Annotation("a", (0, 0, 20, 20)),))
    metric = BoxFigures(Dataset(("a",), (image,)), threshold)
    assert metric.compute_metrics([(0, [[0.0, 0.0, 20.0, 20.0]], [0.15], [0], None)])["recall"] == recall
