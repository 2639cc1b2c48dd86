"""What is little enough to be read or written at once."""

from __future__ import annotations

import pytest

from app.contract.amount import LITTLE, is_little


@pytest.mark.parametrize(
    ("content", "little"),
    [
        ([{"predictions": [{"mask_per_prediction": [{"encoded_binary_mask": "x" * 2000, "iou_score": 0.5}]}]}], True),
        ([None, "", [[1, 2, 3, 4]], True, {}], True),
        ("x" * LITTLE, False),
        (["x" * (LITTLE // 4)] * 5, False),
        ([[0.5] * 2000], False),
        ([{"polygon": [[0.5] * 500] * 4}], False),
    ],
)
def test_a_click_is_little_and_megabytes_are_not(content: object, little: bool) -> None:
    assert is_little(content) is little


def test_much_is_not_looked_at_to_its_end() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert not is_little(endless)
