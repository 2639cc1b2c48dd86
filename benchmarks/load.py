"""Clients of a service: one that clicks, one that keeps it busy behind the clicks, and many that saturate it.

They share the processors with the service, so bodies are made beforehand and little else is done.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

import httpx

from benchmarks.service import TIMEOUT_S, Service, ServiceFailed


@dataclass(frozen=True)
class Load:
    """What saturating clients saw. client_share: of one core, by the clients themselves."""

    requests: int
    seconds: float
    client_share: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def click(service: Service, path: str, body: bytes, count: int, pause_s: float = 0.0) -> list[float]:
    """The latencies, in seconds, of `count` requests one after the other; a pause is what its user takes to look."""
    latencies = []
    for _ in range(count):
        began = time.perf_counter()
        service.post(path, body)
        latencies.append(time.perf_counter() - began)
        time.sleep(pause_s)
    return latencies


class Busy:
    """While in this context a client posts one body after the other, in a thread; `seconds` has how long each took."""

    def __init__(self, service: Service, path: str, bodies: Iterable[bytes]) -> None:
        self.seconds: list[float] = []
        self._url = f"{service.url}{path}"
        self._bodies = iter(bodies)
        self._leave = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._post_all)

    def __enter__(self) -> Busy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _post_all(self) -> None:
        try:
            with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
                while not self._leave.is_set():
                    began = time.perf_counter()
                    _check(client.post(self._url, content=next(self._bodies)))
                    self.seconds.append(time.perf_counter() - began)
        except (ServiceFailed, httpx.HTTPError) as error:
            self._failure = error


def saturate(service: Service, path: str, bodies: Sequence[bytes], clients: int) -> Load:
    """Post all bodies from so many clients, each with a connection that it keeps."""
    began, began_cpu = time.perf_counter(), time.process_time()
    asyncio.run(_post_all(f"{service.url}{path}", bodies, clients))
    seconds = time.perf_counter() - began
    return Load(len(bodies), seconds, (time.process_time() - began_cpu) / seconds)


async def _post_all(url: str, bodies: Sequence[bytes], clients: int) -> None:
    waiting = iter(bodies)

    async def one_client(client: httpx.AsyncClient) -> None:
        for body in waiting:
            _check(await client.post(url, content=body))

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(one_client(client) for _ in range(clients)))


def _check(response: httpx.Response) -> None:
    if response.status_code != 200:
        raise ServiceFailed(f"{response.url.path}: {response.status_code} {response.text[:500]}")
