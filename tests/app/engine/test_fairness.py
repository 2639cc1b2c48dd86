"""Turns go round among clients, and nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from app.engine.compute import Compute, Work
from app.engine.fairness import FairSemaphore, Turns, client


def names(jobs: list[str]) -> list[str]:
    """Served one by one, in turn: jobs are a client's letter and a number."""
    turns, waiting, served = Turns(), list(jobs), []
    while waiting:
        following = turns.order(waiting, lambda job: job[0])[0]
        waiting.remove(following)
        turns.took(following[0])
        served.append(following)
    return served


def test_one_client_is_served_in_order() -> None:
    assert names(["a1", "a2", "a3"]) == ["a1", "a2", "a3"]


def test_many_jobs_of_one_leave_others_their_turn() -> None:
    assert names(["a1", "a2", "a3", "a4", "b1", "c1", "b2"]) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


def test_who_was_served_last_comes_last() -> None:
    turns = Turns()
    turns.took("a")
    assert turns.order(["a1", "b1"], lambda job: job[0]) == ["b1", "a1"]
    turns.took("b")
    assert turns.order(["b2", "a1"], lambda job: job[0]) == ["a1", "b2"]


def test_clients_who_came_once_are_not_kept_for_ever() -> None:
    turns = Turns()
    for number in range(5000):
        turns.took(str(number))
    assert len(turns._last) <= 1000


async def taken(semaphore: FairSemaphore, name: str, order: list[str], go_on: asyncio.Event) -> None:
    client.set(name)
    async with semaphore.place():
        order.append(name)
        await go_on.wait()


async def order_of(arrivals: list[str], cancelled: int | None = None) -> list[str]:
    semaphore, order, go_on = FairSemaphore(1), list[str](), asyncio.Event()
    tasks = []
    for name in arrivals:
        tasks.append(asyncio.create_task(taken(semaphore, name, order, go_on)))
        await asyncio.sleep(0)
    if cancelled is not None:
        tasks[cancelled].cancel()
    go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5), semaphore.place():  # the place is free again
        return order


@pytest.mark.parametrize(
    ("cancelled", "expected"),
    [(None, ["a", "b", "a", "a"]), (0, ["a", "b", "a", "a"]), (1, ["a", "b", "a"]), (3, ["a", "a", "a"])],
)
def test_places_go_round_and_none_is_lost(cancelled: int | None, expected: list[str]) -> None:
    assert asyncio.run(order_of(["a", "a", "a", "b"], cancelled)) == expected


def test_a_place_given_to_one_who_has_just_gone_is_handed_on() -> None:
    async def story() -> None:
        semaphore, order, go_on = FairSemaphore(1), list[str](), asyncio.Event()
        async with semaphore.place():
            waiting = [asyncio.create_task(taken(semaphore, name, order, go_on)) for name in "ab"]
            await asyncio.sleep(0)
        waiting[0].cancel()  # it has the place, and has not run since
        go_on.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*waiting, return_exceptions=True)
        assert order == ["b"]

    asyncio.run(story())


def test_a_request_that_is_dropped_with_all_its_waiters_leaves_all_places() -> None:
    """Holders and waiters are cancelled in one turn of the loop; the holders run first."""

    async def story() -> None:
        semaphore, order, never = FairSemaphore(2), list[str](), asyncio.Event()
        tasks = [asyncio.create_task(taken(semaphore, "a", order, never)) for _ in range(16)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        never.set()
        async with asyncio.timeout(5), semaphore.place(), semaphore.place():
            pass

    asyncio.run(story())


def test_a_device_serves_clients_in_turn() -> None:
    served: list[str] = []

    async def story() -> None:
        started, go_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def run(items: list[str], between: object) -> list[None]:
            served.extend(items)
            if items == ["first"]:
                loop.call_soon_threadsafe(started.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(30)
            return [None] * len(items)

        work, compute = Work(run), Compute("test")

        async def ask(name: str, item: str) -> None:
            client.set(name)
            await compute.do(work, item)

        try:
            tasks = [asyncio.create_task(ask("a", "first"))]
            await started.wait()
            for name, item in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2")):
                tasks.append(asyncio.create_task(ask(name, item)))
                await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(*tasks)
        finally:
            await asyncio.to_thread(compute.close)

    asyncio.run(story())
    assert served == ["first", "b1", "a1", "b2", "a2", "a3"]
