"""Clients that click: each on a photo of its own, one click after the other, over HTTP; and what became of each."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from PIL import Image

from benchmarks.sleeping_models import iou_score_of, photo

_COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
RIGHT, WRONG, LATER, LOST = "right", "wrong", "told to come again", "lost"


@dataclass
class Outcomes:
    """What became of clicks. at: when each was answered, by `time.monotonic()`, with its outcome. lost: how."""

    at: list[tuple[float, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        return Counter(outcome for _, outcome in self.at)

    def longest_silence(self, began: float, ended: float) -> float:
        """The longest time between `began` and `ended` in which no click was answered right, in seconds."""
        times = [began, *(at for at, outcome in self.at if outcome == RIGHT and began < at < ended), ended]
        return max(b - a for a, b in zip(times, times[1:], strict=False))


class Clicks:
    """Makes requests, and tells whether they were answered right."""

    def __init__(self, url: str, size_hw: tuple[int, int] = (8, 8), key: str = "") -> None:
        self.outcomes = Outcomes()
        self._size_hw = size_hw
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self.client = httpx.AsyncClient(base_url=url, timeout=120, limits=limits, headers=headers)

    def body(self, number: int, x: int, y: int, image: str | None = None) -> dict[str, object]:
        """A click on photo `number`. image: what names it; None: the file itself."""
        image = encoded(number, self._size_hw) if image is None else image
        return {"input_data": {"columns": _COLUMNS, "data": [[image, [[[x, y]]], None, [[1]], False]]}}

    async def click(self, number: int, x: int, y: int, image: str | None = None) -> str:
        """One click; its outcome is noted, and returned."""
        return await self.send(json.dumps(self.body(number, x, y, image)).encode(), number, x, y)

    async def send(self, body: bytes, number: int, x: int, y: int) -> str:
        """The same of a request that is made already."""
        began = time.monotonic()
        try:
            headers = {"content-type": "application/json"}
            response = await self.client.post("/sam/score", content=body, headers=headers)
        except httpx.HTTPError as error:
            return self.note(began, LOST, repr(error))
        if response.status_code in (429, 503) and "retry-after" in response.headers:
            return self.note(began, LATER)
        if response.status_code != 200:
            return self.note(began, LOST, f"{response.status_code} {response.text[:200]}")
        return self.note(began, _checked(response.content, number, x, y))

    def note(self, began: float, outcome: str, how: str = "") -> str:
        """What became of a click that began then."""
        now = time.monotonic()
        self.outcomes.at.append((now, outcome))
        self.outcomes.seconds.append(now - began)
        if how:
            self.outcomes.lost.append(how)
        return outcome

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Sends what is made already, at a tenth of the CPU time of `send`, which the service would lack."""
        reader, writer = await asyncio.open_connection(self.client.base_url.host, self.client.base_url.port)
        try:
            yield Connection(reader, writer, self)
        finally:
            writer.close()
            await writer.wait_closed()

    @asynccontextmanager
    async def all_the_while(self, numbers: Sequence[int]) -> AsyncIterator[None]:
        """Within it, a client for each of these photos clicks on it without a pause; at its end all are answered."""
        over = asyncio.Event()

        async def one(number: int) -> None:
            turn = 0
            while not over.is_set():
                turn += 1
                if await self.click(number, turn % 8, number % 8) != RIGHT:
                    await asyncio.sleep(0.2)  # as a client would that is told to come again

        clients = [asyncio.create_task(one(number)) for number in numbers]
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*clients)


class Connection:
    """One connection, on which requests follow one another; they are noted among those of its Clicks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clicks: Clicks) -> None:
        self._reader = reader
        self._writer = writer
        self._clicks = clicks

    async def send(self, request: bytes, number: int, x: int, y: int) -> str:
        """A click as `request_of` has it; its outcome is noted, and returned."""
        began = time.monotonic()
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        content = await self._reader.readexactly(length)
        if head.split(b" ", 2)[1] != b"200":
            return self._clicks.note(began, LOST, repr(content[:200]))
        return self._clicks.note(began, _checked(content, number, x, y))


def request_of(body: bytes) -> bytes:
    """A click's whole request, for `Connection.send`."""
    head = f"POST /sam/score HTTP/1.1\r\nhost: service\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _checked(answer: bytes, number: int, x: int, y: int) -> str:
    found = json.loads(answer)[0]["predictions"][0]["mask_per_prediction"][0]["iou_score"]
    return RIGHT if abs(found - iou_score_of(number, x, y)) < 1e-4 else WRONG


def encoded(number: int, size_hw: tuple[int, int]) -> str:
    """A photo's PNG file as base64."""
    return base64.b64encode(file_of(number, size_hw)).decode()


def file_of(number: int, size_hw: tuple[int, int]) -> bytes:
    """A photo's PNG file."""
    file = io.BytesIO()
    Image.fromarray(photo(number, size_hw)).save(file, "PNG", compress_level=0)
    return file.getvalue()
