"""What happens around every request: AzureML's headers, `Server-Timing`, the line in the log, the metrics."""

from __future__ import annotations

import logging
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ServiceError
from app.http.metrics import Metrics
from app.http.tracing import Tracing
from app.timings import Timings, recording

log = logging.getLogger("box2mask.request")

# What is not one of the application's routes is all one to the metrics: strangers make up any number of paths.
OTHER = "other"
# Asked every few seconds by machines; their lines would hide the others.
_PROBES = ("/", "/health/live", "/health/ready", "/metrics")
_CLIENT_GONE = 499
# What repr() gives, URLs and paths.
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|https?://\S+|(?<!\S)/\S*""", re.DOTALL)
_LONGEST_ERROR = 300


class ScoringHeaders:
    """Middleware: the response headers of AzureML's scoring server on every answer.

    An `x-request-id` and an `x-ms-client-request-id` that came are echoed, as far as they are harmless.
    """

    def __init__(self, app: ASGIApp, server_version: str) -> None:
        self.app = app
        self.server_version = server_version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came = {name: value.decode("latin-1") for name, value in scope["headers"]}
        request_id = _harmless(came.get(b"x-request-id", ""), r"[!-~]{1,128}") or str(uuid.uuid4())
        client_id = _harmless(came.get(b"x-ms-client-request-id", ""), r"[A-Za-z0-9_-]{1,40}")
        scope["box2mask.id"] = request_id

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {
                    "x-request-id": request_id,
                    "x-ms-request-id": request_id,
                    "x-ms-client-request-id": client_id,
                    "x-ms-run-function-failed": str(bool(scope.get("box2mask.failed"))),
                    "x-ms-run-fn-exec-ms": f"{scope['box2mask.ms']:.3f}" if "box2mask.ms" in scope else "",
                    "x-ms-server-version": f"box2mask/{self.server_version}",
                }
                _add_headers(message, {name: value for name, value in ours.items() if value})
            await send(message)

        await self.app(scope, receive, send_with_headers)


class RequestRecord:
    """Middleware: keeps the `Timings` of a request; tells its client, the log and the metrics of them.

    What an application raises after all is answered here, so that no answer goes without headers and a line.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        refuse: Callable[[HttpRequest, Exception], Awaitable[Response]],
        tracing: Tracing | None = None,
    ) -> None:
        """refuse: what makes an answer of an error."""
        self.app = app
        self.metrics = metrics
        self.refuse = refuse
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        timings = Timings(self.metrics)
        status, bytes_in, bytes_out = 0, 0, 0

        async def receive_counted() -> Message:
            nonlocal bytes_in
            asked = time.perf_counter()
            message = await receive()
            if message["type"] == "http.request":
                bytes_in += len(message.get("body", b""))
                timings.add("receive", asked, time.perf_counter())
            return message

        async def send_timed(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.start":
                status = message["status"]
                total = 1000 * (time.perf_counter() - timings.began)
                shown = {"total": total} | timings.milliseconds()
                _add_headers(
                    message, {"server-timing": ", ".join(f"{name};dur={ms:.1f}" for name, ms in shown.items())}
                )
            elif message["type"] == "http.response.body":
                bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            with recording(timings):
                try:
                    await self.app(scope, receive_counted, send_timed)
                except Exception as error:
                    if status:  # its head is out already
                        raise
                    response = await self.refuse(HttpRequest(scope), error)
                    await response(scope, receive_counted, send_timed)
        finally:  # without an answer: the service stops, and nobody waits for it
            self._tell(scope, timings, status or _CLIENT_GONE, bytes_in, bytes_out)

    def _tell(self, scope: Scope, timings: Timings, status: int, bytes_in: int, bytes_out: int) -> None:
        seconds = time.perf_counter() - timings.began
        route = route_of(scope)
        rows = scope.get("box2mask.rows", 0)
        error = scope.pop("box2mask.error", None)
        reason = _reason(error) if 400 <= status < 500 and status != _CLIENT_GONE else ""
        self.metrics.on_request(
            route, status, seconds, rows=rows, bytes_in=bytes_in, bytes_out=bytes_out, reason=reason
        )
        fields: dict[str, Any] = {
            "request_id": scope.get("box2mask.id", ""),
            "method": _harmless(scope["method"], r"[A-Z]{1,20}") or "?",
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "rows": rows,
            "client": scope.get("box2mask.client", ""),
            "timings": {stage: round(ms, 1) for stage, ms in timings.milliseconds().items()},
            **({} if self.tracing is None else self.tracing.add_stages(timings)),
        }
        if error is not None:
            fields["error"] = loggable(error)
            _forget(error)
        quiet = route in _PROBES and scope["method"] in ("GET", "HEAD") and status < 400
        level = logging.DEBUG if quiet else logging.WARNING if status >= 500 else logging.INFO
        head = "%(method)s %(route)s %(status)d in %(ms).1f ms"
        log.log(level, head, fields, extra=fields)


def route_of(scope: Scope) -> str:
    """The path of the application's route that a request is for, or OTHER."""
    if "route" not in scope and "app" in scope:  # refused before it was routed, or none of FastAPI's own kind
        path = scope["path"]
        for one in scope["app"].routes:
            if getattr(one, "path", None) == path or (isinstance(one, Mount) and path.startswith(one.path + "/")):
                scope["route"] = one  # for the name of the request's span too
                break
    return getattr(scope.get("route"), "path", OTHER)


def _reason(error: Exception | None) -> str:
    """What a refusal is counted as: TooManyRequests -> "too_many_requests"."""
    return "other" if error is None else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()


def _forget(error: BaseException | None) -> None:
    """Let go of what an error's frames hold, the body among it: they and the error know each other, by way of tasks.

    Else it would all stay until the garbage collector comes by.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def loggable(error: Exception) -> str:
    """An error's message without what the client sent: no bytes of images, no prompts, no URLs.

    A client's mistake is told as "expected ..., got ...", where the second half quotes the request.
    """
    if not isinstance(error, ServiceError):
        return type(error).__name__  # the log has it with its traceback
    message = error.message
    if error.status < 500:
        message = re.sub(r"\bgot .*", "got ...", message, flags=re.DOTALL)
        message = _QUOTED.sub("...", message)
    return message[:_LONGEST_ERROR]


def _add_headers(message: Message, headers: dict[str, str]) -> None:
    there = cast(list[tuple[bytes, bytes]], message.setdefault("headers", []))
    there += [(name.encode(), value.encode()) for name, value in headers.items()]


def _harmless(identifier: str, pattern: str) -> str:
    """An identifier that matches, or "" for one that does not and had better stay out of headers and logs."""
    return identifier if re.fullmatch(pattern, identifier) else ""
