"""What tells a right answer from a wrong one under load, and a drift from none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contract import masks
from benchmarks.reliability import soak
from benchmarks.reliability.sigterm import Stop, summary
from benchmarks.reliability.traffic import Case, Deviation, Different, deviation
from models.rle import encode_rle

REPOSITORY = Path(__file__).parents[2]


def a_mask(*more: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((50, 80), bool)
    mask[10:30, 20:60] = True
    for place in more:
        mask[place] = True
    return mask


def an_answer(mask: np.ndarray, score: float = 0.5, **more: Any) -> list[Any]:
    encoded = {
        "encoded_binary_mask": masks.encode_png(mask),
        "rle": encode_rle(mask),
        "polygon": masks.encode_polygons(mask),
    }
    return [{"predictions": [{"mask_per_prediction": [{**encoded, "iou_score": score, **more}]}]}]


def test_an_answer_does_not_differ_from_itself() -> None:
    assert deviation(an_answer(a_mask()), an_answer(a_mask())) == Deviation()


@pytest.mark.parametrize("form", ["encoded_binary_mask", "rle", "polygon"])
def test_pixels_are_counted_in_every_form(form: str) -> None:
    found, expected = ({form: an_answer(mask)[0]["predictions"][0]["mask_per_prediction"][0][form]} for mask in
                       (a_mask((0, 0), (40, 70)), a_mask()))  # fmt: skip
    assert deviation(found, expected).pixels == pytest.approx(2 / 4000, rel=0.1)


def test_numbers_are_compared_wherever_they_are() -> None:
    found = deviation(an_answer(a_mask(), 0.5), an_answer(a_mask(), 0.6))
    assert found.number == pytest.approx(0.1) and found.pixels == 0


@pytest.mark.parametrize(
    ("found", "expected"),
    [([1], [1, 2]), ({"a": 1}, {"b": 1}), ("can", "carton"), (1, 1.0), (an_answer(a_mask()), an_answer(a_mask()[:40]))],
)
def test_what_is_more_than_a_number_is_different(found: Any, expected: Any) -> None:
    with pytest.raises(Different):
        deviation(found, expected)


def a_box(score: float, label: str = "can", left: float = 0.1) -> dict[str, Any]:
    return {"label": label, "score": score, "box": {"topX": left, "topY": 0.2, "bottomX": 0.6, "bottomY": 0.7}}


def test_boxes_of_one_score_may_change_places_and_nothing_else() -> None:
    expected = [{"boxes": [a_box(0.9), a_box(0.500001), a_box(0.5, "carton"), a_box(0.4)]}]
    swapped = [{"boxes": [a_box(0.9), a_box(0.500001, "carton"), a_box(0.5), a_box(0.4)]}]
    assert deviation(swapped, expected).number == pytest.approx(1e-6)
    for wrong in (
        [a_box(0.9), a_box(0.5, "carton"), a_box(0.500001), a_box(0.4)],  # not in order
        [a_box(0.9), a_box(0.500001), a_box(0.5, "bottle"), a_box(0.4)],
        [a_box(0.9), a_box(0.500001, left=0.11), a_box(0.5, "carton"), a_box(0.4)],
        [a_box(0.9), a_box(0.500001), a_box(0.5, "carton")],
        [a_box(0.9), a_box(0.9), a_box(0.500001), a_box(0.5, "carton"), a_box(0.4)],
    ):
        with pytest.raises(Different):
            deviation([{"boxes": wrong}], expected)


def test_a_box_at_the_threshold_may_be_missing() -> None:
    both, one = [{"boxes": [a_box(0.9), a_box(0.05001)]}], [{"boxes": [a_box(0.9)]}]
    assert deviation(both, one) == deviation(one, both) == Deviation()


def test_a_case_knows_its_right_answer() -> None:
    right = json.dumps(an_answer(a_mask())).encode()
    case = Case("/score", b"", 200, right)
    assert case.check(200, right) == Deviation()
    assert case.check(200, json.dumps(an_answer(a_mask(), 0.50001)).encode()) == Deviation(pytest.approx(1e-5), 0.0)
    assert case.check(200, json.dumps(an_answer(a_mask(), 0.51)).encode()) is None
    assert case.check(200, json.dumps(an_answer(a_mask(*((0, x) for x in range(30))))).encode()) is None
    assert case.check(200, b"{") is None
    assert case.check(500, right) is None
    told = Case("/score", b"", 400, b'{"message": "a"}')
    assert told.check(400, b'{"message": "a"}') == Deviation()
    assert told.check(400, b'{"message":  "a"}') is None


def test_drift_is_what_changes_after_the_warm_up() -> None:
    samples = [(float(second), 500.0 + (5 * second if second < 20 else 100)) for second in range(100)]
    assert soak.drift(samples, 1, 20) == (pytest.approx(0), pytest.approx(600), pytest.approx(600))
    growing = [(float(second), 100.0 + second) for second in range(101)]
    change, first, last = soak.drift(growing, 1, 0)
    assert (change, first, last) == (pytest.approx(100 / 150), pytest.approx(100), pytest.approx(200))


def test_a_lost_request_shows_in_the_summary() -> None:
    cells = summary([Stop(admitted=5, at_work=3, status=0, seconds=1.0), Stop(admitted=4, at_work=1, lost=["7-0"])])
    assert cells[:4] == ("2", "9", "1 to 3", "1") and cells[6] == "1"


def test_every_benchmark_of_reliability_says_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability"], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    for name in ("soak", "load", "sigterm", "faults"):
        assert f"  {name} " in done.stderr
