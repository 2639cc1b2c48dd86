"""A service that is stopping, has stopped computing or meets a fault of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.settings import Settings
from tests.app.scoring_requests import (
    check_headers,
    converse,
    row,
    to_sam,
)


def test_a_service_that_is_stopping_refuses_new_requests(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        app.state.stopping = True
        response = await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))
        assert response.status_code == 503
        assert response.json() == {"message": "this service is stopping"}
        assert response.headers["connection"] == "close"
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200

    converse(sam_only(), conversation)


def test_a_device_that_has_stopped_computing_is_told_by_the_probes(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        assert (await client.get("/health/ready")).status_code == 200
        app.state.serving.scorer.engine._devices[0].compute.close()
        for path in ("/health/ready", "/health/live", "/"):
            probe = await client.get(path)
            assert (probe.status_code, probe.text) == (503, "a device has stopped computing")
        response = await client.post("/score", json=to_sam(row(boxes="[[10, 10, 90, 50]]")))
        assert response.status_code == 503
        assert response.json() == {"message": "the compute thread has ended"}

    converse(sam_only(), conversation)


def test_a_fault_of_the_servers_is_a_500_that_tells_only_the_log(
    sam_only: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(samples: Any, between: Any) -> Any:
        raise RuntimeError("the secret of /models/sam")

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        content = to_sam(row(boxes="[[10, 10, 90, 50]]"))
        with monkeypatch.context() as patched:
            patched.setattr(app.state.serving.scorer.engine.segmenter, "embed", broken)
            response = await client.post("/score", json=content, headers={"x-request-id": "mine-1"})
        assert response.status_code == 500
        assert response.json() == {"message": "internal error; the server's log has it as request mine-1"}
        check_headers(response, failed=True)
        assert (await client.post("/score", json=content)).status_code == 200

    with caplog.at_level(logging.ERROR, logger="box2mask"):
        converse(sam_only(), conversation)
    assert "request mine-1 failed" in caplog.text and "the secret of /models/sam" in caplog.text
