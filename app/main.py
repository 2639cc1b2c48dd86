"""The HTTP service: `create_app(settings)`, its lifespan and routes, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, TypeVar, cast

import anyio.to_thread
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import loading, openapi, schemas
from app.admission import Admission
from app.errors import ClientGone, MethodNotAllowed, NotFound, PayloadTooLarge, ServiceError, Stopping
from app.images import ImageLimits
from app.intake import Body, Intake
from app.scoring import AnswerLimits, Scorer, within
from app.settings import Settings

log = logging.getLogger("box2mask")

T = TypeVar("T")
Answer = Callable[[Scorer, schemas.Request], Awaitable[list[dict[str, Any]]]]


def create_app(settings: Settings, on_failure: Callable[[], object] = lambda: None) -> FastAPI:
    """The service as an ASGI application; its models are loaded as it starts, and a failure then is fatal.

    on_failure: called, in any thread, as soon as a device computes no more, of which only a restart helps.
    Raises SettingsError, or another of `loading.EXPLAINED`, where the settings name no model that is there.
    """
    choice = loading.choose(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            engine = await anyio.to_thread.run_sync(loading.load, settings, choice)
        except loading.EXPLAINED as error:
            app.state.startup_error = error  # says enough without a traceback
            raise
        limits = ImageLimits.of(settings)
        try:
            await engine.warm_up()
            engine.when_failed(on_failure)
            app.state.scorer = Scorer(
                engine, limits, settings.max_prompts, settings.response_schema, AnswerLimits.of(settings)
            )
            log.info("ready")
            yield
        except loading.EXPLAINED as error:
            app.state.startup_error = error
            raise
        finally:
            app.state.scorer = None
            await engine.aclose()

    app = FastAPI(title="box2mask", version=version("box2mask"), lifespan=lifespan, redoc_url=None)
    app.router.redirect_slashes = False  # posting megabytes twice is no favour
    app.state.choice = choice
    app.state.scorer = None
    app.state.startup_error = None
    app.state.admission = Admission(settings.max_requests)
    app.state.intake = Intake(int(settings.max_bodies_mb * 2**20), settings.client_timeout_s)
    app.state.stopping = False
    app.openapi = lambda: openapi.document(app.version)  # type: ignore[method-assign]
    app.add_middleware(ScoringHeaders, server_version=app.version)
    for kind in (ServiceError, HTTPException):
        app.add_exception_handler(kind, _answer_error)

    async def score(http: HttpRequest, answer: Answer) -> Response:
        scorer: Scorer = app.state.scorer
        if app.state.stopping:
            raise Stopping()
        app.state.admission.check()
        with app.state.intake.body() as held:
            async with within(settings.request_timeout_s):
                async with app.state.intake.in_time():
                    bodies = [await _body(http, int(settings.max_body_mb * 2**20), held)]
                with app.state.admission.admit():
                    content = await _while_connected(http, _score(http, scorer, bodies, answer))
            return Response(content, media_type="application/json")

    async def _score(http: HttpRequest, scorer: Scorer, bodies: list[bytes], answer: Answer) -> bytes:
        # Megabytes of base64 take a while to parse and to write; other requests are answered meanwhile.
        # The body is let go of with it: what is needed of it is in the rows.
        request = await scorer.engine.aside(schemas.parse_request, bodies.pop(), settings.max_rows)
        began = time.perf_counter()
        answers = await answer(scorer, request)
        http.scope["box2mask.ms"] = 1000 * (time.perf_counter() - began)
        return await scorer.engine.aside(_to_json, answers)

    for path, answer in (
        ("/score", Scorer.by_columns),
        ("/yolof/score", Scorer.detect),
        ("/sam/score", Scorer.segment),
        ("/pipeline/score", Scorer.detect_and_segment),
    ):
        app.add_route(path, _route(score, answer), methods=["POST"])

    @app.api_route("/", methods=["GET", "HEAD"])
    @app.api_route("/health/live", methods=["GET", "HEAD"])
    async def live() -> Response:
        if not app.state.scorer.engine.healthy:  # which a restart may help; the process is about to end by itself
            return PlainTextResponse("a device has stopped computing", 503)
        return PlainTextResponse("Healthy")

    @app.api_route("/health/ready", methods=["GET", "HEAD"])
    async def ready() -> Response:
        # The lifespan loads and tries the models before any request gets here.
        if not app.state.scorer.engine.healthy:
            return PlainTextResponse("a device has stopped computing", 503)
        if app.state.stopping:
            return PlainTextResponse("stopping", 503)
        return PlainTextResponse("Ready")

    @app.get("/version")
    async def versions() -> dict[str, Any]:
        return describe(app.state.scorer, choice, settings)

    @app.get("/swagger.json")
    async def swagger(http: HttpRequest) -> JSONResponse:
        wanted = http.query_params.get("version", "2")
        if wanted not in openapi.VERSIONS:
            raise NotFound(f"version: expected {' or '.join(openapi.VERSIONS)}, got {wanted!r}")
        return JSONResponse(openapi.document(app.version, wanted))

    return app


def describe(scorer: Scorer, choice: loading.Choice, settings: Settings) -> dict[str, Any]:
    """What `/version` says: versions, models with hashes of their files, device, number format, limits."""
    from models import mmcv_ops

    engine = scorer.engine
    devices = ",".join(str(device) for device in engine.devices)
    served: dict[str, Any] = {"detector": None, "segmenter": None}
    for kind, model, chosen in (
        ("detector", engine.detector, choice.detector),
        ("segmenter", engine.segmenter, choice.segmenter),
    ):
        if model is not None and chosen is not None:
            served[kind] = {
                "name": chosen.name,
                "demo_weights": chosen.demo,
                "sha256": choice.hashes[kind],
                "device": devices,
                "dtype": str(model.dtype).removeprefix("torch."),
                "fast": settings.fast,
            }
    if engine.detector is not None:
        served["detector"] |= {
            "classes": list(engine.detector.class_names),
            "input_scale": engine.detector.input_scale,
            "channel_order": engine.detector.channel_order,
        }
    if engine.segmenter is not None:
        served["segmenter"] |= {"image_size": engine.segmenter.image_size}
    packages = ("torch", "transformers", "mmdet", "mmengine", "numpy", "pillow", "fastapi", "uvicorn")
    return {
        "box2mask": version("box2mask"),
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "mmcv_ops": "plain torch" if mmcv_ops.install() else "compiled",
        "demo_weights": choice.demo,
        "response_schema": settings.response_schema,
        "max_prompts": scorer.max_prompts,
        "embedding_cache": asdict(engine.cache.stats()),
        **served,
    }


def _route(score: Callable[[HttpRequest, Answer], Awaitable[Response]], answer: Answer) -> Any:
    async def endpoint(http: HttpRequest) -> Response:
        try:
            return await score(http, answer)
        # Here and not as the application's handler, which runs outside of the middleware and its headers.
        except Exception as error:
            return await _answer_error(http, error)

    return endpoint


async def _while_connected(http: HttpRequest, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and drop it as soon as its client has gone. Raises ClientGone then."""

    async def gone() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass

    tasks: tuple[asyncio.Task[T], asyncio.Task[None]] = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            return tasks[0].result()
        raise ClientGone("the client went away before its answer was there")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _body(http: HttpRequest, most: int, held: Body) -> bytes:
    """The request's body, given up as soon as it is too long. Raises PayloadTooLarge."""
    declared = http.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise PayloadTooLarge(most)
    body = bytearray()
    try:
        async for chunk in http.stream():
            body += chunk
            if len(body) > most:
                raise PayloadTooLarge(most)
            held.grow(len(body))
    except ClientDisconnect as error:
        raise ClientGone("the client went away before the body was there") from error
    return bytes(body)


