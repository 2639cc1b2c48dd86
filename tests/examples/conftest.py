"""What the examples ask: a service with the demo weights, a server that does what a test tells it; and a photo."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.demo.scenes import render_scene
from tests.app.conftest import Service, serving

DEMO_WEIGHTS = Path(__file__).parents[2] / "weights" / "demo"
# What a scripted server may do other than answer.
CLOSE, HANG = "close", "hang"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(DEMO_WEIGHTS / "yolof"),
        "BOX2MASK_SEGMENTER": str(DEMO_WEIGHTS / "sam"),
        "BOX2MASK_IMAGE_URLS": "any",  # the tests' own are on this machine
    }
    with serving(tmp_path_factory.mktemp("service") / "service.log", settings) as started:
        yield started


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn, 480 x 360, with three things in it."""
    path = tmp_path_factory.mktemp("examples") / "photo.jpg"
    Image.fromarray(render_scene(np.random.default_rng(3), (360, 480), containers=(3, 3)).image).save(path, quality=95)
    return path


@dataclass
class Scripted:
    """A server that answers by its script; its last line goes on for ever. came: when, with what headers, and body.

    described: what GET is answered with in place of the script.
    """

    script: list[Any]
    url: str = ""
    described: Any = None
    came: list[tuple[float, Any, dict[str, Any]]] = field(default_factory=list)


@contextmanager
def scripted(*script: Any) -> Iterator[Scripted]:
    """Lines of a script: CLOSE the connection, HANG, or answer (status, headers, content)."""
    server = Scripted(list(script))
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.came.append((time.monotonic(), self.headers, body))
            line = server.script.pop(0) if len(server.script) > 1 else server.script[0]
            self.close_connection = True
            if line == HANG:
                over.wait()
            elif line != CLOSE:
                self.answer(*line)

        def do_GET(self) -> None:
            self.answer(*((200, {}, server.described) if server.described else server.script[0]))

        def answer(self, status: int, headers: dict[str, str], content: Any) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            over.set()
            http.shutdown()
            thread.join()
