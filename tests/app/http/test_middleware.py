"""What happens around every request, with an application that does little: who is told what of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.contract import schemas
from app.errors import (
    BadRequest,
    ImageGone,
    NotFound,
    PayloadTooLarge,
    ServiceError,
    TooManyRequests,
    UnsupportedEncoding,
)
from app.http.admission import Admission
from app.http.metrics import Metrics
from app.http.middleware import RequestRecord, ScoringHeaders, loggable
from app.images.reading import image_bytes
from models.images.decoding import ImageError, decode_image


async def echo(request: Request) -> Response:
    request.scope["box2mask.rows"] = 2
    return PlainTextResponse(b"<" + await request.body() + b">")


async def fail(request: Request) -> Response:
    raise RuntimeError("the secret of /models/sam")


async def fail_half_way(request: Request) -> Response:
    async def half() -> Any:
        yield b"half"
        raise RuntimeError("no more")

    return StreamingResponse(half())


async def refuse(request: Request, error: Exception) -> Response:
    request.scope["box2mask.error"] = error
    status = error.status if isinstance(error, ServiceError) else 500
    return JSONResponse({"message": "refused"}, status)


class Doorkeeper:
    """Middleware that lets nobody with the header `x-no` in, before any route is known."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["box2mask.client"] = "abc123"
        http = Request(scope, receive)
        if "x-no" in http.headers:
            answer = await refuse(http, TooManyRequests("later", retry_after_s=1))
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Admission(3))