def _to_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


async def _answer_error(http: HttpRequest, error: Exception) -> Response:
    """Every error's answer: `{"message": ...}`. What the client could not have caused stays in the log."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):  # the router's own
        path = http.url.path
        headers.update(error.headers or {})  # `Allow`, of a 405
        if error.status_code == 405:
            error = MethodNotAllowed(f"{path} does not answer {http.method}")
        else:
            error = NotFound(f"there is nothing at {path}")
    if not isinstance(error, ServiceError) or error.status >= 500:
        log.error("request %s failed", http.scope.get("box2mask.id"), exc_info=error)
    if not isinstance(error, ServiceError):
        error = ServiceError(f"internal error; the server's log has it as request {http.scope.get('box2mask.id')}")
    headers.update(error.headers)
    http.scope["box2mask.failed"] = error.status >= 500
    # ASCII, because a message may quote text of the client's that is not valid Unicode.
    return Response(json.dumps({"message": error.message}), error.status, headers, media_type="application/json")


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
                headers = cast(list[tuple[bytes, bytes]], message.setdefault("headers", []))
                headers += [(name.encode(), value.encode()) for name, value in ours.items() if value]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _harmless(identifier: str, pattern: str) -> str:
    """An identifier that matches, or "" for one that does not and had better stay out of headers and logs."""
    return identifier if re.fullmatch(pattern, identifier) else ""
