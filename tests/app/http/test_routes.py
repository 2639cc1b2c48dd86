"""The routes over HTTP: their headers, what they say of the service, and which are there."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.settings import Settings
from tests.app.scoring_requests import (
    PICTURE,
    check_headers,
    converse,
    row,
    to_sam,
    to_yolof,
)

pytestmark = pytest.mark.any_dtype


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/score", to_yolof(PICTURE), 200),
        ("POST", "/score", {}, 400),
        ("POST", "/nowhere", {}, 404),
        ("GET", "/score", None, 405),
        ("GET", "/", None, 200),
    ],
)
def test_every_answer_has_the_scoring_servers_headers(
    http: httpx.Client, method: str, path: str, content: Any, status: int
) -> None:
    response = http.request(method, path, json=content)
    assert response.status_code == status
    check_headers(response)
    uuid.UUID(response.headers["x-request-id"])
    assert "x-ms-client-request-id" not in response.headers

    named = {"x-request-id": "mine-1", "x-ms-client-request-id": "Their_2"}
    response = http.request(method, path, json=content, headers=named)
    check_headers(response)
    assert {name: response.headers[name] for name in named} == named


def test_identifiers_that_could_do_harm_are_not_echoed(http: httpx.Client) -> None:
    response = http.get("/", headers={"x-request-id": "two words", "x-ms-client-request-id": "a;b"})
    uuid.UUID(response.headers["x-request-id"])
    assert "x-ms-client-request-id" not in response.headers
    longest, too_long = "c" * 40, "c" * 41
    assert http.get("/", headers={"x-ms-client-request-id": longest}).headers["x-ms-client-request-id"] == longest
    assert "x-ms-client-request-id" not in http.get("/", headers={"x-ms-client-request-id": too_long}).headers


@pytest.mark.parametrize(("path", "text"), [("/", "Healthy"), ("/health/live", "Healthy"), ("/health/ready", "Ready")])
def test_probes_are_answered(http: httpx.Client, path: str, text: str) -> None:
    response = http.get(path)
    assert (response.status_code, response.text) == (200, text)
    response = http.head(path)
    assert (response.status_code, response.content) == (200, b"")


def test_version_says_what_is_served(http: httpx.Client) -> None:
    said = http.get("/version").json()
    assert said["detector"]["classes"] == ["can", "carton", "milk_bottle", "water_bottle"]
    assert min(said["detector"]["input_scale"]) > 0 and said["detector"]["channel_order"] == "bgr"
    assert said["segmenter"]["image_size"] == 128
    for model in ("detector", "segmenter"):
        assert said[model]["name"] == model and said[model]["demo_weights"] is False
        assert said[model]["device"] == "cpu" and said[model]["fast"] is True
        assert said[model]["dtype"] == os.environ["BOX2MASK_DTYPE"]
        assert re.fullmatch("[0-9a-f]{64}", said[model]["sha256"])
    assert said["max_prompts"] == 1024
    assert said["demo_weights"] is False and said["response_schema"] == "card"
    assert {"torch", "mmdet", "transformers"} <= set(said["packages"])


def test_the_service_describes_itself(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert http.get("/swagger.json").json() == http.get("/swagger.json?version=2").json()
    assert http.get("/swagger.json?version=2").json()["swagger"] == "2.0"
    assert http.get("/swagger.json?version=3").json()["openapi"] == "3.0.3"
    assert http.get("/swagger.json?version=3.1").json()["openapi"] == "3.1.0"
    response = http.get("/swagger.json?version=4")
    assert response.status_code == 404
    assert response.json() == {"message": "version: expected 2 or 3 or 3.1, got '4'"}
    assert "swagger-ui" in http.get("/docs").text


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/nowhere", 404, "there is nothing at /nowhere"),
        ("POST", "/score/", 404, "there is nothing at /score/"),
        ("GET", "/score", 405, "/score does not answer GET"),
        ("PUT", "/pipeline/score", 405, "/pipeline/score does not answer PUT"),
        ("PUT", "/", 405, "/ does not answer PUT"),
    ],
)
def test_the_routers_errors_have_the_same_form(
    http: httpx.Client, method: str, path: str, status: int, message: str
) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.json()) == (status, {"message": message})
    assert (status == 405) == ("allow" in response.headers)


@pytest.mark.parametrize(
    ("served", "missing", "purpose"),
    [
        ("segmenter", "detector", "requests with only images"),
        ("detector", "segmenter", "requests with points and boxes"),
    ],
)
def test_a_service_with_one_model_says_so_on_the_others_routes(
    model_folders: Any, served: str, missing: str, purpose: str
) -> None:
    own, other = to_sam(row(boxes="[[10, 10, 90, 50]]")), to_yolof(PICTURE)
    own_route, other_route = "/sam/score", "/yolof/score"
    if served == "detector":
        own, other, own_route, other_route = other, own, other_route, own_route

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        for path in ("/score", own_route):
            assert (await client.post(path, json=own)).status_code == 200
        for path, content in (("/score", other), (other_route, other), ("/pipeline/score", to_yolof(PICTURE))):
            response = await client.post(path, json=content)
            assert response.status_code == 404
            assert response.json() == {
                "message": f"this service has no {missing}, which answers {purpose}: "
                f"start it with BOX2MASK_{missing.upper()}"
            }
            check_headers(response)
        said = (await client.get("/version")).json()
        assert said[missing] is None and said[served]["name"] == served

    folders = {"detector": "none", "segmenter": "none"} | {served: str(getattr(model_folders, served))}
    converse(Settings(**folders, device="cpu"), conversation)


def test_the_live_form_can_be_the_services_default(sam_only: Callable[..., Settings]) -> None:
    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        one = row(boxes="[[10, 10, 90, 50]]")
        (live,) = (await client.post("/score", json=to_sam(one))).json()
        (card,) = (await client.post("/score", json=to_sam(one, response_schema="card"))).json()
        masks = card["predictions"][0]["mask_per_prediction"]
        assert live == {"response": {"predictions": [{"masks_per_prediction": masks}]}}
        assert (await client.get("/version")).json()["response_schema"] == "live"

    converse(sam_only(response_schema="live"), conversation)
