"""What requests in the making may take: memory for their bodies, all together, and time for one to arrive.

A body is read before its request takes a place (`app.http.admission`), so that clients that send slowly keep none from
others. What they can hold instead is bounded here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from app.errors import RequestTimeout, TooManyRequests


class Intake:
    """The bodies that are being read or worked on, in bytes. For one event loop."""

    def __init__(self, most_bytes: int, seconds: float) -> None:
        """most_bytes: of all bodies; a single one may always be larger. seconds: for one to arrive."""
        self.most_bytes = most_bytes
        self.seconds = seconds
        self.held_bytes = 0

    @contextmanager
    def body(self) -> Iterator[Body]:
        """For the time of one request, as its images stay in memory until it is answered."""
        held = Body(self)
        try:
            yield held
        finally:
            self.held_bytes -= held.size

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """While a body arrives. Raises RequestTimeout as soon as it has taken too long."""
        deadline = None
        try:
            async with asyncio.timeout(self.seconds) as deadline:
                yield
        except TimeoutError as error:
            if deadline is None or not deadline.expired():
                raise  # another's
            raise RequestTimeout(f"expected the body within {self.seconds:g} s, it did not come") from error


class Body:
    """What one body takes of an Intake."""

    def __init__(self, intake: Intake) -> None:
        self.size = 0
        self._intake = intake

    def grow(self, size: int) -> None:
        """Say that it has so many bytes by now. Raises TooManyRequests where others leave no memory for them."""
        self._intake.held_bytes += size - self.size
        self.size = size
        if self._intake.held_bytes > self._intake.most_bytes and self._intake.held_bytes > size:
            raise TooManyRequests("the requests in work leave no memory for this one's body", retry_after_s=1)
