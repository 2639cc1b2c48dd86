"""SAM 2's speed as a row: ratios are of turns that ran one after the other, times are medians."""

from __future__ import annotations

from benchmarks.report import table
from benchmarks.sam2_speed import HEADER, _row


def test_ratios_are_of_turns_and_of_processor_time() -> None:
    pairs = [((6.0, 60.0), (3.0, 10.0)), ((4.0, 40.0), (4.0, 20.0)), ((9.0, 50.0), (6.0, 30.0))]
    row = _row("tiny", "encode", pairs, "100.00%")
    assert row == (
        "SAM 2.1 tiny", "encode", "6.00 s, 4.00 s", "1.50", "1.00, 2.00", "50.00 s, 20.00 s", "100.00%",
    )  # fmt: skip
    assert len(row) == len(HEADER) and "6.00 s, 4.00 s" in table(HEADER, [row])
