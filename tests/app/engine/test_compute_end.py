"""The end of a compute thread, whatever ended it: nobody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from app.engine.compute import Between, Compute, Work
from app.errors import Unavailable
from tests.app.engine.tens import A_THREAD_DIES, PATIENCE_S, Tens, held, in_loop, outcomes, waiting


def deadly(error: type[BaseException], started: threading.Event, may_die: threading.Event) -> Callable[..., list[int]]:
    def run(items: Sequence[int], between: Between) -> list[int]:
        started.set()
        assert may_die.wait(PATIENCE_S)
        raise error

    return run


@A_THREAD_DIES
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("urgent", [False, True])
@in_loop
async def test_nobody_waits_for_a_thread_that_has_died(error: type[BaseException], urgent: bool) -> None:
    compute = Compute("dies")
    started, may_die = threading.Event(), threading.Event()
    work: Work[int, int] = Work(deadly(error, started, may_die), at_once=2, urgent=urgent)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(work, item) for item in range(3)))  # the third is in no batch yet
    holder.let_on()
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    tasks += await waiting(compute.do(Tens().work, 1), compute.do(Tens(urgent=True).work, 2))
    may_die.set()
    assert await outcomes(tasks) == [Unavailable] * 5
    # An urgent one that dies between the steps of a patient one takes it with it.
    assert await outcomes([task]) == [Unavailable if urgent else 10]
    await asyncio.to_thread(compute.close)
    with pytest.raises(Unavailable, match="has ended"):
        await compute.do(Tens().work, 1)
    assert compute.load == 0


@A_THREAD_DIES
@in_loop
async def test_a_death_is_told_after_all_who_waited_and_an_end_is_not() -> None:
    ended, told = Compute("ends", died=lambda: pytest.fail("it was closed")), threading.Event()
    await asyncio.to_thread(ended.close)

    def exits(items: Sequence[int], between: Between) -> list[int]:
        raise SystemExit

    compute = Compute("dies", died=told.set)
    assert await outcomes([compute.do(Work(exits), 1)]) == [Unavailable]
    assert await asyncio.to_thread(told.wait, PATIENCE_S)
    assert compute.ended


@A_THREAD_DIES
@pytest.mark.parametrize("first", [ValueError, MemoryError])
@in_loop
async def test_nobody_waits_for_a_thread_that_dies_in_the_second_attempt(first: type[Exception]) -> None:
    compute = Compute("dies")

    def run(items: Sequence[int], between: Between) -> list[int]:
        if sum(items) > 1:
            raise first
        raise SystemExit

    work: Work[int, int] = Work(run, at_once=4, split=lambda item: [1] * item, join=sum)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(work, item) for item in (1, 1, 2, 1)))
    holder.let_on()
    assert await outcomes([task, *tasks]) == [10, *[Unavailable] * 4]
    # And in that of a single one's parts.
    compute = Compute("dies too")
    assert await outcomes([compute.do(work, 3)]) == [ValueError if first is ValueError else Unavailable]
    await asyncio.to_thread(compute.close)


@A_THREAD_DIES
@in_loop
async def test_nobody_waits_for_a_thread_that_could_not_begin() -> None:
    may_fail = threading.Event()

    @contextmanager
    def context(urgent: bool) -> Iterator[None]:
        assert may_fail.wait(PATIENCE_S)
        raise RuntimeError("no stream")
        yield

    compute = Compute("never", context=context)
    tasks = await waiting(compute.do(Tens().work, 1), compute.do(Tens(urgent=True).work, 2))
    may_fail.set()
    assert await outcomes(tasks) == [Unavailable] * 2
    await asyncio.to_thread(compute.close)
    assert await outcomes([compute.do(Tens().work, 1)]) == [Unavailable]


@A_THREAD_DIES
@pytest.mark.parametrize("urgent_dies", [False, True])
@in_loop
async def test_one_of_two_threads_that_dies_spares_what_the_other_has(urgent_dies: bool) -> None:
    compute = Compute("half", urgent_thread=True)
    lives = Tens(steps=1, urgent=not urgent_dies)

    def die(items: Sequence[int], between: Between) -> list[int]:
        raise SystemExit

    tasks = await waiting(compute.do(lives.work, 1))
    await lives.stopped()
    tasks += await waiting(compute.do(lives.work, 2))
    with pytest.raises(Unavailable):
        await compute.do(Work(die, urgent=urgent_dies), 3)
    lives.let_on(2)
    assert await asyncio.gather(*tasks) == [10, 20]
    await asyncio.to_thread(compute.close)
    for urgent in (False, True):
        assert await outcomes([compute.do(Tens(urgent=urgent).work, 4)]) == [Unavailable]


@A_THREAD_DIES
@pytest.mark.parametrize("urgent_dies", [False, True])
@in_loop
async def test_of_two_threads_the_idle_one_ends_with_the_other(urgent_dies: bool) -> None:
    compute = Compute("twin", urgent_thread=True)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("twin")]

    def die(items: Sequence[int], between: Between) -> list[int]:
        raise SystemExit

    assert await outcomes([compute.do(Work(die, urgent=urgent_dies), 1)]) == [Unavailable]
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE_S)
    assert [thread.is_alive() for thread in threads] == [False, False]


@pytest.mark.parametrize("urgent_thread", [False, True])
@in_loop
async def test_close_finishes_what_is_there(urgent_thread: bool) -> None:
    compute = Compute("closing", urgent_thread=urgent_thread)
    patient, urgent = Tens(steps=1), Tens(urgent=True)
    tasks = await waiting(compute.do(patient.work, 1))
    await patient.stopped()
    tasks += await waiting(
        *(compute.do(patient.work, item) for item in (2, 3)), *(compute.do(urgent.work, item) for item in (4, 5, 6))
    )
    urgent_lane = [thread for thread in threading.enumerate() if thread.name == "closing-urgent"]
    closing = asyncio.create_task(asyncio.to_thread(compute.close))
    for thread in urgent_lane:  # it has nothing more to do and ends while the other one is still at work
        await asyncio.to_thread(thread.join, PATIENCE_S)
    patient.let_on(3)
    assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50, 60]
    await closing
    with pytest.raises(Unavailable, match="has ended"):
        await compute.do(patient.work, 7)
    compute.close()  # once more does nothing
