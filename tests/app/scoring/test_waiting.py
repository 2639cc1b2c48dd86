"""How the calls of a request are awaited together."""

from __future__ import annotations

import asyncio

import pytest

from app.scoring.waiting import each, together


def test_the_others_are_dropped_as_soon_as_one_has_failed() -> None:
    dropped = False

    async def endless() -> None:
        nonlocal dropped
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            dropped = True
            raise

    async def fails() -> None:
        raise KeyError("reason")

    async def conversation() -> None:
        async with asyncio.timeout(30):
            with pytest.raises(KeyError, match="reason"):
                await together([endless(), fails()])
        assert dropped

    asyncio.run(conversation())


def test_results_come_in_the_order_of_the_calls() -> None:
    async def later(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    async def conversation() -> None:
        for wait in (each, together):
            assert await wait(later(turns) for turns in (3, 0, 2)) == [3, 0, 2]
            assert await wait([]) == []

    asyncio.run(conversation())


def test_the_first_failure_in_order_is_told_after_all_were_tried() -> None:
    tried = []

    async def fails(number: int, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        tried.append(number)
        raise KeyError(number)

    async def conversation() -> None:
        with pytest.raises(KeyError, match="0"):
            await each([fails(0, 5), fails(1, 0), fails(2, 9)])
        assert sorted(tried) == [0, 1, 2]

    asyncio.run(conversation())
