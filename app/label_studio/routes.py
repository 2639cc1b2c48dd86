"""The routes of Label Studio's ML backend: what each reads, and in what form it answers."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from mmap import mmap
from typing import Any, ParamSpec, Protocol, TypeVar

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from app import timings
from app.contract.amount import LITTLE
from app.errors import BadRequest, Unavailable
from app.http import access
from app.label_studio.asked import Asked, read_request

PREFIX = "/label-studio"

P = ParamSpec("P")
T = TypeVar("T")

Body = bytearray | mmap
Let = Callable[[HttpRequest], AbstractAsyncContextManager[Body]]
Work = Coroutine[Any, Any, bytes]


class Predicting(Protocol):
    """What these routes need of whoever has the models."""

    async def healthy(self) -> bool:
        """Whether there are models that compute."""
        ...

    async def aside_if(self, large: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function, beside the event loop where it is much work."""
        ...

    async def label_studio_version(self, config: str | None) -> str:
        """Which version of predictions a project with this labelling interface gets."""
        ...

    async def label_studio_versions(self) -> list[str]:
        """Those that projects were told, newest first."""
        ...

    async def label_studio_predict(self, asked: Asked, client: str) -> bytes:
        """Predictions, or what a smart tool has drawn, as JSON."""
        ...


@dataclass(frozen=True)
class Routes:
    """What Label Studio asks of an ML backend.

    answering: by the models. let_in: a request's body, and its place among those in work; read: its body
    alone. in_time: for how long one may take to arrive. while_connected: awaits work that is dropped when nobody waits
    for it.
    """

    answering: Predicting
    let_in: Let
    read: Let
    in_time: Callable[[], AbstractAsyncContextManager[None]]
    while_connected: Callable[[HttpRequest, Work], Awaitable[bytes]]

    def all(self) -> dict[tuple[str, str], Callable[[HttpRequest], Awaitable[Response]]]:
        """By method and path."""
        return {
            ("GET", f"{PREFIX}/health"): self.health,
            ("POST", f"{PREFIX}/setup"): self.setup,
            ("POST", f"{PREFIX}/predict"): self.predict,
            ("POST", f"{PREFIX}/webhook"): self.webhook,
            ("GET", f"{PREFIX}/versions"): self.versions,
        }

    async def health(self, http: HttpRequest) -> Response:
        """Label Studio waits a second for it, so it waits for nothing."""
        if not await self.answering.healthy():
            raise Unavailable("a device has stopped computing")
        return JSONResponse({"status": "UP", "model_class": "box2mask"})

    async def setup(self, http: HttpRequest) -> Response:
        """Says which version of predictions a project will get. It is no request that waits for its turn."""
        async with self.read(http) as body:
            content = _parsed(body)
        if not isinstance(content, dict):
            raise BadRequest("expected a JSON object with the project's schema, got another value")
        schema = content.get("schema")
        version = await self.answering.label_studio_version(schema if isinstance(schema, str) else None)
        return JSONResponse({"model_version": version})

    async def predict(self, http: HttpRequest) -> Response:
        async with self.let_in(http) as body:
            content = await self.while_connected(http, self._predict(http, body))
        return Response(content, media_type="application/json")

    async def _predict(self, http: HttpRequest, body: Body) -> bytes:
        asked: Asked = await self.answering.aside_if(len(body) > LITTLE, timings.stage("parse")(_read), body)
        http.scope["box2mask.rows"] = len(asked.tasks)
        began = time.perf_counter()
        answer = await self.answering.label_studio_predict(asked, http.scope[access.CLIENT])
        http.scope["box2mask.ms"] = 1000 * (time.perf_counter() - began)
        return answer

    async def webhook(self, http: HttpRequest) -> Response:
        """Label Studio tells of annotations, and waits a second. Nothing is done with it."""
        async with self.in_time():
            async for _ in http.stream():  # it comes without a key, and so is not kept
                pass
        return JSONResponse({})

    async def versions(self, http: HttpRequest) -> Response:
        return JSONResponse({"versions": await self.answering.label_studio_versions()})


def _read(body: Body) -> Asked:
    return read_request(_parsed(body))


def _parsed(body: Body) -> Any:
    """The body's JSON; a body that was megabytes is gone then. Raises BadRequest."""
    try:
        text = str(memoryview(body), "utf-8")
        if isinstance(body, bytearray):
            body.clear()
        else:
            body.close()
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON: expected what Label Studio sends") from error
