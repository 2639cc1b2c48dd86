"""Whatever stands in a request's `image` column (base64 text or a URL) -> the encoded file, within limits.

Knows nothing of rows and columns: it raises ImageError, and the caller says where the image stood.

    image_bytes     base64, `data:` URL or http(s) URL -> the encoded file
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.images import not_an_image
from app.images.urls import UrlError, UrlMode, fetch
from models.images.decoding import MAX_PIXELS, ImageError, check_pixels, opened
from models.images.formats import FORMATS, file_format

if TYPE_CHECKING:
    from app.settings import Settings

_EXPECTED = f"expected base64 or an http(s) URL of a {FORMATS}"

_URLSAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = b" \t\r\n\v\f"
_JSON_NAMES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}

_LARGE_TEXT, _HEAD_TEXT = 2**20, 2**14  # characters of base64; four of them are three bytes


@dataclass(frozen=True)
class ImageLimits:
    """What one image may cost.

    max_pixels: width x height, known from the header before decoding, which takes 7 to 11 bytes for each.
    max_bytes: the encoded file, posted or fetched.
    urls: which URLs are fetched: see `app.images.urls`.
    url_timeout_s: the whole of a fetch, from name look-up to last byte, redirects included.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = 64 * 2**20
    urls: UrlMode = "public"
    url_timeout_s: float = 10.0

    @classmethod
    def of(cls, settings: Settings) -> ImageLimits:
        """As the settings have them."""
        return cls(
            max_pixels=settings.max_image_pixels,
            max_bytes=int(settings.max_image_mb * 2**20),
            urls=settings.image_urls,
            url_timeout_s=settings.url_timeout_s,
        )


DEFAULT_LIMITS = ImageLimits()


def image_bytes(value: object, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The encoded file that `value` holds or points at.

    value: base64 text, in either alphabet, with or without white space, padding and a `data:...;base64,`
        prefix; or an http(s) URL. Raises ImageError for anything else, for more than `max_bytes`, and, without
        taking megabytes apart, for a large base64 text whose first bytes say that it has more than `max_pixels`.
    """
    if not isinstance(value, str):
        kind = _JSON_NAMES.get(type(value), type(value).__name__)
        raise ImageError(f"{_EXPECTED}, got {kind}{not_an_image.of_value(value)}")
    head = value[:64].lstrip().lower()
    if is_url(value):
        try:
            data = fetch(value.strip(), limits.urls, max_bytes=limits.max_bytes, timeout_s=limits.url_timeout_s)
        except UrlError as error:
            raise ImageError(str(error)) from error
    else:
        text = value.partition(",")[2] if _is_base64_data_url(value, head) else value
        _check_head(text, limits.max_pixels)
        data = _from_base64(text)
        if not _is_image(data):  # a path may well be base64 of something
            cause = not_an_image.of_text(text, _is_image)
            if cause:
                raise ImageError(f"{_EXPECTED}, got {_shown(text)}{cause}")
    if len(data) > limits.max_bytes:
        raise ImageError(f"expected an image of at most {limits.max_bytes} bytes, got {len(data)}")
    return data


def is_url(value: object) -> bool:
    """Whether `image_bytes` would fetch it."""
    return isinstance(value, str) and value[:64].lstrip().lower().startswith(("http://", "https://"))


def _is_base64_data_url(value: str, head: str) -> bool:
    if not head.startswith("data:"):
        return False
    header = value[:256].partition(",")[0]
    if not header.rstrip().lower().endswith(";base64"):
        raise ImageError(f"{_EXPECTED}, got a data: URL that is not ;base64: {header[:64]!r}")
    return True


def _check_head(text: str, max_pixels: int) -> None:
    """Raises ImageError for more than `max_pixels`; what the beginning does not say is found out later."""
    if len(text) < _LARGE_TEXT:
        return
    try:
        with opened(binascii.a2b_base64(text[:_HEAD_TEXT])) as image:
            size = image.size
    except ValueError:  # not plain base64, or the header goes on
        return
    check_pixels(size, max_pixels)


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)  # most are plain, and megabytes need no copies
    except ValueError:
        pass
    try:
        encoded = text.encode("ascii").translate(_URLSAFE_TO_STANDARD, delete=_WHITESPACE)
        return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        reason = "" if isinstance(error, UnicodeEncodeError) else f" ({error})"
        cause = not_an_image.of_text(text, _is_image)
        raise ImageError(f"{_EXPECTED}, got {_shown(text)}{cause or reason}") from error


def _is_image(data: bytes) -> bool:
    return file_format(data) is not None


def _shown(text: str) -> str:
    """How a message quotes what is no image."""
    return f"{len(text)} characters, {text if len(text) <= 40 else f'{text[:40]}...'!r}"
