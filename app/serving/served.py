"""Models that answer, with all that answers by them; and which of them do so now.

Whoever works with them says so, so that those that were replaced end only when the last who began with them is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio.to_thread

from app.engine import loading
from app.engine.freed_memory import trim
from app.engine.loading import Choice
from app.images.reading import ImageLimits
from app.images.store import ImageStore
from app.scoring.cost import AnswerLimits
from app.scoring.scorer import Scorer
from app.settings import Settings

if TYPE_CHECKING:
    from app.engine.engine import Engine

log = logging.getLogger("box2mask")

Load = Callable[[Settings, Choice], "Engine"]


class Served:
    """Models that are loaded and have been tried.

    choice: which ones. scorer: answers by them, and by no others: embeddings are its own.
    """

    def __init__(self, choice: Choice, scorer: Scorer) -> None:
        self.choice = choice
        self.scorer = scorer
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @classmethod
    async def load(cls, settings: Settings, choice: Choice, store: ImageStore, load: Load = loading.load) -> Served:
        """Load the models beside the event loop, and try them. store: the images that clients have sent.

        Raises one of `loading.EXPLAINED` where files make no model, or what the models raise.
        """
        engine = await anyio.to_thread.run_sync(load, settings, choice)
        try:
            await engine.warm_up()
        except BaseException:
            await engine.aclose()
            raise
        limits, answer_limits = ImageLimits.of(settings), AnswerLimits.of(settings)
        schema, texts = settings.response_schema, settings.default_texts
        return cls(choice, Scorer(engine, limits, settings.max_prompts, schema, answer_limits, store, texts))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the models from being ended."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def end(self, *, when_unused: bool) -> None:
        """End the models' threads. when_unused: wait for whoever works with them."""
        if when_unused:
            await self._unused.wait()
        await self.scorer.engine.aclose()


class Serving:
    """Which models answer now. For one event loop."""

    def __init__(self, choice: Choice, on_begin: Callable[[Served], object] = lambda served: None) -> None:
        """choice: the first, while they are still loaded. on_begin: called when models begin to answer."""
        self._choice = choice
        self._on_begin = on_begin
        self._now: Served | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def choice(self) -> Choice:
        """Which models answer, or will when they are loaded."""
        return self._choice

    @property
    def ready(self) -> bool:
        """Whether there are models that answer."""
        return self._now is not None

    @property
    def scorer(self) -> Scorer:
        """What answers now, for what takes no time; see `use`. Raises RuntimeError where nothing does yet."""
        return self._served().scorer

    @contextmanager
    def use(self) -> Iterator[Served]:
        """What answers now, which goes on answering until this ends. Raises RuntimeError as above."""
        served = self._served()
        with served.in_use():
            yield served

    def begin(self, served: Served) -> None:
        """From now on these answer. Those before end when the last who began with them is done."""
        before, self._now, self._choice = self._now, served, served.choice
        self._on_begin(served)
        if before is not None:
            task = asyncio.create_task(self._end(before))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """End all models, the replaced ones too; whoever still works with them gets Unavailable."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        now, self._now = self._now, None
        if now is not None:
            await now.end(when_unused=False)

    def _served(self) -> Served:
        if self._now is None:
            raise RuntimeError("the models are not loaded")
        return self._now

    async def _end(self, before: Served) -> None:
        try:
            await before.end(when_unused=True)
        except asyncio.CancelledError:
            await before.end(when_unused=False)
            raise
        trim()
        log.info("the models before have ended")
