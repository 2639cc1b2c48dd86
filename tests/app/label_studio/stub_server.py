"""A small stand-in for Label Studio: tokens, uploaded files, and addresses that it resolves by redirecting."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


def jwt(**claims: object) -> str:
    parts = ({"alg": "HS256"}, claims, "signature")
    return ".".join(base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts)


PERSONAL = jwt(token_type="refresh", jti="1")


class StubStudio(ThreadingHTTPServer):
    """files: by path, such as /data/upload/1/a.png. resolved: what an address such as s3://b/a.png redirects to.

    waiting: counts the requests for slow.png, which wait until `release`. access: the tokens; the last one counts.
    asked: the path and the `Authorization` of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, bytes] = {}
        self.resolved: dict[str, str] = {}
        self.legacy: str | None = None
        self.access: list[str] = []
        self.asked: list[tuple[str, str | None]] = []
        self.lasts_s = 300.0
        self.refuses_tokens = False
        self.is_open = False
        self.release = threading.Event()
        self.waiting = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: StubStudio

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, self.headers.get("authorization")))
        if self.path != "/api/token/refresh/" or body != {"refresh": PERSONAL} or self.server.refuses_tokens:
            self._answer(401, b"{}", "application/json")
            return
        self.server.access.append(jwt(exp=time.time() + self.server.lasts_s, jti=str(len(self.server.access))))
        self._answer(200, json.dumps({"access": self.server.access[-1]}).encode(), "application/json")

    def do_GET(self) -> None:
        authorization = self.headers.get("authorization")
        self.server.asked.append((self.path, authorization))
        allowed = {f"Bearer {self.server.access[-1]}"} if self.server.access else set()
        if not self.server.is_open and authorization not in allowed | {f"Token {self.server.legacy}"}:
            self._answer(401, b"", "application/json")
            return
        parts = urlsplit(self.path)
        if parts.path.endswith("/presign/"):
            address = base64.urlsafe_b64decode(parse_qs(parts.query)["fileuri"][0]).decode()
            self.send_response(303)
            self.send_header("location", self.server.resolved[address])
            self.send_header("content-length", "0")
            self.end_headers()
        elif parts.path == "/data/upload/1/slow.png":
            self.server.waiting.release()
            self.server.release.wait(60)
            self._answer(404, b"", "text/plain")
        elif self.path in self.server.files:
            self._answer(200, self.server.files[self.path], "image/png")
        else:
            self._answer(404, b"", "text/html")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def stub_studio() -> Iterator[StubStudio]:
    with StubStudio() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
