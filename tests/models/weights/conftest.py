"""A model to pull, in a manifest of the tests' own, and a real HTTP server on loopback that misbehaves on demand."""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from models import weights
from models.weights import find_places, places

CONFIG = b'{"model_type": "sam"}\n'
_HEADER = b'{"a": {"dtype": "U8", "shape": [1500000], "data_offsets": [0, 1500000]}}'
TENSORS = len(_HEADER).to_bytes(8, "little") + _HEADER + random.Random(0).randbytes(1_500_000)
HALF = len(TENSORS) // 2
TENSORS_SHA256 = hashlib.sha256(TENSORS).hexdigest()


@dataclass
class Fault:
    """What to do wrong with one request for the tensors; the byte counts are of what is sent then."""

    status: int = 0
    cut_after: int | None = None
    stall_after: int | None = None
    body: bytes | None = None


@dataclass
class Seen:
    """One request for the tensors, and how many bytes of body it was answered with."""

    range: str | None
    if_range: str | None
    sent: int = 0


@dataclass
class Behaviour:
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    etag: str = '"first"'
    ranges: bool = True
    linked_etag: str | None = None  # answer with a redirect that carries this, as Hugging Face does
    missing: bool = False
    storage: str = ""  # the host that the redirect leads to, "" for the same
    refuse: int = 0  # with this status, whoever asks
    tokens: list[tuple[str, str | None]] = field(default_factory=list)  # of each request its path and Authorization
    release: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behaviour: Behaviour  # set on the subclass that each test gets

    def do_GET(self) -> None:
        rules = self.behaviour
        rules.tokens.append((self.path, self.headers["Authorization"]))
        if rules.refuse:
            self.answer(rules.refuse, b"")
        elif self.path.endswith("config.json"):
            self.answer(200, CONFIG)
        elif rules.missing:
            self.answer(404, b"")
        elif rules.linked_etag and not self.path.startswith("/storage"):
            linked = {"X-Linked-Etag": f'"{rules.linked_etag}"', "X-Linked-Size": str(len(TENSORS))}
            self.answer(302, b"", {"Location": f"{rules.storage}/storage{self.path}", **linked})
        else:
            self.tensors()

    def tensors(self) -> None:
        rules = self.behaviour
        seen = Seen(self.headers["Range"], self.headers["If-Range"])
        rules.seen.append(seen)
        fault = rules.faults.pop(0) if rules.faults else Fault()
        body = TENSORS if fault.body is None else fault.body
        if fault.status:
            return self.answer(fault.status, b"")
        status, start, extra = 200, 0, {"ETag": rules.etag}
        if rules.ranges and seen.range and seen.if_range in (None, rules.etag):
            status, start = 206, int(seen.range.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.answer(status, b"", extra, length=len(body) - start)
        more = fault.cut_after or fault.stall_after
        end = start + more if more else None
        seen.sent = self.wfile.write(body[start:end])
        self.wfile.flush()
        if fault.stall_after:
            rules.release.wait()
        self.close_connection = end is not None

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def rules() -> Behaviour:
    return Behaviour()


@pytest.fixture
def mirror(rules: Behaviour) -> Iterator[str]:
    """The URL of a server over the files of the model `tiny`, which follows `rules`."""
    handler = type("TestHandler", (Handler,), {"behaviour": rules})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        rules.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def manifest(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest with one model, `tiny`, and a tracked one, in the weights directory of a checkout."""
    path = tmp_path / "weights" / "manifest.json"
    config = {"name": "config.json", "url": f"{mirror}/tiny/config.json"}
    tensors = {
        "name": "model.safetensors",
        "url": f"{mirror}/tiny/model.safetensors",
        "size": len(TENSORS),
        "sha256": TENSORS_SHA256,
    }
    tiny = {"what": "a test model", "folder": "tiny", "files": [config, tensors]}
    shipped = {"what": "comes along", "folder": "demo/shipped", "tracked": True}
    path.parent.mkdir()
    path.write_text(json.dumps({"models": {"tiny": tiny, "shipped": shipped}}))
    monkeypatch.setattr(places, "CHECKOUT", path.parent)
    monkeypatch.setenv("NO_PROXY", "*")
    return path


@pytest.fixture
def root(manifest: Path) -> Path:
    """That weights directory."""
    return manifest.parent


@pytest.fixture
def waits() -> list[float]:
    """The waits between attempts, which take no time."""
    return []


def pull(root: Path, waits: list[float], source: str | None = None) -> Path:
    return weights.pull("tiny", find_places(), source, progress=False, sleep=waits.append)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


COMPLETE = {"config.json", "model.safetensors", "SHA256SUMS"}
