"""The images of Label Studio's tasks: from that server with its token, or from where any other image comes."""

from __future__ import annotations

import base64
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from app import timings
from app.errors import BadRequest
from app.images.reading import ImageLimits, is_url
from app.images.store import ImageStore, StoredImage
from app.images.urls import OwnServer, UrlError, UrlStatusError, fetch
from app.label_studio.tokens import Token
from app.scoring.row_image import image_file
from app.settings import Settings
from models.images.decoding import ImageError

# Of so many addresses it is remembered when they were fetched, and for so long an image is taken to be what it was.
_REMEMBERED, _FRESH_S = 10_000, 600.0
_SERVED = ("/data/upload/", "/data/local-files/")
_CLOUD = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_UNAUTHORIZED = 401


class TaskImages:
    """Fetches images of tasks, and keeps them for the clicks that follow.

    They are kept in the store of images that clients have sent, by their addresses, as if whoever asks had sent them.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        url = settings.label_studio_url
        self._base = None if url is None else url.rstrip("/")
        self._token = None if url is None else Token(url, settings.label_studio_token, settings.url_timeout_s)
        self._clock = clock
        self._fetched: OrderedDict[tuple[str, str], float] = OrderedDict()

    def known(self, store: ImageStore, client: str, address: str) -> StoredImage | None:
        """The image of this address, if it was fetched a short while ago and is still here."""
        at = self._fetched.get((client, address))
        if at is None or self._clock() - at > _FRESH_S:
            return None
        return store.get(client, address)

    def keep(self, store: ImageStore, client: str, address: str, file: bytes) -> StoredImage:
        """Keep a file for later; it is returned as an image, kept or not."""
        if len(file) > store.budget_bytes or not self._resolved(address, None):  # base64 is its own address
            return StoredImage(file)
        store.put(client, address, file)
        self._fetched[client, address] = self._clock()
        self._fetched.move_to_end((client, address))
        while len(self._fetched) > _REMEMBERED:
            self._fetched.popitem(last=False)
        stored = store.get(client, address)
        assert stored is not None
        return stored

    def file(self, address: str, task: Any, limits: ImageLimits) -> bytes:
        """The encoded file. task: the number of the task that the address stands in. Waits. Raises ImageError."""
        url = self._resolved(address, task)
        if url is None:  # base64, or nothing of use
            return image_file(address, limits)
        if self._base is None or self._token is None or not OwnServer(self._base).has(url):
            return image_file(url, limits)
        with timings.fetching() as fetching:
            try:
                data = self._own_file(url, limits)
            except ImageError as error:
                fetching.outcome = "timeout" if isinstance(error.__cause__, TimeoutError) else "failed"
                raise
            fetching.outcome, fetching.size = "ok", len(data)
            return data

    def _own_file(self, url: str, limits: ImageLimits) -> bytes:
        assert self._base is not None and self._token is not None
        authorization = self._token.authorization()
        for last in (False, True):
            try:
                return fetch(
                    url,
                    limits.urls,
                    max_bytes=limits.max_bytes,
                    timeout_s=limits.url_timeout_s,
                    own=OwnServer(self._base, authorization),
                )
            except UrlStatusError as error:
                if error.is_own and error.status == _UNAUTHORIZED and self._token.is_personal and not last:
                    authorization = self._token.authorization(refused=authorization)
                    continue
                raise ImageError(_told(error)) from error
            except UrlError as error:
                raise ImageError(str(error)) from error.__cause__ or error
        raise AssertionError("the last attempt returns or raises")

    def _resolved(self, address: str, task: Any) -> str | None:
        """The URL to ask; None for what is no address. Raises ImageError for one of a server that is not known."""
        address = address.strip()
        if is_url(address):
            return address
        # A JPEG's base64 begins with a slash too.
        is_local = address.startswith("/") and any(one in address[:512] for one in _SERVED)
        is_cloud = _CLOUD.match(address) is not None
        if not is_local and not is_cloud:
            return None
        if self._base is None:
            what = (
                "a file of Label Studio's" if is_local else f"an address that Label Studio resolves ({address[:5]}...)"
            )
            raise ImageError(
                f"{what}: start this service with BOX2MASK_LABEL_STUDIO_URL and BOX2MASK_LABEL_STUDIO_TOKEN"
            )
        if is_cloud:
            encoded = base64.urlsafe_b64encode(address.encode("utf-8", "surrogatepass")).decode("ascii")
            return f"{self._base}/tasks/{quote(str(task), safe='')}/presign/?fileuri={quote(encoded)}"
        path = httpx.URL(self._base).path.rstrip("/")
        origin = self._base[: len(self._base) - len(path)] if path and self._base.endswith(path) else self._base
        return f"{origin if path and address.startswith(f'{path}/') else self._base}{address}"


def image_address(task: dict[str, Any], field: str) -> str:
    """What a task has for an image. Raises BadRequest."""
    data = task.get("data")
    value = data.get(field) if isinstance(data, dict) else None
    if not isinstance(value, str) or not value.strip():
        found = "nothing" if value is None else type(value).__name__
        raise BadRequest(f"task {task.get('id')}, data.{field}: expected the address of an image, got {found}")
    return value


def _told(error: UrlStatusError) -> str:
    if not error.is_own:
        return str(error)
    if error.status == _UNAUTHORIZED:
        return (
            "Label Studio answered 401 to BOX2MASK_LABEL_STUDIO_TOKEN: expected the token of an account that is valid"
        )
    if error.status == httpx.codes.NOT_FOUND:
        return (
            "Label Studio answered 404: the file is not there, or no storage of the projects that "
            "BOX2MASK_LABEL_STUDIO_TOKEN's account may see covers it"
        )
    return str(error)
