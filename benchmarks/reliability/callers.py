"""Clients that do as they should, and clients that do not: slow ones, silent ones, and ones that vanish."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

from models.demo.scenes import render_scene

COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
# Who has waited so long for an answer that should be there at once hangs.
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Reply:
    """status: 0 where the connection broke without an answer, -1 where the caller hung. content: the answer's JSON."""

    status: int
    seconds: float
    content: Any = None

    @property
    def message(self) -> str:
        return self.content.get("message", "") if isinstance(self.content, dict) else ""


def picture(seed: int, size_hw: tuple[int, int] = (120, 160)) -> str:
    """A drawn scene as a PNG, in base64."""
    buffer = io.BytesIO()
    Image.fromarray(render_scene(np.random.default_rng(seed), size_hw).image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def click(image: str, boxes: int = 1, **params: Any) -> bytes:
    """A request for the masks of some boxes in the image."""
    prompts = [[10 + one % 40, 8 + one % 40, 60 + one % 40, 50 + one % 40] for one in range(boxes)]
    return body(COLUMNS, [[image, None, prompts, None, False]], params)


def body(columns: list[str], data: list[Any], params: dict[str, Any] | None = None) -> bytes:
    return json.dumps({"input_data": {"columns": columns, "data": data}, "params": params or {}}).encode()


def ask(url: str, content: bytes, path: str = "/score", patience_s: float = PATIENCE_S) -> Reply:
    """One request on a connection of its own."""
    began = time.monotonic()
    try:
        answer = httpx.post(f"{url}{path}", content=content, timeout=patience_s, trust_env=False)
        try:
            told = answer.json()
        except ValueError:
            told = answer.text
        return Reply(answer.status_code, time.monotonic() - began, told)
    except httpx.TimeoutException:
        return Reply(-1, time.monotonic() - began)
    except httpx.TransportError:
        return Reply(0, time.monotonic() - began)


class Asking:
    """Requests on their way, all at once; `replies` waits for them."""

    def __init__(self, url: str, contents: Sequence[bytes], path: str = "/score") -> None:
        self._pool = ThreadPoolExecutor(len(contents))
        self._futures = [self._pool.submit(ask, url, content, path) for content in contents]

    def replies(self) -> list[Reply]:
        replies = [future.result() for future in self._futures]
        self._pool.shutdown()
        return replies


def statuses(replies: Sequence[Reply]) -> dict[int, int]:
    return dict(Counter(reply.status for reply in replies))


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", port))
    return client


def head(length: int, path: str = "/score") -> bytes:
    """What comes before a body of so many bytes."""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


def rest(client: socket.socket) -> bytes:
    """All that still comes until the service closes the connection; b"" too where it is reset."""
    received = bytearray()
    try:
        while chunk := client.recv(2**16):
            received += chunk
    except ConnectionError:
        pass
    return bytes(received)
