"""A replica: the models of one GPU, or of a processor, as an actor of Ray Serve's that answers for the edge."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from ray import serve

from app.cluster.service.standing import Lost, Stages, process_name
from app.engine import fairness
from app.errors import ServiceError, Unavailable
from app.http import logs
from app.http.metrics import Metrics
from app.serving.own import OwnModels, Source
from app.settings import Settings
from app.timings import Timings, recording

log = logging.getLogger("box2mask")

# Seconds in which those who wait for a device that has stopped are told, before the process ends.
_LAST_WORDS_S = 1
DEVICE_FAILED = 4


class Replica:
    """What Ray Serve makes a replica of."""

    async def __init__(self, settings: Settings, source: Source) -> None:  # type: ignore[misc]
        """Return when the models answer. Raises what loading them raises."""
        logs.configure(settings.log_level, settings.log_format)
        self._metrics = Metrics(None)
        self._own = OwnModels(
            settings, self._end, lambda served: self._metrics.watch(served.scorer.engine, served.choice), source
        )
        await self._own.begin()

    async def do(self, what: str, client: str, *args: Any, **kwargs: Any) -> tuple[Any, Stages]:
        """What a method of `Answering` gives, or the ServiceError that it raises; and what the time went into.

        In seconds from the call's beginning.
        """
        fairness.client.set(client)
        timings = Timings(self._metrics)
        with recording(timings):
            try:
                found = await getattr(self._own, what)(*args, **kwargs)
            except ServiceError as error:
                found = error
                if isinstance(error, Unavailable) and not self._own.alive:
                    found = Lost(serve.get_replica_context().replica_id.unique_id)
                elif error.status >= 500:
                    log.error("a request failed", exc_info=error)
        began = timings.began
        stages = {name: [(a - began, b - began) for a, b in times] for name, times in timings.stretches().items()}
        return found, stages

    async def figures(self) -> tuple[str, bytes]:
        """This process's name and its figures, as Prometheus has them."""
        return process_name(), self._metrics.text()[0]

    async def check_health(self) -> None:
        """Asked by Ray Serve. Raises RuntimeError where only a restart helps."""
        if not self._own.alive:
            raise RuntimeError("a device has stopped computing")

    async def __del__(self) -> None:
        """Awaited by Ray Serve when all is answered."""
        await self._own.aclose()

    def _end(self) -> None:
        log.critical("a device has stopped computing: the replica ends, and another takes its place")
        last_resort = threading.Timer(_LAST_WORDS_S, os._exit, [DEVICE_FAILED])
        last_resort.daemon = True
        last_resort.start()
