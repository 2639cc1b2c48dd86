"""What the compute threads do without memory: smaller batches, then parts of an item, then no for an answer."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from app.engine.compute import Between, Compute, Work
from app.errors import Unavailable
from tests.app.engine.tens import Tens, held, in_loop, outcomes, waiting


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
