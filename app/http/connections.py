"""A client's connection, as uvicorn has it, with an end to what clients may hold open.

uvicorn waits for ever for a request's head, for who takes its answer slowly or not at all, and holds any number of
connections. Knows nothing of requests; how long a body may take is `app.http.intake`'s.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import json
import logging
import resource
import sys
import termios
import time
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger("box2mask")

# File descriptors that are not for connections: models, embeddings on disk, images that are fetched.
_OTHER_FILES = 256


@dataclass(eq=False)
class House:
    """What the connections of one server may take together.

    most: connections. most_unread: bytes of answers that this process holds as clients have not taken them. seconds: in
    which a request's head must have come, or some of an answer been taken.
    """

    most: int
    most_unread: int
    seconds: float
    unread: dict[Connection, None] = field(default_factory=dict)  # with an answer held here, oldest first
    full: bool = False


class Connection(H11Protocol):
    """uvicorn's connection; is closed where its client keeps it waiting, or where others need its place.

    uvicorn makes them, so a server has a subclass of its own, which knows its house.
    """

    house: House

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._timer: asyncio.TimerHandle | None = None  # runs while there is no request, or an answer is not taken
        self._idle_since = 0.0
        self._was_untaken = 0

    @property
    def idle(self) -> bool:
        """Whether no request is being answered: none has come, or its head is not whole, or its answer is made."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def untaken(self) -> int:
        """Bytes of answers that the client's machine has not received: those held here, and the kernel's.

        The kernel takes megabytes at once and passes them on for as long as its client needs, so that what is held here
        says neither whether an answer has been taken nor whether the client goes on.
        """
        return self.transport.get_write_buffer_size() + _in_kernel(self.transport)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = time.monotonic()
        if len(self.connections) > self.house.most:
            self._make_room()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self._idle_since = time.monotonic()
        super().on_response_complete()
        self._was_untaken = self.untaken
        if self.transport.get_write_buffer_size():
            self.house.unread[self] = None
            self._let_none_pile_up()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watching()
        self.house.unread.pop(self, None)
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the clock run, from the first moment in which something is the client's turn."""
        if not self.idle:
            self._stop_watching()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.house.seconds, self._time_is_up)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._timer = None
        untaken = self.untaken
        if untaken < self._was_untaken:
            self._was_untaken = untaken
            self._watch()
        else:
            self.transport.abort()

    def _make_room(self) -> None:
        """Close the connection that has been idle for longest, or this one where all others are being answered.

        One whose answer is still on its way goes only where there is no other.
        """
        if not self.house.full:
            self.house.full = True  # once, or the log would fill instead
            log.warning("%d connections are open, as many as may be: idle ones are closed", self.house.most)
        others = (one for one in self.connections if one is not self and isinstance(one, Connection) and one.idle)
        oldest = min(others, key=lambda one: (one.untaken > 0, one._idle_since), default=None)
        if oldest is not None:
            oldest.transport.abort()
            self.connections.discard(oldest)
            return
        content = json.dumps({"message": f"{self.house.most} connections are open; try again"}).encode()
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def _let_none_pile_up(self) -> None:
        """Of answers that are not taken, drop the oldest ones beyond what may be held; never the newest."""
        sizes = {one: one.transport.get_write_buffer_size() for one in self.house.unread}
        total = sum(sizes.values())
        for one, size in sizes.items():
            if not size:
                self.house.unread.pop(one)
            elif total > self.house.most_unread and one is not self:
                log.warning("an answer of %d bytes was dropped: its client does not take it", size)
                one.transport.abort()
                self.house.unread.pop(one)
                total -= size


def _in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that were written and not acknowledged; 0 where only Linux could tell."""
    connection = transport.get_extra_info("socket")
    if sys.platform != "linux" or connection is None or connection.fileno() < 0:
        return 0
    size = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, size)  # as SIOCOUTQ is called in Python
    return size[0]


def most_connections(wanted: int) -> int:
    """How many of the connections that are wanted there are file descriptors for; asks for as many as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            wanted = max(8, soft - _OTHER_FILES)
            log.warning("the limit of %d open files leaves room for %d connections", soft, wanted)
    return wanted
