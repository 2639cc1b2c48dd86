"""The service's scorer for callers that are not asynchronous: on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import torch

from app.engine import loading
from app.images.reading import ImageLimits
from app.scoring.scorer import Scorer
from app.settings import Settings

T = TypeVar("T")


class ScorerThread:
    """Models, loaded and tried, with what answers requests by them; any number of threads may `wait` at once.

    There is one loop for all calls, because the engine's queues and caches live on it.
    """

    def __init__(
        self, settings: Settings, choice: loading.Choice, max_prompts: int, *, for_folders: bool = False
    ) -> None:
        """max_prompts: per row. for_folders: see `loading.load`; torch's threads are as before once this is closed.

        Raises one of `loading.EXPLAINED` where the models do not load.
        """
        self._torch_threads = torch.get_num_threads()
        self.engine = loading.load(settings, choice, for_folders=for_folders)
        limits = ImageLimits.of(settings)
        self.scorer = Scorer(self.engine, limits, max_prompts, settings.response_schema, texts=settings.default_texts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scorer", daemon=True)
        self._thread.start()
        try:
            self.wait(self.engine.warm_up())
        except BaseException:
            self.close()
            raise

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What a call of the scorer gives, or raises. A wait that is broken off, by a signal's handler, drops it."""
        call = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return call.result()
        finally:
            call.cancel()

    def close(self) -> None:
        """Wait for what is running, and end the threads."""
        if self._loop.is_closed():
            return
        self.wait(self.engine.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if torch.get_num_threads() != self._torch_threads:
            torch.set_num_threads(self._torch_threads)
