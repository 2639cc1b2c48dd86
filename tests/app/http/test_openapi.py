"""The service's description is well formed in each of its three forms, and tells of what there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from app.contract import schemas
from app.http import openapi
from app.main import create_app
from app.settings import Settings
from models.segmenter.grid import Grid

# Of FastAPI's own routes, the description itself, and a page for people.
UNDESCRIBED = {"/openapi.json", "/swagger.json", "/docs", "/docs/oauth2-redirect", "/playground"}
UNDESCRIBED |= {"/playground/{name:path}"}
STATUSES = {"200", "400", "401", "404", "408", "410", "413", "415", "429", "500", "503", "504"}


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    elif isinstance(node, list):
        for item in node:
            yield from nodes(item)


def resolved(document: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/")
    node: Any = document
    for part in reference[2:].split("/"):
        node = node[part]
    return node


@pytest.fixture(params=openapi.VERSIONS)
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    return openapi.document("1.2.3", request.param)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert len(references) > 10
    for reference in references:
        assert isinstance(resolved(document, reference), dict)


def test_the_versions_differ_where_their_specifications_do() -> None:
    old, middle, new = (openapi.document("1.2.3", version) for version in openapi.VERSIONS)
    assert (old["swagger"], middle["openapi"], new["openapi"]) == ("2.0", "3.0.3", "3.1.0")
    assert "definitions" in old and "components" not in old
    assert all("content" not in node and "requestBody" not in node for node in nodes(old["paths"]))
    assert old["paths"]["/score"]["post"]["parameters"][0]["in"] == "body"
    assert middle | {"openapi": "3.1.0"} == new
    assert "parameters" not in new["paths"]["/score"]["post"]


def test_every_route_is_described_and_no_other(document: dict[str, Any]) -> None:
    folder = Path(__file__).parents[3] / "weights" / "demo" / "yolof"  # not loaded before the application starts
    app = create_app(Settings(detector=str(folder), segmenter="none"))
    served = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route) and route.path not in UNDESCRIBED
        for method in route.methods or ()
        if method != "HEAD"
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == served


def test_every_operation_says_what_may_come(document: dict[str, Any]) -> None:
    assert document["info"]["version"] == "1.2.3"
    scoring = [methods["post"] for path, methods in document["paths"].items() if path.endswith("/score")]
    assert len({operation["operationId"] for operation in scoring}) == len(scoring) == 4
    for operation in scoring:
        assert set(operation["responses"]) == STATUSES
        assert all(response["description"] for response in operation["responses"].values())


def test_the_params_described_are_those_that_are_read() -> None:
    described = openapi.document("1.2.3")["components"]["schemas"]["Request"]["properties"]["params"]["properties"]
    read = {field.name for field in (*fields(schemas.Params), *fields(Grid))} - {"everything", "tiling"}
    assert set(described) == read | {"tiles", "tile_overlap", "tile_merge"}
    for name, schema in described.items():
        for value in schema.get("enum", ()):
            schemas.parse_params({name: value})
        for bound in (schema[key] for key in ("minimum", "maximum") if key in schema):
            schemas.parse_params({name: bound})
        with pytest.raises(schemas.BadRequest, match=f"^params.{name}: "):
            schemas.parse_params({name: {}})


def test_the_examples_are_requests_that_the_service_takes() -> None:
    paths = openapi.document("1.2.3")["paths"]
    examples = {
        path: methods["post"]["requestBody"]["content"]["application/json"]["example"]
        for path, methods in paths.items()
        if path.endswith("/score")
    }
    parsed = {path: schemas.parse_request(json.dumps(one).encode(), 1) for path, one in examples.items()}
    for path, request in parsed.items():
        assert request.has_prompts == (path in ("/score", "/sam/score"))
        rows = schemas.segmenter_rows(request, 1) if request.has_prompts else schemas.detector_rows(request)
        assert len(rows) == 1
