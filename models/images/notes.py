"""What a user is to know of how photos were read: a line for each kind of thing, however many photos it is about."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from models.images import pages, samples
from models.images.decoding import ImageError, decode, opened
from models.images.samples import Reading

_TEXTS: dict[Reading, str] = {
    "fewer bits": "values of at most 12 bits in a 16-bit file, or of as many as it states: read as such, so that they "
    "fill the range",
    "dark": "values below 16384 in a 16-bit file: read as 16-bit values, so it is dark; if they are of fewer bits, "
    "have a TIFF state so in its tag MaxSampleValue",
    "float": "floating point: read as 0 to 1, or where there is more, as 8-bit or 16-bit values",
}


class PhotoNotes:
    """Counts what is said of photos in the end. Any number of threads may add to it.

    page: that is read of files with several.
    """

    def __init__(self, page: int = 1) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def look(self, path: Path) -> None:
        """Add what `look_at` says of a file; nothing of one that is bad."""
        if (seen := look_at(path, self._page)) is not None:
            self.add(path, *seen)

    def add(self, path: object, page_count: int, reading: Reading | None) -> None:
        """Add one file. reading: the rule by which samples of more than 8 bits were read."""
        with self._lock:
            if page_count > 1:
                self._counts["pages"] += 1
                self._first.setdefault("pages", f"{path} ({page_count})")
            if reading is not None:
                self._counts[reading] += 1
                self._first.setdefault(reading, str(path))

    def lines(self) -> list[str]:
        """A line for each kind that there was."""
        lines = []
        if count := self._counts["pages"]:
            which = "the first" if self._page == 1 else f"number {self._page}"
            lines.append(
                f"{_images(count)} more than one page or frame, {self._first['pages']}: {which} is read; "
                "--page N reads another"
            )
        for reading, text in _TEXTS.items():
            if count := self._counts[reading]:
                lines.append(f"{_images(count)} {text}; docs/data.md has the rule; {self._first[reading]}")
        return lines


def look_at(data: bytes | Path, page: int = 1) -> tuple[int, Reading | None] | None:
    """How many pages a file has, and by which rule more than 8 bits are read; None of a bad one.

    Its header says so, and only of a file of more than 8 bits its pixels. data: or the file's path.
    """
    try:
        with opened(data) as image:
            count = pages.count(image)
            deep = image.mode.startswith(("I", "F")) or samples.may_need_low_bytes(image)
        if not deep:
            return count, None
        content = data if isinstance(data, bytes) else data.read_bytes()
        return count, decode(content, exif_orientation=True, page=page).reading
    except (OSError, ImageError):  # whoever reads it says so
        return None


def _images(count: int) -> str:
    return "1 image has" if count == 1 else f"{count} images have"
