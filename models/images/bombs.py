"""Refuses image files that are cheap to send and dear to read, beyond what their number of pixels says.

Pillow reads a file's header in Python, piece by piece, and libjpeg goes through a whole picture for every scan of a
progressive file. So a few megabytes can keep a thread for minutes, or take gigabytes, before or after the size in
pixels is known. `check` looks at a file before Pillow does; `MeteredFile` is what Pillow then reads it through. What
real cameras, scanners and programs write is far from every limit here.

CostlyImage      the file would take too long, or too much memory; says what of
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path

# How often Pillow may read: for the header, a handful of times for each of its parts; for the pixels, once or more for
# each chunk, strip or run. A million take a few seconds; a BMP with run-length
# encoding is the one kind that gets near, from some megapixels of noise on.
READS_OF_HEADER = 10_000
READS_IN_ALL = 1_000_000

_MAX_SEGMENTS = 10_000  # of a JPEG or WebP
# Of metadata that Pillow puts together or takes apart in Python; a camera writes one of each.
_MAX_METADATA_SEGMENTS = 64
# Of a progressive JPEG: encoders write ten or so. More are allowed as long as the picture is small.
_MAX_SCANS = 20
_MAX_SCANNED_PIXELS = 2_000_000_000
_MAX_TIFF_VALUES = 100_000  # of one tag: the strips or tiles of a picture, say, each of which is an object in memory

_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_BYTES = (1, 2, 7)  # types that stay the bytes they are: BYTE, ASCII, UNDEFINED


class CostlyImage(ValueError):
    """What a file of this format may have, and what this one has."""


class MeteredFile(BytesIO):
    """A file in memory that may be read from `reads` times; raises CostlyImage then. It shares the bytes' memory."""

    def __init__(self, data: bytes, reads: int = READS_OF_HEADER) -> None:
        super().__init__(data)
        self.reads = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise CostlyImage("expected an image in fewer pieces")
        return super().read(size)


class MeteredPath(BufferedReader):
    """As MeteredFile, of a file on a disk. Raises OSError."""

    def __init__(self, path: Path, reads: int = READS_OF_HEADER) -> None:
        super().__init__(FileIO(path))
        self.reads = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads -= 1
        if self.reads < 0:
            raise CostlyImage("expected an image in fewer pieces")
        return super().read(size)


def check(data: bytes, file_format: str) -> None:
    """Raises CostlyImage. file_format: as `models.images.formats` names it."""
    if file_format == "JPEG":
        _check_jpeg(data)
    elif file_format == "TIFF":
        _check_tiff(data)
    elif file_format == "WEBP":
        _check_webp(data)


def _check_jpeg(data: bytes) -> None:
    place, scans, metadata, pixels = 2, 0, 0, 0
    for _ in range(_MAX_SEGMENTS):
        found = _JPEG_MARKER.search(data, place)
        if found is None or found[1] == b"\xd9":  # the picture's end
            return
        marker, place = found[1][0], found.end()
        if marker in (0x01, 0xD8):  # these stand alone
            continue
        if marker in _START_OF_FRAME and len(data) >= place + 7:
            height, width = struct.unpack_from(">HH", data, place + 3)
            pixels = max(pixels, height * width)
        elif marker == 0xED or (marker == 0xE1 and data[place + 2 : place + 6] == b"Exif"):
            metadata += 1
            if metadata > _MAX_METADATA_SEGMENTS:
                raise CostlyImage(f"expected a JPEG with at most {_MAX_METADATA_SEGMENTS} segments of metadata")
        elif marker == 0xDA:
            scans += 1
            if scans > _MAX_SCANS and scans * pixels > _MAX_SCANNED_PIXELS:
                most = max(_MAX_SCANS, _MAX_SCANNED_PIXELS // pixels)
                raise CostlyImage(f"expected a JPEG of {pixels} pixels in at most {most} scans, got more")
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
    raise CostlyImage(f"expected a JPEG with at most {_MAX_SEGMENTS} segments, got more")


def _check_webp(data: bytes) -> None:
    place = 12
    for _ in range(_MAX_SEGMENTS):
        if place + 8 > len(data):
            return
        (size,) = struct.unpack_from("<I", data, place + 4)
        place += 8 + size + size % 2
    raise CostlyImage(f"expected a WebP with at most {_MAX_SEGMENTS} chunks, got more")


def _check_tiff(data: bytes) -> None:
    try:
        for tag, kind, count in _tiff_entries(data):
            # More than the file has bytes are not there; Pillow leaves them out.
            if _MAX_TIFF_VALUES < count <= len(data) and kind not in _TIFF_BYTES:
                raise CostlyImage(f"expected a TIFF with at most {_MAX_TIFF_VALUES} values of tag {tag}, got {count}")
    except struct.error:  # cut short: Pillow says what it makes of that
        return


def _tiff_entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Tag, type and count of the first directory's entries."""
    order = "<" if data[:2] == b"II" else ">"
    if 43 in data[2:4]:  # BigTIFF
        (place,) = struct.unpack_from(f"{order}Q", data, 8)
        (entries,) = struct.unpack_from(f"{order}Q", data, place)
        layout, step, place = f"{order}HHQ", 20, place + 8
    else:
        (place,) = struct.unpack_from(f"{order}I", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, place)
        layout, step, place = f"{order}HHI", 12, place + 2
    for number in range(min(entries, READS_OF_HEADER)):
        yield struct.unpack_from(layout, data, place + number * step)
