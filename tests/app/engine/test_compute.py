"""The compute threads, with work whose results anyone can say: most of it makes tens of ones."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import torch

from app.engine.compute import Between, Compute, Observer, Work
from app.errors import Unavailable

# Far more than anything here takes; who waits so long waits for ever.
PATIENCE_S = 20.0
A_THREAD_DIES = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 2 * PATIENCE_S))

    return run


@pytest.fixture
def compute() -> Iterator[Compute]:
    """One thread for all."""
    made = Compute("one")
    yield made
    made.close()


@pytest.fixture
def two_threads() -> Iterator[Compute]:
    """One thread for patient work, one for urgent work."""
    made = Compute("two", urgent_thread=True)
    yield made
    made.close()


class Tens:
    """Work that makes tens of ones; remembers its batches, and stops before each of its steps until it is let on."""

    def __init__(self, steps: int = 0, **kind: Any) -> None:
        self.work: Work[int, int] = Work(self.run, **kind)
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.steps_done = 0
        self._steps = steps
        self._stopped = threading.Semaphore(0)
        self._let_on = threading.Semaphore(0)

    def run(self, items: Sequence[int], between: Between) -> list[int]:
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        for _ in range(self._steps):
            self._stopped.release()
            assert self._let_on.acquire(timeout=PATIENCE_S)
            between()
            self.steps_done += 1
        return [10 * item for item in items]

    async def stopped(self) -> None:
        """Wait until it stands before its next step."""
        assert await asyncio.to_thread(self._stopped.acquire, timeout=PATIENCE_S)

    def let_on(self, steps: int = 1) -> None:
        self._let_on.release(steps)


async def waiting(*calls: Awaitable[int]) -> list[asyncio.Task[int]]:
    """The calls as tasks, each of which has come as far as it comes by itself: its job is in the queue."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    return tasks


async def held(compute: Compute) -> tuple[Tens, asyncio.Task[int]]:
    """Keep the patient thread busy, with one step that it stands before."""
    holder = Tens(steps=1)
    [task] = await waiting(compute.do(holder.work, 1))
    await holder.stopped()
    return holder, task


async def outcomes(tasks: Sequence[Awaitable[int]]) -> list[Any]:
    """Results; of what failed the kind of error."""
    return [
        type(outcome) if isinstance(outcome, BaseException) else outcome
        for outcome in await asyncio.gather(*tasks, return_exceptions=True)
    ]


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


# Memory


def cuda_oom() -> None:
    raise torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory.")


def driver_oom() -> None:
    raise torch.AcceleratorError("CUDA error: out of memory")


def python_oom() -> None:
    raise MemoryError


def cpu_oom() -> None:
    torch.empty(2**60, dtype=torch.uint8)


class Memory:
    """Work on items that are as large as their number, halves those that are larger than `room` all together."""

    def __init__(self, room: int, fail: Callable[[], None] = python_oom, **kind: Any) -> None:
        self.room = room
        self.tried: list[list[int]] = []
        self._fail = fail
        parts: dict[str, Any] = {
            "split": lambda item: [item // 2, item - item // 2] if item > 1 else [],
            "join": sum,
        }
        self.work: Work[int, int] = Work(self.run, at_once=10, **(parts | kind))

    def run(self, items: Sequence[int], between: Between) -> list[int]:
        between()
        self.tried.append(list(items))
        if sum(items) > self.room:
            self._fail()
        return [10 * item for item in items]


@pytest.mark.parametrize("urgent", [False, True])
@pytest.mark.parametrize("fail", [cuda_oom, driver_oom, python_oom, cpu_oom])
@in_loop
async def test_out_of_memory_halves_the_batch_and_then_the_item(
    compute: Compute, fail: Callable[[], None], urgent: bool
) -> None:
    memory = Memory(3, fail, urgent=urgent)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(memory.work, item) for item in (1, 2, 5, 1)))
    holder.let_on()
    assert await asyncio.gather(task, *tasks) == [10, 10, 20, 50, 10]
    assert memory.tried == [[1, 2, 5, 1], [1, 2], [5, 1], [5], [2], [3], [1]]
    assert await compute.do(memory.work, 13) == 130


