"""Where a run's results go: a folder here, or one in a store, which a folder here goes before.

In a store the journal is `journal.jsonl` and, of a run that has not come to its end, shards beside it; the folder here
has both in one file, and is filled from the store each time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from app.folders import outputs, shards
from app.folders.journal import FAILED, NAME, Journal, no_journal
from app.folders.shards import ShardWriter
from app.folders.storage import Place, RemotePath

_ALL = (*outputs.ALL, shards.NAME)


class Destination:
    """The results of a run in their place. One process at a time.

    folder: the folder here. number: of this process among those that worked at the run and left shards.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.remote = place if isinstance(place, RemotePath) else None
        self.folder = _working_folder(place) if isinstance(place, RemotePath) else place
        self.number = 1
        self._writer: ShardWriter | None = None
        self._is_new = False
        self._gathered: set[str] = set()

    def open_journal(self, header: Mapping[str, Any], *, restart: bool) -> Journal:
        """As `Journal`, with what shards have too. Raises JournalError and OSError."""
        fetch = None if self.remote is None else lambda: self._fetch(restart)
        journal = Journal(self.folder, header, _ALL, restart=restart, fetch=fetch, also=self._tell, shown=self.place)
        try:
            self.gather(journal)
            if self.remote is not None:
                if self._is_new:  # shards without it would be nobody's
                    (self.remote / NAME).upload(journal.path)
                self._writer = ShardWriter(self.remote, self.number)
        except BaseException:
            journal.close()
            raise
        return journal

    def gather(self, journal: Journal) -> None:
        """Bring into the journal what shards have. Here they are then gone; in a store `finish` sees to that."""
        writer, self._writer = self._writer, None  # their lines are in the store already
        found = shards.found(self.place)
        self.number = shards.next_number(found)
        shards.fold([path for path in found if path.name not in self._gathered], journal)
        self._gathered.update(path.name for path in found)
        if self.remote is None:
            for path in found:
                path.unlink()
            with suppress(OSError):
                (self.folder / shards.NAME).rmdir()
        self._writer = writer

    def has(self, name: str) -> bool:
        """Whether a file or folder of this name is there."""
        if self.remote is not None:
            return (self.remote / name).kind() is not None
        return (self.folder / name).exists()

    def finish(self, journal: Journal) -> None:
        """Bring to the store what is for all images; the shards go when their lines are in its journal."""
        if self.remote is None:
            return
        self.flush()
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.name in (*outputs.ALL, FAILED):
                (self.remote / path.name).upload(path)
        if not (self.folder / FAILED).exists():
            (self.remote / FAILED).unlink()
        (self.remote / NAME).upload(journal.path)
        (self.remote / shards.NAME).remove_all()

    def flush(self) -> None:
        """Bring to the store what the journal has so far. Raises OSError."""
        if self._writer is not None:
            self._writer.flush()

    def close(self, journal: Journal) -> None:
        """Keep what was done, and let go of the folder here. What a store does not take now is done again next time."""
        with suppress(OSError):
            self.flush()
        if self.remote is not None:
            for path in self.folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        journal.close()

    def _tell(self, line: bytes) -> None:
        if self._writer is not None:
            self._writer.add(line)

    def _fetch(self, restart: bool) -> None:
        """Fill the folder here, which another run may have left, with what the store has."""
        assert self.remote is not None
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (self.remote / NAME).kind() is None:
            # One by one: what else may be there, and how much, is no matter of ours.
            if known := next((name for name in _ALL if (self.remote / name).kind()), None):
                raise no_journal(self.remote, known)
            self._is_new = True
        elif restart:
            for name in _ALL:
                (self.remote / name).remove_all() if "." not in name else (self.remote / name).unlink()
            (self.remote / FAILED).unlink()
            (self.remote / NAME).unlink()
            self._is_new = True
        else:
            (self.remote / NAME).download(self.folder / NAME)


def _working_folder(place: RemotePath) -> Path:
    """Of this user, and the same each time, so that two runs on this machine meet there."""
    return user_cache_path("box2mask") / "runs" / hashlib.sha256(str(place).encode()).hexdigest()[:16]
