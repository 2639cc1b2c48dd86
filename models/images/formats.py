"""Which kind of image file bytes are, by their beginning; what the kinds are called, and which are read."""

from __future__ import annotations

import re

FORMATS = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"
# Of the files in a folder that are images; the file itself says which of the formats it has.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".hif"),
)
CONVERT = "convert it to JPEG or PNG"
HEAD = 4096  # bytes of a file that tell its format

_SIGNATURE = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<WEBP>RIFF.{4}WEBP)"
    rb"|(?P<BMP>BM)|(?P<GIF>GIF8[79]a)|(?P<TIFF>II[*+]\0|MM\0[*+])|(?P<HEIF>.{4}ftyp)",
    re.DOTALL,
)
_AVIF = (b"avif", b"avis")
_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs")
_EITHER = (b"mif1", b"msf1", b"mif2", b"miaf")  # the container's own, which either may name first
# Of what people send as photos, or take for one.
_OTHERS = (
    (re.compile(rb"\xff\x0a|\0{3}\x0cJXL "), "JPEG XL"),
    (re.compile(rb"\0{3}\x0cjP  |\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"P[1-7fF]\s"), "PPM"),
    (re.compile(rb".{128}DICM", re.DOTALL), "DICOM"),
    (re.compile(rb"8BPS"), "Photoshop"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"\s*<(?:svg|.{0,1000}?<svg)\b", re.DOTALL), "SVG"),
    (re.compile(rb".{4}ftypcrx", re.DOTALL), "a camera's raw file"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "a video"),
)


def file_format(data: bytes) -> str | None:
    """What Pillow calls the format of a file that is read, "JPEG" say; None for any other file."""
    signature = _SIGNATURE.match(data)
    if signature is None:
        return None
    name = str(signature.lastgroup)
    return _container(data) if name == "HEIF" else name


def other_format(data: bytes) -> str | None:
    """What a file that is not read is, if it is of a kind that is met in place of photos: "JPEG XL" say."""
    return next((name for pattern, name in _OTHERS if pattern.match(data[:HEAD])), None)


def name(file_format: str) -> str:
    """What a message calls it."""
    return "HEIC" if file_format == "HEIF" else file_format


def media_type(data: bytes) -> str:
    """The media type of a file that `decode_image` takes, "image/jpeg" say, from its first bytes."""
    found = file_format(data)
    return f"image/{found.lower()}" if found else "application/octet-stream"


def _container(data: bytes) -> str | None:
    """HEIF's boxes hold pictures of several codecs; which, the brands in the first of them say."""
    size = int.from_bytes(data[:4], "big")
    brands = [bytes(data[place : place + 4]) for place in (8, *range(16, min(size, 256), 4))]
    known = [one for one in brands if one in _AVIF or one in _HEIC]
    if known:
        return "AVIF" if known[0] in _AVIF else "HEIF"
    return "HEIF" if brands[0] in _EITHER else None
