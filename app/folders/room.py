"""How much memory the images in work may take, all together: one that takes more is alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.folders.sources import SourceImage
from app.folders.storage import RemotePath
from models.images.decoding import ImageError, image_size_hw

BYTES_IN_WORK = 512 * 2**20
# Of an image: for each of its pixels, decoded and once more while it is resized or drawn over; and for each byte of its
# file, which is in a request too.
_BYTES_PER_PIXEL, _BYTES_PER_FILE_BYTE = 6, 5
_PIXELS_PER_FILE_BYTE = 4  # where no more is known of it


class Room:
    """So many bytes of memory, shared by threads: who wants some waits until there is room, or nobody else has any."""

    def __init__(self, size: int = BYTES_IN_WORK) -> None:
        self._left = self._size = size
        self._changed = threading.Condition()

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        taken = min(count, self._size)
        with self._changed:
            self._changed.wait_for(lambda: taken <= self._left)
            self._left -= taken
        try:
            yield
        finally:
            with self._changed:
                self._left += taken
                self._changed.notify_all()


def bytes_in_work(image: SourceImage | bytes) -> int:
    """About what an image takes of the memory while it is in work; 0 for a bad one, which whoever reads it says."""
    try:
        if isinstance(image, bytes):
            return _bytes(image_size_hw(image), len(image))
        if isinstance(image.path, Path):
            return _bytes(image_size_hw(image.path), image.path.stat().st_size)
        if isinstance(image.path, RemotePath):  # its header is not worth asking for
            size = image.path.stat().st_size
            return _bytes((1, _PIXELS_PER_FILE_BYTE * size), size)
    except (OSError, ImageError):
        pass
    return 0


def _bytes(size_hw: tuple[int, int], file_bytes: int) -> int:
    return _BYTES_PER_PIXEL * size_hw[0] * size_hw[1] + _BYTES_PER_FILE_BYTE * file_bytes
