"""Parts of a journal that are put whole: in a store, where no file can grow, and by workers that write beside others.

`journal/000002-ab12.jsonl` has lines of the journal by the run's second process, or whichever this one is. A line in
there means that the image's own files are where they belong. Shards are read in the order of their names, so a later
process's line of an image stands in place of an earlier one's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.folders.journal import Journal, JournalError
from app.folders.storage import Place
from models import atomic_files

NAME = "journal"
SUFFIX = ".jsonl"
# A process that is killed has these to do again.
_MOST_LINES, _MOST_S = 100, 10.0
_AT_ONCE = 16  # shards that are fetched


def put(folder: Place, number: int, lines: Sequence[bytes], name: str) -> None:
    """Write a shard. folder: of the run's results. number: of the process among the run's. Raises OSError.

    name: what the lines are about; the same name is the same shard, which a second writing replaces.
    """
    place = folder / NAME / f"{number:06}-{hashlib.sha256(name.encode()).hexdigest()[:24]}{SUFFIX}"
    if isinstance(place, Path):
        with atomic_files.file_path(place) as unfinished:
            unfinished.write_bytes(b"".join(lines))
    else:
        place.write_bytes(b"".join(lines))


def found(folder: Place) -> list[Place]:
    """The shards of a folder of results, as they are to be read. Raises OSError."""
    inside: list[Place]
    if isinstance(folder, Path):
        inside = list((folder / NAME).iterdir()) if (folder / NAME).is_dir() else []
    else:
        inside = [path for path, is_folder in (folder / NAME).entries(recursive=False) if not is_folder]
    known = (
        path for path in inside if path.name.endswith(SUFFIX) and not path.name.startswith(atomic_files.UNFINISHED)
    )
    return sorted(known, key=lambda path: path.name)


def next_number(shards: Sequence[Place]) -> int:
    """The number of a process that finds these."""
    numbers = [int(number) for path in shards if (number := path.name.partition("-")[0]).isdecimal()]
    return max(numbers, default=0) + 1


def fold(shards: Sequence[Place], journal: Journal) -> None:
    """Bring the shards' lines into the journal. Raises JournalError, which names the shard, and OSError."""
    for path, content in _contents(shards):
        for number, line in enumerate(content.splitlines(keepends=True), start=1):
            try:
                journal.take(line)
            except JournalError as error:
                raise JournalError(f"{path}:{number}: {error}; --restart begins again") from error


def _contents(shards: Sequence[Place]) -> Iterator[tuple[Place, bytes]]:
    """In their order; a few at once, as a store takes its time for each."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="shard") as pool:
        for start in range(0, len(shards), _AT_ONCE):
            part = shards[start : start + _AT_ONCE]
            yield from zip(part, pool.map(lambda path: path.read_bytes(), part), strict=True)


class ShardWriter:
    """Lines of a journal on their way to a store, a hundred at a time or what ten seconds give."""

    def __init__(self, folder: Place, number: int) -> None:
        self._folder = folder
        self._number = number
        self._lines: list[bytes] = []
        self._written = 0
        self._since = time.monotonic()

    def add(self, line: bytes) -> None:
        """Raises OSError."""
        self._lines.append(line)
        if len(self._lines) >= _MOST_LINES or time.monotonic() - self._since >= _MOST_S:
            self.flush()

    def flush(self) -> None:
        """Write what there is. Raises OSError."""
        if self._lines:
            # Numbers are names that sort as they were written, which those of `put` do not.
            put(self._folder, self._number, self._lines, f"part {self._written}")
            self._written += 1
        self._lines.clear()
        self._since = time.monotonic()
