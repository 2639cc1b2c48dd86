"""Serves the playground: the files in this folder, read once, with headers that let a browser load nothing else.

Knows nothing of models. The page itself talks to the same routes as every other client.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from app.errors import NotFound

FOLDER = Path(__file__).parent
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
# Nothing from elsewhere, nothing inline; blob: and data: are photos that the page was given and masks that it draws.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
_HOME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>box2mask</title>
<link rel="icon" href="playground/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="playground/style.css">
<script src="playground/theme.js"></script>
<main class="home">
<img src="playground/icon.svg" alt="" width="48" height="48">
<h1>box2mask</h1>
<p class="quiet">Healthy.</p>
<p><a class="button primary" href="playground">Try the models</a> <a class="button" href="docs">How to call them</a></p>
</main>
</html>
"""


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


def routes() -> list[Route]:
    """`/playground`, `/playground/`, and each of its files below; there is no other path that reads a file."""
    files = {
        path.relative_to(FOLDER).as_posix(): _File(path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }
    page = files.pop("index.html")
    # The page names its files as they lie beside it; from the path without a slash they are one level further down.
    beside = _File(re.sub(rb'(href|src)="\./', rb'\1="playground/', page.content), page.media_type)

    async def get(http: Request) -> Response:
        name = http.path_params["name"]
        file = page if not name else files.get(name)
        if file is None:
            raise NotFound(f"there is nothing at {http.url.path}")
        return _answer(http, file)

    async def get_page(http: Request) -> Response:
        return _answer(http, beside)

    return [Route("/playground", get_page, methods=["GET"]), Route("/playground/{name:path}", get, methods=["GET"])]


def home(http: Request) -> Response:
    """What `/` says: `Healthy` to probes, to somebody with a browser where to go from here as well."""
    # Browsers name HTML first; probes name nothing, or */*.
    first = http.headers.get("accept", "").partition(",")[0].partition(";")[0].strip().lower()
    response = HTMLResponse(_HOME, headers=HEADERS) if first == "text/html" else PlainTextResponse("Healthy")
    response.headers["vary"] = "accept"
    return response


def _answer(http: Request, file: _File) -> Response:
    headers = {**HEADERS, "etag": file.tag}
    if file.tag in http.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
