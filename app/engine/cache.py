"""Embeddings kept for the next click, in memory under a byte budget; beneath it, if wanted, a DiskTier.

Knows nothing of HTTP, requests or networks. Keys are those of `app.engine.keys`.
An image that is asked for many times at once is embedded once.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import torch

from app.engine.disk_tier import DiskStats, DiskTier
from models.types import Embedding


def compact(embedding: Embedding) -> Embedding:
    """The same embedding with memory of its own, where it is a view of something larger, such as a batch.

    Values and strides stay. On CUDA the copy runs on the current stream and is finished on return.
    """
    features = embedding.features
    if features.untyped_storage().nbytes() <= features.nbytes:
        return embedding
    features = features.clone()
    if features.is_cuda:
        torch.cuda.current_stream(features.device).synchronize()
    return replace(embedding, features=features)


# In memory


@dataclass(frozen=True)
class CacheStats:
    """What an EmbeddingCache did since it was made, and holds now.

    hits: answered from memory. shared: joined an embedding already in the making. misses: all others, which asked the
    disk and then the model. evictions: entries dropped for the budget. entries, bytes: held now.
    """

    hits: int
    shared: int
    misses: int
    evictions: int
    entries: int
    bytes: int
    disk: DiskStats | None


@dataclass(eq=False)
class _Flight:
    """An embedding in the making, and how many wait for it."""

    task: asyncio.Task[Embedding]
    waiters: int = 0


class EmbeddingCache:
    """The embeddings used last, as many as fit. All calls are made in one event loop."""

    def __init__(self, budget_bytes: int, disk: DiskTier | None = None) -> None:
        """budget_bytes: of tensor memory; with 0 nothing is kept, but what is asked for twice at once is made once."""
        self.budget_bytes = budget_bytes
        self._disk = disk
        self._entries: OrderedDict[str, Embedding] = OrderedDict()  # used longest ago first
        self._bytes = 0
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[Embedding]] = set()  # the event loop alone would not keep them alive
        self._counts: Counter[str] = Counter()

    async def get(self, key: str, make: Callable[[], Awaitable[Embedding]]) -> Embedding:
        """The embedding of `key`: at once if it is in memory, else from disk, else from `make`.

        Those who ask for one key at the same time share one call of `make`, and whatever it raises; a failure is not
        kept. The call goes on when one of them is cancelled and is cancelled with the last, so it should not carry
        the deadline of one caller. What it returns must be finished: no kernel that writes it may still be queued.
        """
        embedding = self.peek(key)
        if embedding is not None:
            return embedding
        flight = self._flights.get(key)
        if flight is None or flight.task.done():
            self._counts["misses"] += 1
            flight = self._flights[key] = _Flight(asyncio.create_task(self._fetch(key, make)))
            self._tasks.add(flight.task)
            flight.task.add_done_callback(lambda _: self._landed(key, flight))
        else:
            self._counts["shared"] += 1
        flight.waiters += 1
        try:
            await asyncio.wait([flight.task])  # unlike awaiting the task, does not cancel it with the caller
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done():
                flight.task.cancel()
                del self._flights[key]  # who comes now starts anew, and does not join what is ending
        return flight.task.result()

    def peek(self, key: str) -> Embedding | None:
        """The embedding of `key` if it is in memory; it counts as used."""
        embedding = self._entries.get(key)
        if embedding is not None:
            self._entries.move_to_end(key)
            self._counts["hits"] += 1
        return embedding

    def clear(self) -> None:
        """Drop what is held in memory; the disk and what is in the making stay."""
        self._entries.clear()
        self._bytes = 0

    def stats(self) -> CacheStats:
        """What happened so far."""
        counts = {name: self._counts[name] for name in ("hits", "shared", "misses", "evictions")}
        disk = None if self._disk is None else self._disk.stats()
        return CacheStats(**counts, entries=len(self._entries), bytes=self._bytes, disk=disk)

    async def aclose(self) -> None:
        """Cancel what is in the making, then wait until the disk has what it was given."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._disk is not None:
            await self._disk.aclose()

    async def _fetch(self, key: str, make: Callable[[], Awaitable[Embedding]]) -> Embedding:
        embedding = None if self._disk is None else await self._disk.read(key)
        if embedding is None:
            embedding = compact(await make())
            if self._disk is not None:
                self._disk.write(key, embedding)
        self._keep(key, embedding)
        return embedding

    def _keep(self, key: str, embedding: Embedding) -> None:
        size = _memory(embedding)
        if size > self.budget_bytes:
            return
        replaced = self._entries.pop(key, None)
        self._bytes += size - (0 if replaced is None else _memory(replaced))
        self._entries[key] = embedding
        while self._bytes > self.budget_bytes:
            self._bytes -= _memory(self._entries.popitem(last=False)[1])
            self._counts["evictions"] += 1

    def _landed(self, key: str, flight: _Flight) -> None:
        self._tasks.discard(flight.task)
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.task.cancelled():
            flight.task.exception()  # else asyncio complains of it when nobody waited to the end


def _memory(embedding: Embedding) -> int:
    return embedding.features.untyped_storage().nbytes()
