"""The compute threads: batches, urgent work, cancellation, failures, and what an observer is told."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from app.engine.compute import Between, Compute, Work
from app.engine.observer import Observer
from tests.app.engine.tens import PATIENCE_S, Tens, held, in_loop, outcomes, waiting

# Batches


@in_loop
async def test_results_reach_their_callers_in_order(compute: Compute) -> None:
    tens = Tens(at_once=7)
    results = await asyncio.gather(*(compute.do(tens.work, item) for item in range(100)))
    assert results == [10 * item for item in range(100)]
    assert sorted(sum(tens.batches, [])) == list(range(100))
    assert max(map(len, tens.batches)) == 7  # the first of them were computed while the others came


@pytest.mark.parametrize("urgent", [False, True])
@in_loop
async def test_only_jobs_of_one_kind_that_wait_together_share_a_batch(compute: Compute, urgent: bool) -> None:
    ones, others = Tens(at_once=2, urgent=urgent), Tens(at_once=3, urgent=urgent)
    holder, task = await held(compute)
    calls = [compute.do(kind.work, item) for item in range(5) for kind in (ones, others)]
    tasks = await waiting(*calls)
    holder.let_on()
    assert await asyncio.gather(task, *tasks) == [10, *(10 * item for item in range(5) for _ in range(2))]
    assert ones.batches == [[0, 1], [2, 3], [4]]
    assert others.batches == [[0, 1, 2], [3, 4]]


@in_loop
async def test_a_batch_costs_at_most_what_a_single_item_does_not_exceed_alone(compute: Compute) -> None:
    tens = Tens(at_once=5, cost=lambda item: item)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(tens.work, item) for item in (3, 4, 2, 9, 1, 5)))
    holder.let_on()
    await asyncio.gather(task, *tasks)
    assert tens.batches == [[3, 2], [4, 1], [9], [5]]  # none is put off for ever: the oldest is always in the next


# Urgent work


@in_loop
async def test_urgent_work_runs_between_the_steps_of_patient_work(compute: Compute) -> None:
    patient, urgent = Tens(steps=2), Tens(urgent=True)
    [slow] = await waiting(compute.do(patient.work, 1))
    await patient.stopped()
    [quick] = await waiting(compute.do(urgent.work, 2))
    patient.let_on()
    assert await quick == 20
    await patient.stopped()
    assert patient.steps_done == 1 and not slow.done()
    patient.let_on()
    assert await slow == 10
    assert patient.threads == urgent.threads == {"one"}


@in_loop
async def test_a_flood_of_urgent_work_lets_patient_work_go_on(compute: Compute) -> None:
    patient, urgent = Tens(steps=3), Tens(urgent=True)
    slow = await waiting(*(compute.do(patient.work, item) for item in (1, 2)))
    await patient.stopped()
    flood = await waiting(*(compute.do(urgent.work, item) for item in range(10)))
    for batches in range(1, 4):
        patient.let_on()
        if batches < 3:
            await patient.stopped()
            assert urgent.batches == [[item] for item in range(batches)]
    assert await slow[0] == 10
    await patient.stopped()  # the second one's turn, before most of the flood
    assert urgent.batches == [[item] for item in range(4)]
    patient.let_on(3)
    assert await asyncio.gather(slow[1], *flood) == [20, *(10 * item for item in range(10))]


@in_loop
async def test_urgent_work_is_not_interrupted(compute: Compute) -> None:
    first = Tens(steps=1, urgent=True)
    second: Work[int, int] = Work(lambda items, between: [first.steps_done], urgent=True)
    tasks = await waiting(compute.do(first.work, 1))
    await first.stopped()
    tasks += await waiting(compute.do(second, 2))
    first.let_on()
    assert await asyncio.gather(*tasks) == [10, 1]


@in_loop
async def test_urgent_work_on_a_thread_of_its_own_waits_for_no_step(two_threads: Compute) -> None:
    patient, urgent = Tens(steps=1), Tens(urgent=True)
    [slow] = await waiting(two_threads.do(patient.work, 1))
    await patient.stopped()
    assert await two_threads.do(urgent.work, 2) == 20
    assert not slow.done()
    patient.let_on()
    assert await slow == 10
    assert (patient.threads, urgent.threads) == ({"two"}, {"two-urgent"})


@in_loop
async def test_with_two_threads_no_step_runs_what_belongs_to_the_other(two_threads: Compute) -> None:
    patient, urgent = Tens(steps=1), Tens(steps=1, urgent=True)
    tasks = await waiting(two_threads.do(patient.work, 1), two_threads.do(urgent.work, 2))
    await patient.stopped()
    await urgent.stopped()
    tasks += await waiting(two_threads.do(urgent.work, 3))
    patient.let_on()
    assert await tasks[0] == 10
    assert urgent.batches == [[2]]
    urgent.let_on(2)
    assert await asyncio.gather(*tasks) == [10, 20, 30]


@pytest.mark.parametrize("urgent_thread", [False, True])
def test_every_thread_lives_in_its_context(urgent_thread: bool) -> None:
    seen: list[tuple[str, bool, str]] = []

    @contextmanager
    def context(urgent: bool) -> Iterator[None]:
        seen.append(("in", urgent, threading.current_thread().name))
        yield
        seen.append(("out", urgent, threading.current_thread().name))

    Compute("c", urgent_thread=urgent_thread, context=context).close()
    expected = {("in", False, "c"), ("out", False, "c")}
    if urgent_thread:
        expected |= {("in", True, "c-urgent"), ("out", True, "c-urgent")}
    assert set(seen) == expected and len(seen) == len(expected)


# Cancellation


@pytest.mark.parametrize("urgent", [False, True])
@in_loop
async def test_a_cancelled_job_that_waits_never_runs(compute: Compute, urgent: bool) -> None:
    tens = Tens(at_once=2, urgent=urgent)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(tens.work, item) for item in range(4)))
    tasks[0].cancel()
    tasks[2].cancel()
    assert await outcomes([tasks[0], tasks[2]]) == [asyncio.CancelledError] * 2
    holder.let_on()
    assert await asyncio.gather(task, tasks[1], tasks[3]) == [10, 10, 30]
    assert tens.batches == [[1, 3]]


@pytest.mark.parametrize("urgent", [False, True])
@in_loop
async def test_a_batch_that_nobody_waits_for_is_abandoned_at_its_next_step(compute: Compute, urgent: bool) -> None:
    tens = Tens(steps=2, at_once=2, urgent=urgent)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(tens.work, item) for item in (1, 2)))
    holder.let_on()
    await tens.stopped()
    for one in tasks:
        one.cancel()
    assert await outcomes(tasks) == [asyncio.CancelledError] * 2
    tens.let_on()
    assert await compute.do(Tens().work, 3) == 30
    assert await task == 10  # between whose steps it ran if it was urgent
    assert tens.batches == [[1, 2]] and tens.steps_done == 0
    assert compute.load == 0


@in_loop
async def test_a_batch_that_somebody_still_waits_for_goes_on(compute: Compute) -> None:
    tens = Tens(steps=1, at_once=2)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(tens.work, item) for item in (1, 2)))
    holder.let_on()
    await tens.stopped()
    tasks[0].cancel()
    assert await outcomes(tasks[:1]) == [asyncio.CancelledError]
    tens.let_on()
    assert await asyncio.gather(task, tasks[1]) == [10, 20]
    assert tens.batches == [[1, 2]]


@in_loop
async def test_patient_work_goes_on_when_the_urgent_work_between_its_steps_is_abandoned(compute: Compute) -> None:
    patient, urgent = Tens(steps=1), Tens(steps=1, urgent=True)
    [slow] = await waiting(compute.do(patient.work, 1))
    await patient.stopped()
    [quick] = await waiting(compute.do(urgent.work, 2))
    patient.let_on()
    await urgent.stopped()
    quick.cancel()
    assert await outcomes([quick]) == [asyncio.CancelledError]
    urgent.let_on()
    assert await slow == 10
    assert urgent.steps_done == 0


@pytest.mark.parametrize("urgent", [False, True])
@in_loop
async def test_what_is_tried_again_after_a_failure_leaves_out_the_cancelled(compute: Compute, urgent: bool) -> None:
    tried: list[list[int]] = []
    started, cancelled = threading.Event(), threading.Event()

    def run(items: Sequence[int], between: Between) -> list[int]:
        tried.append(list(items))
        if len(items) > 1:
            started.set()
            assert cancelled.wait(PATIENCE_S)
            raise ValueError
        return [10 * item for item in items]

    work: Work[int, int] = Work(run, at_once=4, urgent=urgent)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(work, item) for item in range(3)))
    holder.let_on()
    assert await asyncio.to_thread(started.wait, PATIENCE_S)
    tasks[0].cancel()
    tasks[1].cancel()
    await outcomes(tasks[:2])
    cancelled.set()
    assert await asyncio.gather(task, tasks[2]) == [10, 20]
    assert tried == [[0, 1, 2], [2]]


# Failures


@in_loop
async def test_a_bad_item_fails_alone(compute: Compute) -> None:
    def run(items: Sequence[int], between: Between) -> list[float]:
        return [60 / item for item in items]

    work: Work[int, float] = Work(run, at_once=10)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(work, item) for item in (1, 2, 0, 3, 4)))
    holder.let_on()
    assert await outcomes([task, *tasks]) == [10, 60.0, 30.0, ZeroDivisionError, 20.0, 15.0]
    assert await compute.do(work, 5) == 12.0


@in_loop
async def test_a_bad_urgent_item_does_no_harm_to_the_patient_work_that_it_interrupted(compute: Compute) -> None:
    def run(items: Sequence[int], between: Between) -> list[float]:
        return [60 / item for item in items]

    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(Work(run, urgent=True), item) for item in (0, 2)))
    holder.let_on()
    assert await outcomes([task, *tasks]) == [10, ZeroDivisionError, 30.0]


@pytest.mark.parametrize("results", [[], [1, 2, 3]])
@in_loop
async def test_a_wrong_number_of_results_fails_the_jobs(compute: Compute, results: list[int]) -> None:
    work: Work[int, int] = Work(lambda items, between: results, at_once=2)
    holder, task = await held(compute)
    tasks = await waiting(compute.do(work, 1), compute.do(work, 2))
    holder.let_on()
    await task
    for one in tasks:
        with pytest.raises(RuntimeError, match=f"expected 1 results, got {len(results)}"):
            await one
    assert await compute.do(Tens().work, 3) == 30


@in_loop
async def test_stop_iteration_reaches_the_caller_who_cannot_await_one(compute: Compute) -> None:
    work: Work[int, int] = Work(lambda items, between: [next(iter(()))])
    with pytest.raises(RuntimeError, match="StopIteration"):
        await compute.do(work, 1)


@in_loop
async def test_an_item_whose_cost_cannot_be_told_fails_alone(compute: Compute) -> None:
    tens = Tens(at_once=100, cost=lambda item: 100 // item)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(tens.work, item) for item in (1, 0, 2)))
    holder.let_on()
    assert await outcomes([task, *tasks]) == [10, 10, ZeroDivisionError, 20]


# Load and memory of an idle thread


@in_loop
async def test_load_counts_what_waits_and_what_runs(compute: Compute) -> None:
    assert compute.load == 0
    holder, task = await held(compute)
    assert compute.load == 1
    tens = Tens(urgent=True)
    tasks = await waiting(*(compute.do(tens.work, item) for item in range(3)), compute.do(Tens().work, 4))
    assert compute.load == 5
    tasks[1].cancel()
    await outcomes(tasks[1:2])
    assert compute.load == 4
    holder.let_on()
    await outcomes([task, *tasks])
    assert compute.load == 0


@in_loop
async def test_load_counts_those_who_wait_for_the_second_attempt(compute: Compute) -> None:
    tens = Tens(steps=1)

    def run(items: Sequence[int], between: Between) -> list[int]:
        if len(items) > 1:
            raise ValueError
        return tens.run(items, between)

    work: Work[int, int] = Work(run, at_once=4)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(work, item) for item in range(4)))
    holder.let_on()
    await task
    for number in range(4):
        await tens.stopped()
        assert compute.load == 4 - number
        tens.let_on()
        assert await tasks[number] == 10 * number
    assert compute.load == 0


@in_loop
async def test_an_idle_thread_keeps_no_result(compute: Compute) -> None:
    class Large:
        pass

    work: Work[int, Large] = Work(lambda items, between: [Large()])
    gone = threading.Event()
    result = await compute.do(work, 1)
    weakref.finalize(result, gone.set)
    del result
    assert await asyncio.to_thread(gone.wait, PATIENCE_S)


# All at once


@pytest.mark.parametrize("urgent_thread", [False, True])
@in_loop
async def test_many_callers_of_whom_some_go_and_some_fail(urgent_thread: bool) -> None:
    compute = Compute("busy", urgent_thread=urgent_thread)
    chance = random.Random(0)

    def run(factor: int, items: Sequence[int], between: Between) -> list[int]:
        for _ in items:
            between()
        if sum(items) > 600:
            raise MemoryError
        if any(item % 50 == 49 for item in items):
            raise ValueError
        return [factor * item for item in items]

    def halves(item: int) -> list[int]:
        return [item // 2, item - item // 2]

    kinds: list[tuple[int, Work[int, int]]] = [
        (3, Work(functools.partial(run, 3), at_once=4, split=halves, join=sum)),
        (7, Work(functools.partial(run, 7), at_once=3, cost=lambda item: 1 + item % 3, urgent=True)),
    ]
    expected: list[Any] = []
    tasks: list[asyncio.Task[int]] = []

    async def call(number: int) -> int:
        factor, work = kinds[number % 2]
        for _ in range(chance.randrange(4)):  # not all come at once
            await asyncio.sleep(0)
        result = await compute.do(work, number)
        if number % 3 == 0:  # somebody else goes now
            tasks[chance.randrange(len(tasks))].cancel()
        return result

    for number in range(500):
        factor, _ = kinds[number % 2]
        expected.append(ValueError if number % 50 == 49 else factor * number)
        tasks.append(asyncio.create_task(call(number)))
    for task in chance.sample(tasks, 50):
        task.cancel()
    got = await outcomes(tasks)
    answered = [number for number, outcome in enumerate(got) if outcome is not asyncio.CancelledError]
    assert [got[number] for number in answered] == [expected[number] for number in answered]
    assert 200 < len(answered) < 450
    assert compute.load == 0
    await asyncio.to_thread(compute.close)


# What an observer is told


class Notes(Observer):
    """All that it is told."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, float, float, float, str]] = []
        self.batches: list[tuple[str, int, float]] = []

    def on_job(self, kind: str, queued: float, began: float, ended: float) -> None:
        self.jobs.append((kind, queued, began, ended, WHO.get()))

    def on_batch(self, kind: str, size: int, seconds: float) -> None:
        self.batches.append((kind, size, seconds))


