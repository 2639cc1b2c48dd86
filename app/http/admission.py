"""How many requests are let in at once, and when those that are not should come again."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.errors import TooManyRequests

# Completions that the pace is read from, and the longest wait that is ever asked for.
_REMEMBERED = 16
_LONGEST_WAIT_S = 60


class Admission:
    """Lets in so many requests at a time, of all clients and of each. For one event loop."""

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        most_per_client: Callable[[], int] | None = None,
    ) -> None:
        """most_per_client: asked for each request, as there may be more clients by then; None: all places."""
        self.most = most
        self._most_per_client = most_per_client or (lambda: most)
        self.inside = 0
        self.ended = 0  # requests that were let in, in all, and are no longer inside
        self._of_client: Counter[str] = Counter()
        self._clock = clock
        # When the last ones were answered; time without any request does not count, as it says nothing of the pace.
        self._left: deque[float] = deque(maxlen=_REMEMBERED)
        self._idle, self._idle_since = 0.0, 0.0

    @contextmanager
    def admit(self, client: str = "") -> Iterator[None]:
        """For the time of one request. Raises TooManyRequests where the house is full, or has its share of a client."""
        self.check(client)
        if self.inside == 0:
            self._idle += self._clock() - self._idle_since
        self.inside += 1
        self._of_client[client] += 1
        try:
            yield
        finally:
            self.inside -= 1
            self.ended += 1
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]
            self._idle_since = self._clock()
            self._left.append(self._idle_since - self._idle)

    def has_two_places(self, client: str = "") -> bool:
        """Whether a request that nobody waits for would leave a place for one that somebody does."""
        return self.inside + 2 <= self.most and self._of_client[client] + 2 <= self._most_per_client()

    def check(self, client: str = "") -> None:
        """Raises TooManyRequests where `admit` would: who will be refused need not send its body first."""
        for taken, most, whose in (
            (self.inside, self.most, ""),
            (self._of_client[client], self._most_per_client(), " with this key"),
        ):
            if taken >= most:
                seconds = self._retry_after_s()
                raise TooManyRequests(
                    f"{most} requests{whose} are in work or waiting; try again in {seconds} s", retry_after_s=seconds
                )

    def _retry_after_s(self) -> int:
        """Whole seconds until the next place should be free: the mean time between the last answers."""
        if len(self._left) < 2:
            return 1
        pace = (self._left[-1] - self._left[0]) / (len(self._left) - 1)
        return min(max(1, math.ceil(pace)), _LONGEST_WAIT_S)
