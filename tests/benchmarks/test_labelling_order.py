"""The benchmark of what to label first: that it runs from photos to its report, and its ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.labelling_order.__main__ import main
from benchmarks.labelling_order.rules import rank_correlation


def test_ranks_of_equal_values_are_their_middle_ones() -> None:
    assert rank_correlation(np.array([1, 2, 3.0]), np.array([10, 20, 90])) == pytest.approx(1)
    assert rank_correlation(np.array([3, 2, 1.0]), np.array([10, 20, 90])) == pytest.approx(-1)
    # Ranks 1.5, 1.5, 3 and 1, 2, 3, as scipy.stats.spearmanr has them.
    assert rank_correlation(np.array([0, 0, 1.0]), np.array([1, 2, 3.0])) == pytest.approx(3**0.5 / 2)


def test_it_runs_from_photos_to_a_report_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "order.md"
    options = "--seeds 1 --pool 6 --test 2 --budgets 2 --steps 1 --hard-share 0.5 --out"
    monkeypatch.setattr(sys, "argv", ["labelling_order", *options.split(), str(out)])
    main()
    rows = [line.split(" | ") for line in out.read_text().splitlines() if line.startswith("| 2 |")]
    assert [row[1] for row in rows[:3]] == ["uncertainty", "uncertainty, summed", "random"]
    assert "| the service's |" in out.read_text()
    assert out.with_suffix(".png").stat().st_size > 10_000
