"""What Ray Serve's proxies answer themselves, in the service's own form."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.cluster.service.proxy import ENVIRONMENT, OwnForm, middlewares

OURS = {"x-ms-server-version": "box2mask/0.1.0", "x-request-id": "ours"}


def answered(app: Any, path: str = "/score", headers: dict[str, str] | None = None) -> httpx.Response:
    (middleware,) = middlewares()
    wrapped = middleware.cls(app, *middleware.args, **middleware.kwargs)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://service") as client:
            return await client.post(path, headers=headers)

    return asyncio.run(ask())


async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("the edge has gone")


async def says_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@pytest.mark.parametrize(
    "app",
    [
        breaks,
        says_nothing,
        PlainTextResponse("Internal Server Error", 500),
        PlainTextResponse("dropped", 503),
        PlainTextResponse("Path '/score' not found", 404),
        PlainTextResponse("timed out", 408),
    ],
)
def test_what_is_not_the_edges_is_a_503_that_says_when_to_come_again(app: Any) -> None:
    response = answered(app)
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assert "try again" in response.json()["message"]


def test_the_edges_answers_pass_with_one_request_id() -> None:
    async def edge_and_serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_twice(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", b"serves"))
            await send(message)

        await PlainTextResponse("no", 429, {**OURS, "retry-after": "7"})(scope, receive, send_twice)

    response = answered(edge_and_serve)
    assert (response.status_code, response.text, response.headers["retry-after"]) == (429, "no", "7")
    assert response.headers.get_list("x-request-id") == ["ours"]


def test_serves_own_addresses_are_its_own() -> None:
    assert answered(PlainTextResponse("success"), "/-/healthz").text == "success"


def test_clients_cannot_switch_off_what_holds_for_all() -> None:
    seen: list[bytes] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await PlainTextResponse("yes", headers=OURS)(scope, receive, send)

    headers = {"X-Request-Timeout-Seconds": "0.001", "x-request-disconnect-disabled": "?1", "x-other": "1"}
    assert answered(look, headers=headers).text == "yes"
    assert b"x-other" in seen
    assert not {b"x-request-timeout-seconds", b"x-request-disconnect-disabled"} & set(seen)


async def received(*messages: dict[str, Any]) -> list[Any]:
    """What the edge is told of these messages of the server's."""
    coming, seen = iter(messages), []

    async def receive() -> Any:
        return next(coming)

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        while not seen or seen[-1].get("more_body"):
            seen.append(await receive())
        await PlainTextResponse("yes", headers=OURS)(scope, receive, send)

    async def send(message: Any) -> None:
        pass

    await OwnForm(read)({"type": "http", "path": "/score", "headers": []}, receive, send)
    return seen


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_the_edge_gets_a_body_in_few_parts() -> None:
    assert asyncio.run(received(part(b"a", more=True), part(b"b", more=True), part(b"", more=False))) == [
        part(b"ab", more=False)
    ]
    half = bytes(range(256)) * 2048
    parts = asyncio.run(received(*[part(half, more=True)] * 5, part(b"end", more=False)))
    assert [len(one["body"]) for one in parts] == [2**20, 2**20, 2**19 + 3]
    assert b"".join(one["body"] for one in parts) == half * 5 + b"end"


def test_the_edge_is_told_at_once_that_a_client_has_gone() -> None:
    gone = {"type": "http.disconnect"}
    assert asyncio.run(received(part(b"a", more=True), gone)) == [gone]


def test_the_image_has_what_every_node_needs() -> None:
    image = (Path(__file__).parents[3] / "Dockerfile").read_text()
    assert [name for name, value in ENVIRONMENT.items() if f"    {name}={value}" not in image] == []


def test_what_is_not_http_passes() -> None:
    told: list[str] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        told.append(scope["type"])

    asyncio.run(OwnForm(lifespan)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert told == ["lifespan"]
