"""The HTTP service: `create_app(settings)`, its lifespan and routes, and the one place where errors become answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from mmap import mmap
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest

from app import timings
from app.contract import schemas
from app.contract.amount import LITTLE
from app.contract.embedding_params import AheadParams
from app.engine import fairness, freed_memory, loading
from app.errors import BadRequest, ClientGone, MethodNotAllowed, NotFound, ServiceError, Stopping
from app.http import access, openapi
from app.http.admission import Admission
from app.http.ahead import Ahead
from app.http.bodies import read_body
from app.http.intake import Intake
from app.http.metrics import Metrics
from app.http.middleware import RequestRecord, ScoringHeaders
from app.http.tracing import Tracing
from app.images.reading import ImageLimits, is_url
from app.label_studio import routes as label_studio_routes
from app.playground import site
from app.scoring.waiting import within
from app.serving.answering import Answering, Way
from app.serving.reloading import NewModels
from app.settings import Settings
from models.images.formats import media_type

log = logging.getLogger("box2mask")

T = TypeVar("T")
# What a page of another origin may send, and what it may read of an answer besides its body.
REQUEST_HEADERS = ("authorization", "content-type", "content-encoding", "x-request-id", "x-ms-client-request-id")
EXPOSED_HEADERS = ("x-request-id", "x-ms-request-id", "x-ms-run-fn-exec-ms", "retry-after", "server-timing")

# Bytes of one that names no images, and of one with a labelling interface.
_SMALL_BODY, _INTERFACE_BODY = 2**16, 2**24


def create_app(
    settings: Settings, on_failure: Callable[[], object] = lambda: None, answering: Answering | None = None
) -> FastAPI:
    """The service as an ASGI application; its models are loaded as it starts, and a failure then is fatal.

    on_failure: called, in any thread, as soon as a device computes no more, of which only a restart helps.
    answering: who has the models; None: this process.
    Raises SettingsError, or another of `loading.EXPLAINED`, where the settings name no model that is there.
    """
    keys = access.ApiKeys.of(settings)
    admission = Admission(
        settings.max_requests,
        most_per_client=lambda: settings.max_requests_per_key or _share(settings.max_requests, keys.count),
    )
    metrics = Metrics(admission, with_engine=answering is None)
    tracing = Tracing.of(settings)
    own = None
    if answering is None:
        from app.serving.own import OwnModels  # with PyTorch, without which a process without models starts

        own = answering = OwnModels(
            settings, on_failure, lambda served: metrics.watch(served.scorer.engine, served.choice)
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await answering.begin()
        except loading.EXPLAINED as error:
            app.state.startup_error = error  # says enough without a traceback
            raise
        trimming = asyncio.create_task(freed_memory.trim_regularly(lambda: admission.ended))
        loop = asyncio.get_running_loop()
        if own is not None:
            app.state.reload_soon = lambda: asyncio.run_coroutine_threadsafe(own.reloader.on_signal(), loop)
        log.info("ready")
        try:
            yield
        finally:
            app.state.reload_soon = None
            trimming.cancel()
            await app.state.ahead.aclose()
            metrics.watch(None)
            await answering.aclose()
            if tracing is not None:
                await anyio.to_thread.run_sync(tracing.close)

    app = FastAPI(title="box2mask", version=version("box2mask"), lifespan=lifespan, redoc_url=None)
    app.router.redirect_slashes = False  # posting megabytes twice is no favour
    app.state.serving = None if own is None else own.serving
    app.state.reloader = None if own is None else own.reloader
    app.state.reload_soon = None  # what a signal calls, once the models answer
    app.state.startup_error = None
    app.state.admission = admission
    app.state.metrics = metrics
    app.state.ahead = Ahead(admission, settings.request_timeout_s)
    app.state.intake = Intake(int(settings.max_bodies_mb * 2**20), settings.client_timeout_s)
    app.state.stopping = False
    app.openapi = lambda: openapi.document(app.version)  # type: ignore[method-assign]
    app.add_middleware(access.Access, keys=keys, refuse=_answer_error)
    if settings.origins:  # outside of Access, as a browser asks first without a key, and must be told of a 401
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=EXPOSED_HEADERS,
            max_age=3600,
        )
    app.add_middleware(RequestRecord, metrics=metrics, refuse=_answer_error, tracing=tracing)
    app.add_middleware(ScoringHeaders, server_version=app.version)
    if tracing is not None:
        app.add_middleware(tracing.around)
    for kind in (ServiceError, HTTPException):
        app.add_exception_handler(kind, _answer_error)

    @asynccontextmanager
    async def _let_in(http: HttpRequest, most: int) -> AsyncIterator[bytearray | mmap]:
        """The body of a request, of at most so many bytes, and a place for the time of its work."""
        client = http.scope[access.CLIENT]
        fairness.client.set(client)
        if app.state.stopping:
            raise Stopping()
        admission.check(client)
        with app.state.intake.body() as held:
            async with within(settings.request_timeout_s):
                async with app.state.intake.in_time():
                    body = await read_body(http, most, held)
                with admission.admit(client):
                    yield body

    @asynccontextmanager
    async def _small_body(http: HttpRequest, most: int = _SMALL_BODY) -> AsyncIterator[bytearray | mmap]:
        """The body of a request that takes no place among those in work."""
        if app.state.stopping:
            raise Stopping()
        with app.state.intake.body() as held:
            async with within(settings.request_timeout_s), app.state.intake.in_time():
                body = await read_body(http, most, held)
            yield body

    async def score(http: HttpRequest, way: Way) -> Response:
        async with _let_in(http, int(settings.max_body_mb * 2**20)) as body:
            content = await _while_connected(http, _score(http, body, way))
        return Response(content, media_type="application/json")

    async def _score(http: HttpRequest, body: bytearray | mmap, way: Way) -> bytes:
        # Megabytes of base64 take a while to parse; other requests are answered meanwhile. Parsed, the body is gone.
        parse, with_inputs = timings.stage("parse")(schemas.parse_request), way == "by_columns"
        large = len(body) > LITTLE
        request = await answering.aside_if(large, parse, body, settings.max_rows, inputs=with_inputs)
        http.scope["box2mask.rows"] = len(request.data)
        request = replace(request, client=http.scope[access.CLIENT])
        began = time.perf_counter()
        content = await answering.answer(way, request)
        http.scope["box2mask.ms"] = 1000 * (time.perf_counter() - began)
        return content

    ways: dict[str, Way] = {
        "/": "by_columns",
        "/score": "by_columns",
        "/yolof/score": "detect",
        "/sam/score": "segment",
        "/pipeline/score": "detect_and_segment",
    }
    for path, way in ways.items():
        app.add_route(path, _route(partial(score, way=way)), methods=["POST"])

    async def images(http: HttpRequest) -> Response:
        most_kept = int(settings.image_store_mb * 2**20)
        if not most_kept:
            raise NotFound("this service keeps no images: start it with BOX2MASK_IMAGE_STORE_MB")
        ahead, client = AheadParams.read(http.query_params), http.scope[access.CLIENT]
        async with _let_in(http, min(ImageLimits.of(settings).max_bytes, most_kept)) as body:
            source = _image_or_url(http, bytes(body))
            kept = await _while_connected(http, answering.keep_image(client, source))
        if ahead.embed:
            how = {"exif_orientation": ahead.exif_orientation}
            app.state.ahead.begin(client, partial(answering.embed_ahead, client, kept["image"], **how))
        return JSONResponse(kept)

    async def kept_image(http: HttpRequest) -> Response:
        file = await answering.kept_image(http.scope[access.CLIENT], http.path_params["reference"])
        # Shown by itself it must not be taken for anything but a picture.
        headers = {
            "content-security-policy": "default-src 'none'; sandbox",
            "x-content-type-options": "nosniff",
            "cache-control": "private, no-store",
        }
        return Response(file, headers=headers, media_type=media_type(file))

    async def embedding(http: HttpRequest) -> Response:
        asked = http.scope[access.CLIENT], http.path_params["reference"], dict(http.query_params)
        tag, kept = await answering.embedding_tag(*asked)
        # The same content for as long as the service has the same model, which a browser asks by the tag.
        cached = {"cache-control": "private, no-cache"}
        if kept and tag in http.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": tag} | cached)
        async with _let_in(http, 0):
            tag, content = await _while_connected(http, answering.embedding(*asked))
        return Response(content, headers={"etag": tag} | cached, media_type="application/octet-stream")

    async def reload(http: HttpRequest) -> Response:
        if settings.admin_key is None:
            raise NotFound("this service loads models anew on SIGHUP alone: start it with BOX2MASK_ADMIN_KEY")
        async with _small_body(http) as body:
            new = NewModels.read(bytes(body))
        # To its end, also where nobody waits for it any more.
        await asyncio.shield(answering.reload(new))
        return JSONResponse(await answering.describe())

    label_studio = label_studio_routes.Routes(
        answering=answering,
        let_in=lambda http: _let_in(http, int(settings.max_body_mb * 2**20)),
        read=lambda http: _small_body(http, _INTERFACE_BODY),
        in_time=app.state.intake.in_time,
        while_connected=_while_connected,
    )
    for (method, path), work in label_studio.all().items():
        app.add_route(path, _route(work), methods=[method])

    app.add_route("/images", _route(images), methods=["POST"])
    app.add_route("/models/reload", _route(reload), methods=["POST"])
    app.add_route("/images/{reference}", _route(kept_image), methods=["GET"])
    app.add_route("/images/{reference}/embedding", _route(embedding), methods=["GET"])

    @app.api_route("/", methods=["GET", "HEAD"])
    async def home(http: HttpRequest) -> Response:
        alive = await live()
        return site.home(http) if settings.playground and alive.status_code == 200 else alive

    if settings.playground:
        app.router.routes.extend(site.routes())

    @app.api_route("/health/live", methods=["GET", "HEAD"])
    async def live() -> Response:
        # Where a restart may help; the process is about to end by itself.
        if not answering.alive:
            return PlainTextResponse("a device has stopped computing", 503)
        return PlainTextResponse("Healthy")

    @app.api_route("/health/ready", methods=["GET", "HEAD"])
    async def ready() -> Response:
        # The lifespan loads and tries the models before any request gets here.
        if not await answering.healthy():
            return PlainTextResponse("a device has stopped computing", 503)
        if app.state.stopping:
            return PlainTextResponse("stopping", 503)
        return PlainTextResponse("Ready")

    if settings.metrics_port is None:

        @app.get("/metrics")
        async def scrape(http: HttpRequest) -> Response:
            accept = http.headers.get("accept", "")
            found = await answering.metrics_text(accept)
            if found is None:
                found = await anyio.to_thread.run_sync(metrics.text, accept)
            content, content_type = found
            return Response(content, headers={"content-type": content_type})

    @app.get("/version")
    async def versions() -> dict[str, Any]:
        return await answering.describe()

    @app.get("/swagger.json")
    async def swagger(http: HttpRequest) -> JSONResponse:
        wanted = http.query_params.get("version", "2")
        if wanted not in openapi.VERSIONS:
            raise NotFound(f"version: expected {' or '.join(openapi.VERSIONS)}, got {wanted!r}")
        return JSONResponse(openapi.document(app.version, wanted))

    return app


def _route(work: Callable[[HttpRequest], Awaitable[Response]]) -> Any:
    async def endpoint(http: HttpRequest) -> Response:
        try:
            return await work(http)
        # Here and not as the application's handler, which runs outside of the middleware and its headers.
        except Exception as error:
            return await _answer_error(http, error)

    return endpoint


def _image_or_url(http: HttpRequest, body: bytes) -> bytes | str:
    """What is posted to `/images`: a file as it is, or `{"url": ...}` as JSON. Raises BadRequest."""
    if not http.headers.get("content-type", "").lower().startswith("application/json"):
        return body
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest('the body is not JSON: expected {"url": ...}, or an image\'s file of another type') from error
    url = content.get("url") if isinstance(content, dict) else None
    if not is_url(url):
        raise BadRequest('expected {"url": ...} with an http(s) URL')
    return str(url)


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


def _share(most: int, keys: int) -> int:
    """Of the requests that may be in work or wait: how many of one client's, so that there is room for the others."""
    return most if keys < 2 else max(1, most // 2)


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
    http.scope["box2mask.error"] = error
    if not isinstance(error, ServiceError) or error.status >= 500:
        request_id = http.scope.get("box2mask.id")
        log.error("request %s failed", request_id, exc_info=error, extra={"request_id": request_id})
    if not isinstance(error, ServiceError):
        error = ServiceError(f"internal error; the server's log has it as request {http.scope.get('box2mask.id')}")
    headers.update(error.headers)
    http.scope["box2mask.failed"] = error.status >= 500
    # ASCII, because a message may quote text of the client's that is not valid Unicode.
    return Response(json.dumps({"message": error.message}), error.status, headers, media_type="application/json")
