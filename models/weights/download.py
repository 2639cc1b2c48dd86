"""One file over HTTP, going on where an earlier attempt, or an earlier process, stopped.

While a file arrives it is called `NAME.part`, and what identifies its content to the server is kept beside it in
`NAME.part.etag`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

from models.weights.manifest import DownloadError, MissingError, RefusedError

ATTEMPTS = 5  # in a row that get no further than any before; one that does starts the count again
LONGEST_WAIT_S = 30.0
HUB = ("https", "huggingface.co")  # the only scheme and host that a token is for


class TransientError(Exception):
    """This attempt failed in a way that another one may not."""


@dataclass(frozen=True)
class Stated:
    """What the server itself says of a file (Hugging Face does, on the redirect to its storage)."""

    sha256: str | None
    size: int | None


def download(
    client: httpx.Client,
    url: str,
    part: Path,
    sha256: str | None,
    bar: tqdm,
    report: Callable[[str], None],
    sleep: Callable[[float], None],
    token: str | None = None,
) -> Stated:
    """Fills `part` with all of `url`, trying again after failures that may pass. token: says to its host who asks."""
    failures, furthest = 0, size_of(part)
    while True:
        try:
            return _receive(client, url, part, sha256, bar, token)
        except (TransientError, httpx.TransportError) as error:
            failures = 1 if size_of(part) > furthest else failures + 1
            furthest = max(furthest, size_of(part))
            if failures == ATTEMPTS:
                raise
            wait = min(2.0 ** (failures - 1), LONGEST_WAIT_S)
            report(f"{part.stem}: {error}; trying again in {wait:.0f} s")
            sleep(wait)


def _receive(client: httpx.Client, url: str, part: Path, sha256: str | None, bar: tqdm, token: str | None) -> Stated:
    """One request, for what `part` lacks. Whatever arrives is kept, also when the connection breaks."""
    have = size_of(part)
    validator = etag_of(part).read_text() if etag_of(part).exists() else ""
    headers = {"Accept-Encoding": "identity"}  # byte ranges and lengths are those of the file itself
    if token:  # httpx leaves it out where a redirect leads to another host
        headers["Authorization"] = f"Bearer {token}"
    if have and (validator or sha256):  # without either nothing would tell that the file changed in between
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with client.stream("GET", url, headers=headers) as response:
        stated = _stated(response)
        if stated.sha256 and sha256 and not stated.sha256.startswith(sha256):
            raise DownloadError(f"the server offers sha256 {stated.sha256}, expected {sha256}")
        if response.status_code == 416:
            if have in (stated.size, _whole_size(response)):
                return stated  # it was complete, only not checked and renamed
            part.unlink()
            raise TransientError("the partial file was longer than the file itself")
        if response.is_server_error:
            raise TransientError(f"the server answered {response.status_code} {response.reason_phrase}")
        if not response.is_success:
            kind = {401: RefusedError, 403: RefusedError, 404: MissingError}.get(response.status_code, DownloadError)
            raise kind(f"the server answered {response.status_code} {response.reason_phrase}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError("the server sends the file compressed")
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise TransientError("the server sent another range than the one asked for")
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else stated.size
        if total and shutil.disk_usage(part.parent).free < total - have:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        bar.reset(total)
        bar.n = bar.initial = start  # so that the speed shown is that of this attempt
        with open(part, "ab" if resumed else "wb") as file:
            if not resumed:  # after emptying the file: old bytes must never stand beside a new validator
                etag_of(part).write_text(_validator(response))
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    for size in (total, stated.size):
        if size is not None and size_of(part) != size:
            raise TransientError(f"got {size_of(part)} bytes of {size}")
    return stated


def _stated(response: httpx.Response) -> Stated:
    """Reads `X-Linked-Etag`, the sha256 of a file in Hugging Face's large file storage, and `X-Linked-Size`."""
    sha256 = size = None
    for hop in (*response.history, response):
        etag = hop.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
        if len(etag) == 64:  # the ETag of a small file is a git hash of 40
            sha256 = etag
        linked = hop.headers.get("X-Linked-Size", "")
        size = int(linked) if linked.isdecimal() else size
    return Stated(sha256, size)


def _whole_size(response: httpx.Response) -> int | None:
    """The file's size from the `Content-Range: bytes */SIZE` of a 416 answer."""
    size = response.headers.get("Content-Range", "").removeprefix("bytes */")
    return int(size) if size.isdecimal() else None


def _validator(response: httpx.Response) -> str:
    """What `If-Range` may carry: a strong ETag, or else a date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def is_hub(url: str) -> bool:
    """Whether it leads to Hugging Face's hub, over TLS."""
    return urlsplit(url)[:2] == HUB


def etag_of(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
