"""Photos that are encoded before anybody clicks on them: in the background, within the limits of all requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from app.errors import ServiceError
from app.http.admission import Admission
from app.scoring.waiting import within

log = logging.getLogger("box2mask")


class Ahead:
    """Encodes photos that were sent with `embed=true`. For one event loop.

    Each takes the place of a request, and none takes the last one. A click on a photo that is being encoded waits for
    that. What fails here fails again, and is told, when somebody clicks.
    """

    def __init__(self, admission: Admission, seconds: float) -> None:
        """seconds: that one may take, as a request."""
        self._admission = admission
        self._seconds = seconds
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, client: str, embed: Callable[[], Awaitable[None]]) -> None:
        """Begin with an image that this client has sent. embed: encodes it, and keeps what it finds."""
        task = asyncio.create_task(self._embed(client, embed))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def aclose(self) -> None:
        """Drop what is not done."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _embed(self, client: str, embed: Callable[[], Awaitable[None]]) -> None:
        if not self._admission.has_two_places(client):
            log.info("a photo was not encoded ahead: there was no room")
            return
        try:
            with self._admission.admit(client):
                async with within(self._seconds):
                    await embed()
        except ServiceError as error:  # what its message quotes stays out of the log
            log.info("a photo was not encoded ahead: %s", type(error).__name__)
        except Exception as error:  # nobody waits for it, and the click that comes is told
            log.error("a photo was not encoded ahead", exc_info=error)