@pytest.fixture
def ask(metrics: Metrics) -> Callable[..., httpx.Response]:
    app = Starlette(
        routes=[
            Route("/echo", echo, methods=["POST"]),
            Route("/fail", fail),
            Route("/half", fail_half_way),
            Route("/health/live", lambda request: PlainTextResponse("Healthy")),
            Mount("/files", lambda scope, receive, send: PlainTextResponse("file")(scope, receive, send)),
        ]
    )
    app.router.redirect_slashes = False
    app.add_middleware(Doorkeeper)
    app.add_middleware(RequestRecord, metrics=metrics, refuse=refuse)
    app.add_middleware(ScoringHeaders, server_version="1.2.3")

    def request(method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    return request


def samples(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.text()[0].decode().splitlines() if line.startswith(name)]


def test_requests_are_counted_by_route_and_status(ask: Callable[..., httpx.Response], metrics: Metrics) -> None:
    for path in ("/a", "/b", "/echo/", "/files/a", "/files/b", "/echo"):
        ask("POST", path, content=b"12345")
    ask("GET", "/echo")
    ask("POST", "/echo", content=b"", headers={"x-no": "1"})
    ask("POST", "/files/c", headers={"x-no": "1"})
    assert set(samples(metrics, "box2mask_requests_total{")) == {
        'box2mask_requests_total{route="other",status="404"} 3.0',
        'box2mask_requests_total{route="/files",status="200"} 2.0',
        'box2mask_requests_total{route="/echo",status="200"} 1.0',
        'box2mask_requests_total{route="/echo",status="405"} 1.0',
        'box2mask_requests_total{route="/echo",status="429"} 1.0',
        'box2mask_requests_total{route="/files",status="429"} 1.0',
    }
    assert 'box2mask_refused_requests_total{reason="too_many_requests"} 2.0' in samples(metrics, "box2mask_refused")
    assert samples(metrics, "box2mask_rows_total{") == ['box2mask_rows_total{route="/echo"} 2.0']
    assert 'box2mask_request_bytes_total{route="/echo"} 5.0' in samples(metrics, "box2mask_request_bytes")
    assert 'box2mask_request_seconds_count{route="/echo"} 3.0' in samples(metrics, "box2mask_request_seconds_count")


def test_what_the_application_raises_is_answered_with_all_headers(
    ask: Callable[..., httpx.Response], metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "box2mask.request"):
        response = ask("GET", "/fail", headers={"x-request-id": "mine"})
    assert (response.status_code, response.json()) == (500, {"message": "refused"})
    assert response.headers["x-request-id"] == "mine" and response.headers["server-timing"].startswith("total;dur=")
    assert samples(metrics, "box2mask_requests_total{") == ['box2mask_requests_total{route="/fail",status="500"} 1.0']
    assert not samples(metrics, "box2mask_refused_requests_total{")
    (line,) = caplog.records
    assert (line.levelname, vars(line)["error"]) == ("WARNING", "RuntimeError")


def test_an_answer_that_breaks_off_is_counted_and_logged(
    ask: Callable[..., httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "box2mask.request"):
        ask("GET", "/half")
    (line,) = caplog.records
    assert (vars(line)["status"], vars(line)["bytes_out"]) == (200, 4)


def test_a_line_has_what_is_known_of_its_request(
    ask: Callable[..., httpx.Response], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "box2mask.request"):
        ask("POST", "/echo?key=secret", content=b"12345", headers={"x-request-id": "mine"})
        ask("GET", "/health/live")  # a probe, which is of interest at the level debug
    (line,) = caplog.records
    assert line.getMessage().startswith("POST /echo 200 in ")
    fields = vars(line)
    assert {name: fields[name] for name in ("request_id", "route", "bytes_in", "bytes_out", "rows", "client")} == {
        "request_id": "mine",
        "route": "/echo",
        "bytes_in": 5,
        "bytes_out": 7,
        "rows": 2,
        "client": "abc123",
    }
    assert list(fields["timings"]) == ["receive"] and "error" not in fields and "secret" not in str(fields)


def bad_request(call: Callable[[], object]) -> Exception:
    try:
        call()
    except ImageError as error:
        return BadRequest(str(error), row=3, column="image")
    except ServiceError as error:
        return error
    raise AssertionError("it is right")


def refused(error: ServiceError) -> None:
    raise error


def body(**values: Any) -> bytes:
    names = ("image", "input_points", "input_boxes", "input_labels", "multimask_output")
    row = dict.fromkeys(names, "") | {name: value for name, value in values.items() if name in names}
    table = {"columns": list(row), "data": [list(row.values())]}
    return json.dumps({"input_data": table, "params": values.get("params")}).encode()


@pytest.mark.parametrize(
    "call",
    [
        lambda: image_bytes("SECRET!"),
        lambda: image_bytes("data:SECRET"),
        lambda: image_bytes("http://SECRET:99999/photo.jpg?key=SECRET"),
        lambda: image_bytes("http://[SECRET/"),
        lambda: decode_image(b"SECRET"),
        lambda: schemas.segmenter_rows(schemas.parse_request(body(input_boxes="SECRET"), 9), 9),
        lambda: schemas.segmenter_rows(schemas.parse_request(body(input_points=[["SECRET"]]), 9), 9),
        lambda: schemas.parse_request(b'{"SECRET": 1}', 9),
        lambda: schemas.parse_request(b'"SECRET" 1', 9),
        lambda: schemas.parse_request(body(params={"coordinates": "SECRET"}), 9),
        lambda: refused(BadRequest("expected an image URL whose host has public addresses, " + repr("a'SECRET"))),
        lambda: refused(BadRequest("expected something else than " + repr("a'b\"SECRET"))),
        lambda: refused(ImageGone("sha256:SECRET")),
        lambda: refused(NotFound("there is nothing at /SECRET/photo")),
        lambda: refused(UnsupportedEncoding("content-encoding: expected gzip, deflate or none, got 'SECRET'")),
    ],
)
def test_what_a_client_sent_stays_out_of_the_log(call: Callable[[], object]) -> None:
    shown = loggable(bad_request(call))
    assert "SECRET" not in shown and len(shown) > 20


def test_errors_say_in_the_log_what_else_they_say_to_the_client() -> None:
    assert loggable(PayloadTooLarge(7)) == "expected a body of at most 7 bytes, got ..."
    assert loggable(BadRequest("expected (num_boxes, 4), got (2, 3)", row=3, column="input_boxes")) == (
        "row 3, input_boxes: expected (num_boxes, 4), got ..."
    )
