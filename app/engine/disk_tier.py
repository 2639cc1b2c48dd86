"""Embeddings in files that survive a restart, any of which may be damaged or vanish at any time without harm.

DiskTier    the files in a folder, under a byte budget
model_key   the hash of a model's files, and numbers -> what keeps its embeddings apart from another's
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch

from models.types import Embedding

log = logging.getLogger("box2mask")

# Embeddings that may wait to be written; each holds its memory beside the cache's budget.
WRITES_WAITING = 8
# A temporary file is there for milliseconds; one of this age was left by a process that was killed.
LEFTOVER_AFTER_S = 60.0
# Other processes' files are counted again after each such part of the budget written; eviction also frees that much,
# so that a full folder is not listed for every file.
SLACK = 16

_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_TEMPORARY_NAME = re.compile(r"\.embedding-\w+\.tmp")
# Part of every name: a file of another format is never looked for.
_FORMAT = "box2mask embedding 1"
_CHECKSUM = b'"sha256":"'  # in the JSON of safetensors' header; quotes within a value are escaped there
_BLANK = b"0" * 64


@dataclass(frozen=True)
class DiskStats:
    """What a DiskTier did since it was made.

    hits, misses: reads. writes; dropped: writes left out because too many waited. evictions: files deleted for the
    budget. damaged: files that failed their checksum, deleted. failures: errors of the file system.
    bytes: of the folder's embeddings, as last counted plus what was written since.
    """

    hits: int
    misses: int
    writes: int
    dropped: int
    evictions: int
    damaged: int
    failures: int
    bytes: int


class DiskTier:
    """Embeddings in a folder, one safetensors file each; deletes those used longest ago to stay within its budget.

    Processes may share the folder. A file is written beside its place and then moved there, so it is whole or absent;
    it is not synced, because a checksum over the whole file and its name tells on loading whether the disk kept it.
    Whatever fails that test is deleted and counts as a miss, and so does every error of the file system, which is
    logged once per kind. Other things in the folder are left alone.

    Use is noted in the files' modification times when they are read or written; a hit in memory leaves none.

    The checksum guards against accidents. Whoever may write to the folder could replace embeddings knowingly, so it is
    made for its owner alone; an existing one is left with the rights it has.
    """

    def __init__(self, folder: Path, budget_bytes: int, model_key: str, device: str | torch.device = "cpu") -> None:
        """model_key: from `model_key()`. device: where the tensors that are read go."""
        self.budget_bytes = budget_bytes
        self._folder = folder
        self._model_key = model_key
        self._device = torch.device(device)
        # Threads of its own, so that a slow disk holds up nobody else; one writes, so that it alone counts the folder.
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="cache-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="cache-write")
        self._closed = False
        self._bytes = 0
        self._written_since_scan = 0
        self._lock = threading.Lock()  # over what follows
        self._waiting = 0
        self._counts: Counter[str] = Counter()
        self._reported: set[int | None] = set()
        self._submit(self._open)

    async def read(self, key: str) -> Embedding | None:
        """The embedding of `key`, bit for bit and with the strides it had, or None."""
        if self._closed:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, key)

    def write(self, key: str, embedding: Embedding) -> None:
        """Write in the background. Left out when many writes wait already, or when it would fill the whole budget."""
        if self._closed or self._waiting >= WRITES_WAITING:
            self._count("dropped")
        else:
            self._submit(self._write, key, embedding)

    def stats(self) -> DiskStats:
        """What happened so far."""
        names = ("hits", "misses", "writes", "dropped", "evictions", "damaged", "failures")
        with self._lock:
            return DiskStats(**{name: self._counts[name] for name in names}, bytes=self._bytes)

    async def aclose(self) -> None:
        """Wait for the writes. Afterwards every read is a miss and nothing is written."""
        self._closed = True
        await asyncio.to_thread(self._writer.shutdown)
        self._readers.shutdown(wait=False)

    def _submit(self, function: Callable[..., None], *args: object) -> None:
        with self._lock:
            self._waiting += 1
        self._writer.submit(function, *args).add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        with self._lock:
            self._waiting -= 1
        error = future.exception()
        if error is not None:
            log.error("embedding cache on disk: a write failed", exc_info=error)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256("\n".join((_FORMAT, self._model_key, key)).encode()).hexdigest()
        return self._folder / (name + ".safetensors")

    # In a reader's thread

    def _read(self, key: str) -> Embedding | None:
        embedding = None
        try:
            embedding = self._load(self._path(key))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._report(error)
        self._count("misses" if embedding is None else "hits")
        return embedding

    def _load(self, path: Path) -> Embedding | None:
        with open(path, "rb", opener=_open_harmlessly) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > self.budget_bytes:
                return None
            embedding = _unpack(file.read(), path.name)
            if embedding is None:
                self._count("damaged")
                path.unlink(missing_ok=True)
                return None
            self._touch(file.fileno())
        try:
            return replace(embedding, features=embedding.features.to(self._device))
        except torch.OutOfMemoryError:  # the engine knows what to do about it when it makes the embedding
            return None

    def _touch(self, descriptor: int) -> None:
        try:
            os.utime(descriptor, ns=(time.time_ns(),) * 2)
        except OSError as error:  # a read-only folder can still be read
            self._report(error)

    # In the writer's thread

    def _open(self) -> None:
        try:
            self._make_folder()
            self._scan()
        except OSError as error:
            self._report(error)

    def _write(self, key: str, embedding: Embedding) -> None:
        path = self._path(key)
        pieces = _pack(embedding, path.name, {"model": self._model_key, "image": key})
        size = sum(len(piece) for piece in pieces)
        if size > self.budget_bytes:
            return
        try:
            self._make_folder()
            if not self._make_room(size):
                return
            descriptor, temporary = tempfile.mkstemp(".tmp", ".embedding-", self._folder)
            try:
                with open(descriptor, "wb") as file:
                    file.writelines(pieces)
                    file.flush()
                    self._touch(descriptor)  # the file system's own clock ticks too slowly to order files by
                os.replace(temporary, path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            self._report(error)
            return
        self._bytes += size
        self._written_since_scan += size
        self._count("writes")

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _make_room(self, size: int) -> bool:
        """Delete files until `size` more bytes fit; False if they cannot be made to."""
        slack = self.budget_bytes // SLACK
        if self._bytes + size <= self.budget_bytes and self._written_since_scan <= slack:
            return True
        files = self._scan()
        if self._bytes + size > self.budget_bytes:
            for _, length, path in sorted(files):
                if self._bytes + size + slack <= self.budget_bytes:
                    break
                path.unlink(missing_ok=True)
                self._bytes -= length
                self._count("evictions")
        return self._bytes + size <= self.budget_bytes

    def _scan(self) -> list[tuple[int, int, Path]]:
        """Count the folder's embeddings, each as (time of use, bytes, path), and delete what killed processes left."""
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                if _NAME.fullmatch(entry.name):
                    files.append((status.st_mtime_ns, status.st_size, Path(entry.path)))
                elif _TEMPORARY_NAME.fullmatch(entry.name) and time.time() - status.st_mtime > LEFTOVER_AFTER_S:
                    Path(entry.path).unlink(missing_ok=True)
        self._bytes = sum(length for _, length, _ in files)
        self._written_since_scan = 0
        return files

    # In any thread

    def _count(self, *names: str) -> None:
        with self._lock:
            self._counts.update(names)

    def _report(self, error: OSError) -> None:
        with self._lock:
            self._counts["failures"] += 1
            known = error.errno in self._reported
            self._reported.add(error.errno)
        if not known:
            log.warning("embedding cache on disk: %s; the service goes on without it, this is logged once", error)


