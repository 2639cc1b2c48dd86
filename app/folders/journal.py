"""What a run has finished, in a file of JSON lines: all outputs are made from it, and a later run goes on from it.

The first line says how the run was made; each of the others holds one image's result, in the order in which they were
done. A line is written at once, so a process that is killed leaves at most its last line unfinished.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.results.image_result import ImageResult
from models import atomic_files

NAME = "journal.jsonl"
FAILED = "failed.jsonl"

Stamp = dict[str, Any]  # what must be the same of an image for its result to stand


class JournalError(ValueError):
    """A folder whose results cannot be gone on with; says what to do."""


@dataclass(frozen=True, slots=True)
class _Line:
    offset: int
    stamp: str  # as JSON: a million dicts would take three times as much memory
    own_files: tuple[str, ...]


class Journal:
    """The results of a run in its folder. One process at a time; not for several threads.

    Iterating gives the results in the order of the images' names.
    """

    def __init__(
        self,
        folder: Path,
        header: Mapping[str, Any],
        outputs: tuple[str, ...],
        *,
        restart: bool,
        fetch: Callable[[], None] | None = None,
        also: Callable[[bytes], None] | None = None,
        shown: object = None,
    ) -> None:
        """Open the folder's journal or begin one.

        header: how the results are made, as JSON values; what is in `header["settings"]` must be the same as before.
        outputs: names of files and folders in there that a run may write. restart: forget what is there. fetch: brings
        into the folder what is to be gone on with, once no other run writes there. also: is told every line that a
        result adds. shown: what messages call the folder, if it stands for another place.

        Raises JournalError where another run is writing there, where the results there were made in another way or
        where there are outputs without a journal; and OSError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / NAME
        self._shown = shown or folder
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise JournalError(f"{self._shown}: another run is writing there") from error
        self._lines: dict[str, _Line] = {}
        self._also = also
        try:
            if fetch is not None:
                fetch()
            if self.path.exists():
                if restart:
                    _remove(folder, outputs)
                else:
                    self._read(header)
            elif known := [name for name in outputs if (folder / name).exists()]:
                raise no_journal(self._shown, known[0])
            if not self.path.exists():
                with atomic_files.text_file(self.path) as file:
                    file.write(json.dumps(header) + "\n")
            self._file: BinaryIO = self.path.open("r+b")
        except BaseException:
            os.close(self._lock)
            raise

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[ImageResult]:
        for name in sorted(self._lines):
            yield self.result(name)

    def stamp(self, name: str) -> Stamp | None:
        """The stamp of the image when its result was made; None where there is no result."""
        line = self._lines.get(name)
        return None if line is None else json.loads(line.stamp)

    def result(self, name: str) -> ImageResult:
        self._file.seek(self._lines[name].offset)
        return ImageResult.from_json(json.loads(self._file.readline()))

    def names(self) -> list[str]:
        """Of the images that have a result, sorted."""
        return sorted(self._lines)

    def own_files(self, name: str) -> tuple[str, ...]:
        """The formats whose files of this image are where the journal's own copy is, in a store."""
        return self._lines[name].own_files

    def append(self, result: ImageResult, stamp: Stamp, own_files: tuple[str, ...] = ()) -> None:
        """Keep a result, in place of an earlier one of the same image."""
        self.take(line_of(result, stamp, own_files))

    def forget(self, name: str) -> None:
        """Drop an image's result, so that no later run finds it either."""
        self.take(forgotten(name))

    def take(self, line: bytes) -> None:
        """Add a line that `line_of` or `forgotten` made. Raises JournalError for any other."""
        offset = self._file.seek(0, os.SEEK_END)
        try:
            self._hold(json.loads(line), offset)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalError(f"expected a line of a run's journal, found {line[:80]!r}") from error
        self._file.write(line)
        self._file.flush()
        if self._also is not None:
            self._also(line)

    def _hold(self, entry: dict[str, Any], offset: int) -> None:
        if entry.get("forgotten"):
            self._lines.pop(entry["image"], None)
        else:
            ImageResult.from_json(entry)
            files = tuple(map(sys.intern, entry.get("own_files", ())))
            self._lines[entry["image"]] = _Line(offset, json.dumps(entry["stamp"]), files)

    def close(self) -> None:
        self._file.close()
        os.close(self._lock)

    def _read(self, header: Mapping[str, Any]) -> None:
        with self.path.open("r+b") as file:
            number, offset = 0, 0
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):  # the process was killed here
                    file.truncate(offset)
                    break
                try:
                    entry = json.loads(line)
                    if number == 1:
                        self._compare(entry["settings"], header["settings"])
                    else:
                        self._hold(entry, offset)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    if isinstance(error, JournalError):
                        raise
                    raise JournalError(
                        f"{self._shown}/{NAME}:{number}: expected a line of a run's journal, found another; "
                        "--restart begins again"
                    ) from error
                offset += len(line)
        if not number:
            raise JournalError(
                f"{self._shown}/{NAME}: expected a run's journal, found an empty file; --restart begins again"
            )

    def _compare(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differences = [
            f"{name} {_shown(before.get(name))}, now {_shown(now.get(name))}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        if differences:
            raise JournalError(
                f"{self._shown}: the results there were made in another way ({'; '.join(differences)}): "
                "give another folder with --out, or --restart to begin again"
            )


def line_of(result: ImageResult, stamp: Stamp, own_files: tuple[str, ...] = ()) -> bytes:
    """A result as a line of a journal. own_files: the formats whose files of this image are in a store with it."""
    files = {"own_files": list(own_files)} if own_files else {}
    return json.dumps(result.to_json() | {"stamp": stamp} | files).encode() + b"\n"


def forgotten(name: str) -> bytes:
    """The line that says that an image no longer has a result."""
    return json.dumps({"image": name, "forgotten": True}).encode() + b"\n"


def no_journal(folder: object, found: str) -> JournalError:
    """What is wrong with a folder that has outputs, and nothing that says how they were made."""
    return JournalError(
        f"{folder}: expected an empty folder or one of an earlier run, found {found} and no {NAME}; "
        "give another folder with --out"
    )


def _remove(folder: Path, outputs: tuple[str, ...]) -> None:
    """The journal goes last: what is left of a removal that was killed is still known to be a run's."""
    for name in (*outputs, FAILED):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (folder / NAME).unlink()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)