WHO: ContextVar[str] = ContextVar("who", default="nobody")


@in_loop
async def test_an_observer_is_told_of_batches_and_of_each_job_in_its_callers_context(compute: Compute) -> None:
    compute.observer = notes = Notes()
    holder, first = await held(compute)  # of no kind: nobody is told
    tens = Tens(at_once=10, kind="tens", size=lambda item: item)

    async def ask(who: str, item: int) -> int:
        WHO.set(who)
        return await compute.do(tens.work, item)

    tasks = await waiting(ask("one", 1), ask("other", 2))
    holder.let_on()
    assert await asyncio.gather(first, *tasks) == [10, 10, 20]
    [(kind, size, seconds)] = notes.batches
    assert (kind, size) == ("tens", 3) and seconds >= 0
    assert [(kind, who) for kind, *_, who in notes.jobs] == [("tens", "one"), ("tens", "other")]
    for _, queued, began, ended, _ in notes.jobs:
        assert queued <= began <= ended
    assert notes.jobs[0][2] == notes.jobs[1][2]  # the batch that they shared


@in_loop
async def test_an_observer_is_told_of_jobs_that_fail_or_are_given_up_and_of_none_that_never_ran(
    compute: Compute,
) -> None:
    compute.observer = notes = Notes()

    def fail(items: Sequence[int], between: Between) -> list[int]:
        raise ValueError

    assert await outcomes([compute.do(Work(fail, kind="failing"), 1)]) == [ValueError]
    tens = Tens(steps=1, kind="tens")
    [running] = await waiting(compute.do(tens.work, 1))
    await tens.stopped()
    [never] = await waiting(compute.do(tens.work, 2))
    for task in (running, never):
        task.cancel()
    await asyncio.wait([running, never])
    tens.let_on()
    assert [kind for kind, *_ in notes.jobs] == ["failing", "tens"] and not notes.batches
