"""The image of one row of a request: its file, and whose fault it is where it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app import timings
from app.contract import schemas
from app.engine.keys import content_key
from app.errors import BadRequest
from app.images.reading import ImageLimits, image_bytes, is_url
from app.images.store import StoredImage
from app.images.urls import UrlError
from models.images.decoding import ImageError
from models.types import TextsError


def image_file(image: object, limits: ImageLimits) -> bytes:
    """The encoded file of a row's image. Raises ImageError."""
    if not is_url(image):
        with timings.stage("decode"):
            return image_bytes(image, limits)
    with timings.fetching() as fetch:
        try:
            data = image_bytes(image, limits)
        except ImageError as error:
            cause = error.__cause__.__cause__ if isinstance(error.__cause__, UrlError) else error.__cause__
            fetch.outcome = "refused" if cause is None else "timeout" if isinstance(cause, TimeoutError) else "failed"
            raise
        fetch.outcome, fetch.size = "ok", len(data)
        return data


def stored_key(stored: StoredImage, *, exif_orientation: bool) -> str:
    """The `content_key` of an image that was sent before: megabytes are hashed once, and not for every click."""
    if exif_orientation not in stored.keys:
        stored.keys[exif_orientation] = content_key(stored.file, exif_orientation=exif_orientation)
    return stored.keys[exif_orientation]


@contextmanager
def told_of(row: int) -> Iterator[None]:
    """An image's fault becomes one of the row that it stands in, the texts' one of the request."""
    try:
        yield
    except ImageError as error:
        raise BadRequest(str(error), row=row, column=schemas.IMAGE) from error
    except TextsError as error:
        raise BadRequest(f"params.texts: {error}") from error