def _open_harmlessly(path: str, flags: int) -> int:
    """Open without following a link, and without waiting where a pipe lies in the file's place."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _pack(embedding: Embedding, name: str, description: Mapping[str, str]) -> list[bytes | memoryview]:
    """The content of the safetensors file `name`, in pieces.

    Its checksum is the SHA-256 of the name and the whole file with zeros in the checksum's place.
    """
    features = embedding.features
    # An encoder leaves the channels last in memory, and a decoder given other strides rounds in other places.
    axes = sorted(range(features.ndim), key=features.stride, reverse=True)
    metadata = {
        **description,
        "size_hw": json.dumps(embedding.size_hw),
        "resized_hw": json.dumps(embedding.resized_hw),
        "axes": json.dumps(axes),  # of the features, in the order in which they are stored
        "sha256": _BLANK.decode(),
    }
    stored = features.cpu().permute(axes).contiguous()
    data = safetensors.torch.save({"features": stored}, metadata)
    start = data.index(_CHECKSUM) + len(_CHECKSUM)
    digest = hashlib.sha256(name.encode())
    digest.update(data)
    return [data[:start], digest.hexdigest().encode(), memoryview(data)[start + len(_BLANK) :]]


def _unpack(data: bytes, name: str) -> Embedding | None:
    """The embedding in the content of file `name`, on the CPU; None if it is not just what `_pack` made for it."""
    start = data.find(_CHECKSUM) + len(_CHECKSUM)
    end = start + len(_BLANK)
    digest = hashlib.sha256(name.encode())
    for piece in (data[:start], _BLANK, memoryview(data)[end:]):
        digest.update(piece)
    if digest.hexdigest().encode() != data[start:end]:
        return None
    header_length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + header_length])["__metadata__"]
    axes, size_hw, resized_hw = (json.loads(metadata[entry]) for entry in ("axes", "size_hw", "resized_hw"))
    stored = safetensors.torch.load(data)["features"]
    return Embedding(stored.permute([axes.index(axis) for axis in range(len(axes))]), tuple(size_hw), tuple(resized_hw))


def model_key(files_sha256: str, numbers: Mapping[str, str]) -> str:
    """What two models must share to share embeddings on disk, as 64 hex digits.

    files_sha256: of the model's configs and weights. numbers: whatever else changes an embedding's values: dtype, fast
    paths, versions of the libraries that decode and resize.
    """
    return hashlib.sha256(repr((sorted(numbers.items()), files_sha256)).encode()).hexdigest()