@pytest.mark.parametrize("fail", [cuda_oom, driver_oom, python_oom, cpu_oom])
@pytest.mark.parametrize("kind", [{}, {"join": None}, {"split": lambda item: []}])
@in_loop
async def test_without_memory_for_the_parts_the_item_is_unavailable(
    compute: Compute, fail: Callable[[], None], kind: dict[str, Any]
) -> None:
    memory = Memory(0, fail, **kind)
    holder, task = await held(compute)
    tasks = await waiting(*(compute.do(memory.work, item) for item in (2, 3)))
    holder.let_on()
    await task
    for one in tasks:
        with pytest.raises(Unavailable, match="memory does not suffice"):
            await one
    if kind:  # there is nothing to try
        assert memory.tried == [[2, 3], [2], [3]]
    memory.room = 10
    assert await compute.do(memory.work, 7) == 70


@in_loop
async def test_another_runtime_error_is_not_taken_for_a_lack_of_memory(compute: Compute) -> None:
    def fail() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    memory = Memory(3, fail)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        await compute.do(memory.work, 4)
    assert memory.tried == [[4]]


@in_loop
async def test_what_a_failed_attempt_held_is_free_before_the_next(compute: Compute) -> None:
    class Large:
        pass

    larges: list[weakref.ref[Large]] = []
    left: list[int] = []

    def run(items: Sequence[int], between: Between) -> list[int]:
        left.append(sum(ref() is not None for ref in larges))
        large = Large()
        larges.append(weakref.ref(large))
        if items[0] > 1:
            try:
                raise KeyError
            except KeyError:
                raise MemoryError from None
        return [10]

    work: Work[int, int] = Work(run, split=lambda item: [1] * item, join=sum)
    assert await compute.do(work, 2) == 20
    assert left == [0, 0, 0]


@pytest.mark.parametrize(("fault", "expected"), [(ZeroDivisionError, ZeroDivisionError), (MemoryError, Unavailable)])
@pytest.mark.parametrize("where", ["split", "join"])
@in_loop
async def test_faults_in_making_and_joining_parts_are_the_items(
    compute: Compute, where: str, fault: type[Exception], expected: type[Exception]
) -> None:
    def fail(argument: object) -> Any:
        raise fault

    memory = Memory(3, **{where: fail})
    assert await outcomes([compute.do(memory.work, 4)]) == [expected]
    assert await compute.do(memory.work, 3) == 30


@in_loop
async def test_a_bad_part_fails_its_item(compute: Compute) -> None:
    def run(items: Sequence[int], between: Between) -> list[int]:
        if sum(items) > 3:
            raise MemoryError
        return [60 // item for item in items]

    work: Work[int, int] = Work(run, split=lambda item: [1, 0, 1], join=sum)
    assert await outcomes([compute.do(work, 4), compute.do(work, 3)]) == [ZeroDivisionError, 20]


@in_loop
async def test_an_item_that_is_abandoned_among_its_parts_ends_at_the_next_step(compute: Compute) -> None:
    tens = Tens(steps=1)
    steps = 0

    def run(items: Sequence[int], between: Between) -> list[int]:
        nonlocal steps
        if items[0] > 1:
            raise MemoryError
        result = tens.run(items, between)
        steps += 1
        return result

    work: Work[int, int] = Work(run, split=lambda item: [1] * item, join=sum)
    [task] = await waiting(compute.do(work, 3))
    await tens.stopped()
    task.cancel()
    assert await outcomes([task]) == [asyncio.CancelledError]
    tens.let_on()
    assert await compute.do(Tens().work, 3) == 30
    assert steps == 0 and tens.batches == [[1]]


# The end of a thread


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
