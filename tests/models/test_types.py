from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from models.types import Detections, PromptError, Prompts


def points(count: int, each: int = 1) -> np.ndarray:
    return np.arange(count * each * 2.0).reshape(count, each, 2)


def boxes(count: int) -> np.ndarray:
    return np.tile([1.0, 2.0, 5.0, 9.0], (count, 1))


def test_length_counts_prompts() -> None:
    assert len(Prompts()) == 1  # the one unprompted prediction
    assert len(Prompts(points(3, each=2))) == 3
    assert len(Prompts(boxes_xyxy=boxes(4))) == 4
    assert len(Prompts(points(2, each=5), np.ones((2, 5), np.int64), boxes(2))) == 2


def test_points_without_labels_are_points_on_the_object() -> None:
    labels = Prompts(points(2, each=3)).point_labels
    assert labels is not None and labels.dtype == np.int64
    np.testing.assert_array_equal(labels, np.ones((2, 3)))
    given = np.array([[1, 0, -1], [-10, 1, 0]])
    assert Prompts(points(2, each=3), given).point_labels is given
    assert Prompts(boxes_xyxy=boxes(2)).point_labels is None


@pytest.mark.parametrize(
    ("arrays", "column", "message"),
    [
        ({"points_xy": np.zeros((2, 2))}, "input_points", r"expected (point_batch, points_per_prompt, 2), got (2, 2)"),
        ({"points_xy": np.zeros((1, 2, 3))}, "input_points", "got (1, 2, 3)"),
        ({"points_xy": np.zeros((0, 1, 2))}, "input_points", "got (0, 1, 2)"),
        ({"points_xy": np.zeros((1, 0, 2))}, "input_points", "got (1, 0, 2)"),
        ({"boxes_xyxy": np.zeros((2, 3))}, "input_boxes", "expected (num_boxes, 4), got (2, 3)"),
        ({"boxes_xyxy": np.zeros(4)}, "input_boxes", "got (4,)"),
        ({"boxes_xyxy": np.zeros((0, 4))}, "input_boxes", "got (0, 4)"),
        (
            {"points_xy": points(3), "boxes_xyxy": boxes(2)},
            "input_boxes",
            "expected one box per point prompt (3), got 2 boxes",
        ),
        (
            {"point_labels": np.ones((1, 1))},
            "input_labels",
            "expected input_points to go with the labels, got none",
        ),
        (
            {"point_labels": np.ones((1, 1)), "boxes_xyxy": boxes(1)},
            "input_labels",
            "expected input_points to go with the labels, got none",
        ),
        (
            {"points_xy": points(2), "point_labels": np.ones((1, 2))},
            "input_labels",
            "expected (2, 1), one per point, got (1, 2)",
        ),
        (
            {"points_xy": points(2), "point_labels": np.array([[1], [7]])},
            "input_labels",
            "expected labels 1, 0, -1 or -10, got 7",
        ),
    ],
)
def test_prompts_that_do_not_fit_are_refused_by_column(
    arrays: dict[str, np.ndarray], column: str, message: str
) -> None:
    with pytest.raises(PromptError) as caught:
        Prompts(**arrays)
    assert caught.value.column == column
    assert message in caught.value.message
    assert str(caught.value) == f"{column}: {caught.value.message}"


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Prompts().boxes_xyxy = boxes(1)  # type: ignore[misc]


def test_detections_are_counted_by_score() -> None:
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), (4, 4))
    assert len(nothing) == 0
    assert len(Detections(boxes(3), np.ones(3, np.float32), np.zeros(3, np.int64), (9, 9))) == 3
