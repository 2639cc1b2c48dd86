"""Photos that are encoded before anybody clicks on them: in the background, within the limits of all requests."""

from __future__ import annotations

import asyncio
import logging

from app.errors import ServiceError
from app.http.admission import Admission
from app.scoring.waiting import within
from app.serving.answering import Answering

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

    def begin(self, answering: Answering, client: str, reference: str, *, exif_orientation: bool) -> None:
        """Begin with an image that this client has sent."""
        task = asyncio.create_task(self._embed(answering, client, reference, exif_orientation))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def aclose(self) -> None:
        """Drop what is not done."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _embed(self, answering: Answering, client: str, reference: str, exif_orientation: bool) -> None:
        if not self._admission.has_two_places(client):
            log.info("a photo was not encoded ahead: there was no room")
            return
        try:
            with self._admission.admit(client):
                async with within(self._seconds):
                    await answering.embed_ahead(client, reference, exif_orientation=exif_orientation)
        except ServiceError as error:  # what its message quotes stays out of the log
            log.info("a photo was not encoded ahead: %s", type(error).__name__)
        except Exception as error:  # nobody waits for it, and the click that comes is told
            log.error("a photo was not encoded ahead", exc_info=error)
