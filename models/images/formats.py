"""Which kind of image file bytes are, by their beginning, and what the kinds are called."""

from __future__ import annotations

import re

FORMATS = "JPEG, PNG, WebP, BMP, GIF or TIFF image"

_SIGNATURE = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<WEBP>RIFF.{4}WEBP)"
    rb"|(?P<BMP>BM)|(?P<GIF>GIF8[79]a)|(?P<TIFF>II[*+]\0|MM\0[*+])",
    re.DOTALL,
)


def file_format(data: bytes) -> str | None:
    """What Pillow calls the format of a file that is read, "JPEG" say; None for any other file."""
    signature = _SIGNATURE.match(data)
    return None if signature is None else str(signature.lastgroup)


def media_type(data: bytes) -> str:
    """The media type of a file that `decode_image` takes, "image/jpeg" say, from its first bytes."""
    found = file_format(data)
    return f"image/{found.lower()}" if found else "application/octet-stream"
