"""The shortest time of each way counts, and ways take turns."""

from __future__ import annotations

import pytest

from models.segmenter import trials
from models.segmenter.trials import least_seconds


def test_each_ways_shortest_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []
    lasts = {"one": iter((5.0, 2.0, 3.0, 4.0)), "other": iter((4.0, 4.0, 9.0, 1.0))}

    def work(name: str) -> None:
        order.append(name)
        now[0] += next(lasts[name])

    monkeypatch.setattr(trials.time, "perf_counter", lambda: now[0])
    assert least_seconds({name: lambda name=name: work(name) for name in lasts}) == {"one": 2.0, "other": 1.0}
    assert order == ["one", "other"] * 4
