"""What was the best, and when nothing gets better."""

from __future__ import annotations

import pytest

from models.finetuning.history import POINTS, History


def history(metric: str, *figures: float | None) -> History:
    made = History(metric)
    for index, figure in enumerate(figures, start=1):
        made.add_epoch({"epoch": index, "step": 10 * index, metric: figure})
    return made


@pytest.mark.parametrize(
    ("metric", "figures", "best"),
    [
        ("recall", (0.1, 0.5, 0.3), 2),
        ("recall", (0.5, 0.5, 0.1), 2),  # the later of equals
        ("loss", (0.9, 0.2, 0.4), 2),
        ("recall", (None, 0.0, None), 2),
    ],
)
def test_best(metric: str, figures: tuple[float | None, ...], best: int) -> None:
    found = history(metric, *figures).best
    assert found is not None and found["epoch"] == best


def test_adding_tells_whether_it_is_the_best() -> None:
    made = History("recall")
    assert made.add_epoch({"epoch": 1, "step": 1, "recall": 0.4})
    assert not made.add_epoch({"epoch": 2, "step": 2, "recall": 0.3})


def test_a_repeated_validation_replaces_its_former_self() -> None:
    made = history("recall", 0.1, 0.9)
    made.add_epoch({"epoch": 2, "step": 20, "recall": 0.2})
    assert [one["recall"] for one in made.epochs] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("metric", "figures", "patience", "stalled"),
    [
        ("recall", (0.5, 0.4, 0.4), 2, True),
        ("recall", (0.5, 0.4, 0.6), 2, False),
        ("recall", (0.5, 0.5, 0.5), 2, True),
        ("recall", (0.1, 0.2), 2, False),
        ("loss", (0.5, 0.6, 0.7), 2, True),
        ("loss", (0.5, 0.6, 0.4), 2, False),
    ],
)
def test_stalled(metric: str, figures: tuple[float, ...], patience: int, stalled: bool) -> None:
    assert history(metric, *figures).stalled(patience) is stalled


def test_losses_are_averaged_to_a_bounded_number_of_points() -> None:
    made = History("loss")
    steps = 3 * POINTS
    for step in range(1, steps + 1):
        made.add_loss(step, float(step % 3), steps)
    assert made.losses == [(step, 1.0) for step in range(3, steps + 1, 3)]
    assert made.loss_since(steps - 6) == 1.0 == made.recent_loss()


def test_the_start_may_be_the_best_but_stops_nothing() -> None:
    history = History("recall")
    for step, recall in enumerate((0.9, 0.1, 0.2)):
        history.add_epoch({"step": step, "recall": recall})
        assert not history.stalled(1)
    assert history.best is not None and history.best["step"] == 0
    history.add_epoch({"step": 3, "recall": 0.1})
    assert history.stalled(1)
