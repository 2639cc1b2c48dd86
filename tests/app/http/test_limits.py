"""What is refused for its size, its number or its time, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.app.scoring_requests import (
    check_headers,
    converse,
    row,
    to_sam,
)


def test_a_body_over_the_limit_is_a_413(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()
        limit = 16 * 1024
        assert (await client.post("/score", content=content.ljust(limit))).status_code == 200
        response = await client.post("/score", content=content.ljust(limit + 1))
        assert response.status_code == 413
        assert response.json() == {"message": f"expected a body of at most {limit} bytes, got more"}
        check_headers(response)
        assert (await client.post("/score", content=content)).status_code == 200

    converse(sam_only(max_body_mb=16 / 1024), conversation)


def test_requests_over_the_limit_are_a_429(sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        segmenter = app.state.serving.scorer.engine.segmenter
        embed, entered, may_go_on = segmenter.embed, threading.Event(), threading.Event()

        def slowly(samples: Any, between: Any) -> Any:
            entered.set()
            assert may_go_on.wait(30)
            return embed(samples, between)

        monkeypatch.setattr(segmenter, "embed", slowly)
        content = to_sam(row(boxes="[[10, 10, 90, 50]]"))
        first = asyncio.create_task(client.post("/score", json=content))
        assert await asyncio.to_thread(entered.wait, 30)
        refused = await client.post("/score", json=content)
        probe = await client.get("/health/ready")
        may_go_on.set()
        assert (await first).status_code == 200
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json() == {"message": "1 requests are in work or waiting; try again in 1 s"}
        check_headers(refused)
        assert probe.status_code == 200
        assert (await client.post("/score", json=content)).status_code == 200

    converse(sam_only(max_requests=1), conversation)


def test_a_client_that_would_be_refused_is_told_before_it_has_sent_its_body(
    sam_only: Callable[..., Settings],
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        async def never() -> AsyncIterator[bytes]:
            raise AssertionError("the body was asked for")
            yield b""

        with app.state.admission.admit():
            assert (await client.post("/score", content=never())).status_code == 429
        assert (await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))).status_code == 200

    converse(sam_only(max_requests=1), conversation)


def test_a_body_that_does_not_come_takes_no_place_and_is_a_408(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()
        begun = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield content[:10]
            begun.set()
            await asyncio.Event().wait()

        slow = asyncio.create_task(client.post("/score", content=slowly()))
        await begun.wait()
        assert (await client.post("/score", content=content)).status_code == 200  # the only place there is
        response = await slow
        assert response.status_code == 408
        assert response.json() == {"message": "expected the body within 3 s, it did not come"}
        assert response.headers["connection"] == "close"
        assert app.state.intake.held_bytes == 0

    converse(sam_only(max_requests=1, client_timeout_s=3), conversation)


def test_bodies_together_take_no_more_memory_than_they_may(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()
        intake = app.state.intake
        assert len(content) > intake.most_bytes
        assert (await client.post("/score", content=content)).status_code == 200  # a single one may be larger
        with intake.body() as other:
            other.grow(1)
            response = await client.post("/score", content=content)
        assert response.status_code == 429 and response.headers["retry-after"] == "1"
        assert response.json() == {"message": "the requests in work leave no memory for this one's body"}
        assert intake.held_bytes == 0

    converse(sam_only(max_bodies_mb=64 / 2**20), conversation)


def test_masks_that_would_be_too_many_pixels_are_refused_before_they_are_made(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        def never(*args: Any) -> Any:
            raise AssertionError("a network ran")

        box = [10, 10, 90, 50]
        fits = to_sam(row(boxes=[box] * 2), row(boxes=[box], multimask=True))
        too_many = to_sam(row(boxes=[box] * 3), row(boxes=[box], multimask=True))
        assert (await client.post("/score", json=fits)).status_code == 200
        with monkeypatch.context() as patched:
            patched.setattr(app.state.serving.scorer.engine.segmenter, "embed", never)
            patched.setattr(app.state.serving.scorer.engine.segmenter, "decode_batch", never)
            response = await client.post("/score", json=too_many)
        assert response.status_code == 400
        assert response.json() == {
            "message": "expected at most 40960 pixels in all masks of a request, got more with 1 prompts x 3 masks x "
            "128 x 64 (width x height)"
        }

    converse(sam_only(max_mask_pixels=5 * 128 * 64), conversation)


@pytest.mark.parametrize(("mask_format", "most"), [("png", 4096), ("rle", 4096), ("polygon", 2**17)])
def test_masks_larger_than_a_response_may_be_are_refused(
    sam_only: Callable[..., Settings], mask_format: str, most: int
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        boxes = [[10 + step, 10, 90, 50] for step in range(40)]
        one, many = (to_sam(row(boxes=boxes[:number]), mask_format=mask_format) for number in (1, 40))
        assert (await client.post("/score", json=one)).status_code == 200
        response = await client.post("/score", json=many)
        assert response.status_code == 400
        assert response.json()["message"].startswith(f"expected at most {most} bytes of masks in a response, got more:")
        assert (await client.post("/score", json=one)).status_code == 200

    converse(sam_only(max_response_mb=most / 2**20), conversation)


class Endless:
    """An encoder that goes on as long as anybody waits for it."""

    def __init__(self) -> None:
        self.entered, self.left = threading.Event(), threading.Event()

    def __call__(self, samples: Any, between: Callable[[], None]) -> Any:
        self.entered.set()
        try:
            while True:
                between()
        finally:
            self.left.set()


def test_a_request_that_takes_too_long_is_a_504_and_its_work_is_dropped(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content, endless = to_sam(row(boxes="[[10, 10, 90, 50]]")), Endless()
        with monkeypatch.context() as patched:
            patched.setattr(app.state.serving.scorer.engine.segmenter, "embed", endless)
            response = await client.post("/score", json=content)
        assert response.status_code == 504
        assert response.json() == {"message": "not answered within 0.5 s"}
        check_headers(response, failed=True)
        assert await asyncio.to_thread(endless.left.wait, 30)
        assert (await client.post("/score", json=content)).status_code == 200

    converse(sam_only(request_timeout_s=0.5), conversation)


def test_the_work_of_a_client_that_has_gone_is_dropped(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real socket: closing it is how a client goes."""
    settings = sam_only()
    body = json.dumps(to_sam(row(boxes="[[10, 10, 90, 50]]"))).encode()

    async def run() -> None:
        app = create_app(settings)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, http="h11", log_config=None, log_level="warning", lifespan="on"))
        serving = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with asyncio.timeout(60), httpx.AsyncClient(base_url=url, timeout=60) as client:
            while not server.started:
                await asyncio.sleep(0.01)
            endless = Endless()
            with monkeypatch.context() as patched:
                patched.setattr(app.state.serving.scorer.engine.segmenter, "embed", endless)
                _, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
                writer.write(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
                assert await asyncio.to_thread(endless.entered.wait, 30)
                assert app.state.admission.inside == 1
                writer.close()
                assert await asyncio.to_thread(endless.left.wait, 30)
            assert (await client.post("/score", content=body)).status_code == 200
            assert app.state.admission.inside == 0
            server.should_exit = True
        await serving

    asyncio.run(run())
