"""A request's body, read as it comes, unpacked as it is read, and given up as soon as it is too long."""

from __future__ import annotations

import asyncio
import mmap
import zlib
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from app.errors import BadRequest, ClientGone, PayloadTooLarge, UnsupportedEncoding
from app.http.intake import Body

# Unpacked at once; other requests have their turn between two steps.
_STEP = 2**20
# A body of so many declared bytes gets pages of its own, which are there once written and gone once closed: a bytearray
# would be moved as it grows, and leave its old places behind in the allocator.
_LARGE = 2**20
# What zlib calls the container: with its checks, and as HTTP's "deflate" has it.
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def read_body(http: HttpRequest, most: int, held: Body) -> bytearray | mmap.mmap:
    """The body as it was before a `Content-Encoding` of gzip or deflate, at most `most` bytes of it.

    Raises PayloadTooLarge, before the first byte where the length is declared, and having unpacked no more than
    `most` of what is compressed; TooManyRequests as soon as `held`, which is told of every byte, has no room for it;
    UnsupportedEncoding; BadRequest for what does not unpack; ClientGone.
    """
    chunked = "transfer-encoding" in http.headers  # and then no other length counts
    declared = 0 if chunked else int(http.headers.get("content-length", "0") or 0)
    if declared > most:
        raise PayloadTooLarge(most)
    encoding = http.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "") and encoding not in _WINDOW_BITS:
        raise UnsupportedEncoding(f"content-encoding: expected gzip, deflate or none, got {encoding[:40]!r}")
    try:
        if encoding not in ("identity", ""):
            return await _read_packed(http, encoding, most, held)
        if declared >= _LARGE:
            return await _read_large(http, declared, held)
        return await _read_plain(http, most, held)
    except ClientDisconnect as error:
        raise ClientGone("the client went away before the body was there") from error


async def _read_plain(http: HttpRequest, most: int, held: Body) -> bytearray:
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > most:
            raise PayloadTooLarge(most)
        held.grow(len(body))
    return body


async def _read_large(http: HttpRequest, declared: int, held: Body) -> mmap.mmap:
    """A server hands on as many bytes as were declared, no more, and ClientDisconnect where fewer came."""
    # Private: pages that nobody shares are cheaper to have, and may be huge.
    body = mmap.mmap(-1, declared, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux: a fault every 2 MB in place of one every 4 kB
        with suppress(OSError):  # a kernel without
            body.madvise(mmap.MADV_HUGEPAGE)
    async for chunk in http.stream():
        body.write(chunk)
        held.grow(body.tell())
    return body


async def _read_packed(http: HttpRequest, encoding: str, most: int, held: Body) -> bytearray:
    body = bytearray()
    unpacking = _Unpacking(encoding, body, most, held)
    async for chunk in http.stream():
        await unpacking.add(chunk)
        if len(body) > most:
            raise PayloadTooLarge(most)
        held.grow(len(body))
    unpacking.finish()
    return body


class _Unpacking:
    """Unpacks chunks into `body`, in steps, and stops beyond `most` bytes."""

    def __init__(self, encoding: str, body: bytearray, most: int, held: Body) -> None:
        self._encoding = encoding
        self._body = body
        self._most = most
        self._held = held
        self._stream = zlib.decompressobj(_WINDOW_BITS[encoding])

    async def add(self, chunk: bytes) -> None:
        while chunk and len(self._body) <= self._most:
            if self._stream.eof:  # a gzip file may be several, one after the other
                self._stream = zlib.decompressobj(_WINDOW_BITS[self._encoding])
            try:
                self._body += self._stream.decompress(chunk, _STEP)
            except zlib.error as error:
                raise BadRequest(f"the body is not {self._encoding}, as its content-encoding says: {error}") from error
            chunk = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            self._held.grow(len(self._body))
            await asyncio.sleep(0)

    def finish(self) -> None:
        if not self._stream.eof:
            raise BadRequest(f"the body ends before its {self._encoding} does")
