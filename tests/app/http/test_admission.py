"""Who is let in, and when the others should come again, by a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from app.errors import TooManyRequests
from app.http.admission import Admission


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@contextmanager
def full(admission: Admission) -> Iterator[None]:
    """Every place that is left, taken."""
    with ExitStack() as inside:
        for _ in range(admission.most - admission.inside):
            inside.enter_context(admission.admit())
        yield


def refusal(admission: Admission) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as refused, admission.admit():
        pass
    return refused.value


def retry_after_s(admission: Admission) -> int:
    return int(refusal(admission).headers["retry-after"])


def answer(admission: Admission, clock: Clock, seconds: list[float]) -> None:
    """As many requests one after the other, each of which takes so long."""
    for duration in seconds:
        with admission.admit():
            clock.now += duration


def test_as_many_are_let_in_as_may_be(clock: Clock) -> None:
    admission = Admission(3, clock)
    with full(admission):
        assert admission.inside == 3
        with pytest.raises(TooManyRequests):
            admission.check()
        error = refusal(admission)
        assert (error.status, error.message) == (429, "3 requests are in work or waiting; try again in 1 s")
        assert admission.inside == 3  # the refused one took no place, and gives none back
    assert admission.inside == 0
    admission.check()  # takes no place
    with full(admission):
        assert admission.inside == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_request_that_fails_leaves_its_place(clock: Clock, error: type[BaseException]) -> None:
    admission = Admission(1, clock)
    for _ in range(3):
        with pytest.raises(error), admission.admit():
            raise error
        assert admission.inside == 0


def test_nothing_is_known_of_the_pace_at_first(clock: Clock) -> None:
    admission = Admission(2, clock)
    with full(admission):
        clock.now += 100
        assert retry_after_s(admission) == 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([4.0], 4),
        ([2.0, 4.0, 6.0], 4),
        ([2.5, 2.5], 3),  # whole seconds, and never too early
        ([0.1] * 10, 1),
        ([0.0], 1),
        ([500.0, 500.0], 60),
        ([60.0, 60.0], 60),
    ],
)
def test_the_next_place_is_free_after_the_mean_time_between_answers(
    clock: Clock, seconds: list[float], expected: int
) -> None:
    admission = Admission(2, clock)
    with admission.admit():
        answer(admission, clock, [0.0, *seconds])
        with full(admission):
            assert retry_after_s(admission) == expected


def test_the_pace_is_that_of_the_last_answers(clock: Clock) -> None:
    admission = Admission(2, clock)
    with admission.admit():
        answer(admission, clock, [50.0] * 40 + [3.0] * 16)
        with full(admission):
            assert retry_after_s(admission) == 3


def test_the_time_without_requests_says_nothing_of_the_pace(clock: Clock) -> None:
    for most in (1, 2):
        admission = Admission(most, clock)
        for _ in range(3):
            answer(admission, clock, [5.0])
            clock.now += 1000
        with full(admission):
            assert retry_after_s(admission) == 5
