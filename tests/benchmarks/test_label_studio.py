"""The benchmark of clicks through Label Studio's ML backend: what it asks, and what it makes of the times."""

from __future__ import annotations

import json

import httpx
import pytest

from app.label_studio.asked import read_request
from app.label_studio.smart_tools import drawn_objects
from benchmarks.label_studio import HEADER, Times, asked, served
from benchmarks.report import table


def test_it_asks_what_the_service_takes() -> None:
    read = read_request(json.loads(asked("/data/upload/0.jpg", 0.25, 0.5)))
    assert read.tasks[0]["data"] == {read.interface.images[0].field: "/data/upload/0.jpg"}
    assert read.context is not None
    (one,) = drawn_objects(read.context)
    assert one.points_xy == [[pytest.approx(0.25), 0.5]] and one.is_single_click
    with served({"/data/upload/0.jpg": b"photo"}) as url:
        assert httpx.get(f"{url}/data/upload/0.jpg").content == b"photo"


def test_the_difference_is_of_the_same_percentiles() -> None:
    times = Times([0.010] * 100, [0.012] * 100, [0.020] * 99 + [0.050], [3.0] * 100, 1.0, 2.0)
    row = times.row("demo", (480, 640))
    assert row[:2] == ("demo", "640 x 480") and row[5] == "10.0 ms" and row[7] == "10.0 ms, 20.0 ms"
    assert len(row) == len(HEADER) and "640 x 480" in table(HEADER, [row])
