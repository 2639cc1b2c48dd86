"""Faults in a served process, over real sockets: what is promised of each holds. See benchmarks/reliability."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.reliability.outcomes import Outcome
from benchmarks.reliability.scenarios import CALLERS, FATAL, SHARED, run_fatal, shared_service
from benchmarks.reliability.served import Served

# Recovery or end; it takes a second or two on a machine that has nothing else to do.
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all faults that it survives, as in life."""
    started = shared_service(tmp_path_factory.mktemp("faults"))
    try:
        yield started.ready()
    finally:
        started.close()


def check(name: str, outcome: Outcome) -> None:
    assert not outcome.hung
    if name in CALLERS:
        assert outcome.callers == CALLERS[name]
    assert outcome.seconds < PATIENCE_S


@pytest.mark.parametrize("fault", SHARED, ids=lambda fault: fault.__name__)
def test_the_service_survives(served: Served, fault: Callable[[Served], Outcome]) -> None:
    check(fault.__name__, fault(served))
    assert served.ended(0) is None


@pytest.mark.parametrize("fault", FATAL, ids=lambda fault: fault.__name__)
def test_the_process_ends_as_it_should(fault: Callable[[Callable[..., Served]], Outcome]) -> None:
    check(fault.__name__, run_fatal(fault))


def test_a_service_that_has_survived_everything_stops_with_status_0(served: Served) -> None:
    served.close()
    assert served.ended(0) == 0


def test_the_faults_are_no_part_of_the_service() -> None:
    assert not any("faulty_service" in path.read_text() for path in (Path(__file__).parents[2] / "app").rglob("*.py"))
