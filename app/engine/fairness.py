"""Turns that go round among the clients who wait, so that one who asks for much keeps nobody else waiting.

Whoever queues work does not name its client: `client` has it, wherever the request's own tasks run.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

# Whose request is being answered; "" where clients are not told apart.
client: ContextVar[str] = ContextVar("client", default="")


class Turns:
    """Remembers who had the last turns. Not safe for several threads."""

    def __init__(self) -> None:
        self._now = 0
        self._last: dict[str, int] = {}

    def order(self, waiting: Iterable[T], client_of: Callable[[T], str]) -> list[T]:
        """Those who wait, from the next on: a turn for each client, then a second one, each client's in their order."""
        numbered = [(one, client_of(one)) for one in waiting]
        if len({name for _, name in numbered}) < 2:
            return [one for one, _ in numbered]
        turns: Counter[str] = Counter()
        places = []
        for one, name in numbered:
            places.append((turns[name], self._last.get(name, 0), one))
            turns[name] += 1
        return [one for _, _, one in sorted(places, key=lambda place: place[:2])]

    def took(self, name: str) -> None:
        """A client has had a turn."""
        self._now += 1
        self._last.pop(name, None)
        self._last[name] = self._now
        if len(self._last) > 1000:  # the one whose turn is longest ago is next either way
            del self._last[next(iter(self._last))]


class FairSemaphore:
    """A semaphore whose places go round among the clients who wait for one. For one event loop."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._turns = Turns()
        self._waiting: deque[tuple[str, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and keep it for the time of the context."""
        name = client.get()
        if self._free > 0:
            self._free -= 1
            self._turns.took(name)
        else:
            await self._wait(name)
        try:
            yield
        finally:
            self._give()

    async def _wait(self, name: str) -> None:
        mine = (name, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        try:
            await mine[1]
        except asyncio.CancelledError:
            if mine[1].done() and not mine[1].cancelled():  # given, and not taken any more
                self._give()
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise

    def _give(self) -> None:
        """Hand a place on to whoever is next, or keep it."""
        while self._waiting:
            following = self._turns.order(self._waiting, lambda one: one[0])[0]
            self._waiting.remove(following)
            if not following[1].done():
                break  # else it was cancelled in this very turn of the loop, and has not run since
        else:
            self._free += 1
            return
        self._turns.took(following[0])
        following[1].set_result(None)
