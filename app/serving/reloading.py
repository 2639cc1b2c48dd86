"""New models in the place of those that answer, without a request that is lost.

The old ones answer until the new ones are loaded and tried. A request is answered by the models that it began with.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio.to_thread

from app.engine import loading
from app.engine.loading import Choice
from app.errors import BadRequest, Conflict
from app.settings import Settings

if TYPE_CHECKING:
    from app.serving.served import Served, Serving

log = logging.getLogger("box2mask")

Load = Callable[[Settings, Choice], Awaitable["Served"]]
_FIELDS = ("detector", "segmenter")


@dataclass(frozen=True)
class NewModels:
    """What a request for a reload names, as BOX2MASK_DETECTOR and BOX2MASK_SEGMENTER do. None: as it is set now."""

    detector: str | None = None
    segmenter: str | None = None

    @classmethod
    def read(cls, body: bytes) -> NewModels:
        """Of a request's body, which may be empty. Raises BadRequest that names the field."""
        try:
            content = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise BadRequest('the body is not JSON: expected {"detector": ..., "segmenter": ...} or nothing') from error
        if not isinstance(content, dict):
            raise BadRequest(f"expected a JSON object or nothing, got {type(content).__name__}")
        for name, value in content.items():
            if name not in _FIELDS:
                raise BadRequest(f"expected {' or '.join(_FIELDS)}, got {name[:80]!r}")
            if not isinstance(value, str) or not value:
                raise BadRequest(f"expected a folder, a name of weights, auto or none, got {value!r:.80}", column=name)
        return cls(**content)


class Reloader:
    """Loads models anew, one reload at a time. For one event loop."""

    def __init__(self, settings: Settings, serving: Serving, load: Load) -> None:
        """settings: which models, and how they compute. load: loads them, tries them, and prepares them to answer."""
        self._settings = settings
        self._serving = serving
        self._load = load
        self._busy = False

    async def reload(self, new: NewModels) -> None:
        """Find the models that are named, load and try them, and have them answer.

        Raises Conflict while another reload is under way, and BadRequest where there are no such models, or their files
        make none. Whatever it raises, the models that answered go on.
        """
        if self._busy:
            raise Conflict("models are being loaded already: ask again when they are")
        self._busy = True
        began = time.perf_counter()
        try:
            named = {name: value for name in _FIELDS if (value := getattr(new, name)) is not None}
            settings = self._settings.model_copy(update=named)
            try:
                choice = await anyio.to_thread.run_sync(loading.choose, settings, (), named)
                served = await self._load(settings, choice)
            except loading.EXPLAINED as error:
                raise BadRequest(f"the models stay as they are: {error}") from error
            self._serving.begin(served)
            self._settings = settings
        finally:
            self._busy = False
        names = {"detector": choice.detector, "segmenter": choice.segmenter}
        told = ", ".join(f"{kind} {one.name if one else 'none'}" for kind, one in names.items())
        log.info("new models answer after %.1f s: %s", time.perf_counter() - began, told)

    async def on_signal(self) -> None:
        """The models that are set, from their files as these are now; what goes wrong is logged."""
        log.info("SIGHUP: loading the models anew")
        try:
            await self.reload(NewModels())
        except (BadRequest, Conflict) as error:
            log.error("SIGHUP: %s", error.message)
        except Exception:
            log.exception("SIGHUP: the models stay as they are")
