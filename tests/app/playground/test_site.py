"""The playground's files and headers, and what is at `/`, without a browser."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "app" / "playground"


@pytest.fixture(scope="module")
def http(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def test_the_playground_is_served_with_headers_that_keep_all_else_out(http: httpx.Client) -> None:
    page = http.get("/playground")
    policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:" and policy["frame-ancestors"] == "'none'"
    assert page.headers["x-content-type-options"] == "nosniff" and page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    for path in FOLDER.rglob("*"):
        if path.suffix in (".js", ".css", ".svg", ".jpg"):
            answer = http.get(f"/playground/{path.relative_to(FOLDER).as_posix()}")
            assert answer.status_code == 200 and answer.content == path.read_bytes()
            assert answer.headers["content-security-policy"] == page.headers["content-security-policy"]
    tag = {"if-none-match": page.headers["etag"]}
    assert (http.get("/playground", headers=tag).status_code, http.get("/playground/", headers=tag).status_code) == (
        304,
        200,
    )
    for missing in ("site.py", "__init__.py", "../main.py", "%2e%2e/main.py", "samples", "none.js", "index.html/"):
        answer = http.get(f"/playground/{missing}")
        assert answer.status_code == 404 and "message" in answer.json()


@pytest.mark.parametrize("path", ["/playground", "/playground/"])
def test_the_pages_files_are_found_from_either_path(http: httpx.Client, path: str) -> None:
    text = http.get(path).text
    found = re.findall(r'(?:href|src)="([^"#]+)"', text)
    assert len(found) > 6
    for name in found:
        assert http.get(httpx.URL(f"http://x{path}").join(name).path).status_code == 200, name
    assert "http://" not in text and "style=" not in text and "onclick" not in text


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (None, False),
        ("*/*", False),
        ("", False),
        ("text/plain", False),
        ("application/json, text/html", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
    ],
)
def test_browsers_are_shown_the_way_and_probes_are_told_healthy(
    http: httpx.Client, accept: str | None, is_page: bool
) -> None:
    headers = {} if accept is None else {"accept": accept}
    request = http.build_request("GET", "/", headers=headers)
    if accept is None:
        del request.headers["accept"]
    answer = http.send(request)
    assert answer.status_code == 200 and answer.headers["vary"] == "accept"
    if is_page:
        assert 'href="playground"' in answer.text and "content-security-policy" in answer.headers
    else:
        assert answer.text == "Healthy" and answer.headers["content-type"].startswith("text/plain")


def test_the_playground_can_be_left_out() -> None:
    detector = REPOSITORY / "weights" / "demo" / "yolof"  # not loaded, as nothing here asks for it
    app = create_app(Settings(detector=str(detector), segmenter="none", playground=False))

    async def conversation() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            for path in ("/playground", "/playground/", "/playground/main.js"):
                assert (await client.get(path)).status_code == 404
            assert (await client.get("/", headers={"accept": "text/html"})).text == "Healthy"

    asyncio.run(conversation())


def test_the_package_has_every_file_of_the_page() -> None:
    patterns = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in patterns["app.playground"] for path in FOLDER.glob(pattern)}
    there = {path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert packed == there and len(there) > 20
