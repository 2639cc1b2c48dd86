"""Files that are there whole or not at all, whenever the process may be killed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

# What a process that was killed leaves behind begins like this and may be deleted.
UNFINISHED = ".unfinished-"


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """Write UTF-8 text that takes the name `path` when the context is left without an error."""
    with file_path(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def file_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file at, which takes the name when the context is left without an error."""
    unfinished = path.with_name(UNFINISHED + path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `path` when the context is left without an error."""
    unfinished = path.with_name(UNFINISHED + path.name)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def into_folder(path: Path) -> Iterator[Path]:
    """A new folder to write into, whose content goes to `path` when the context is left without an error.

    `path` may be there, and may be where another file system begins; what is in it stays. Files in it are never
    replaced: raises FileExistsError. A folder that was made here, and stays empty, is removed.
    """
    made = not path.is_dir()
    unfinished = path / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _move_all(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in the folder but what processes that were killed left behind."""
    return all(path.name.startswith(UNFINISHED) for path in folder.iterdir())


def _move_all(source: Path, target: Path) -> None:
    """Folders first: the annotation file, which says that all is there, comes last."""
    for one in sorted(source.iterdir(), key=lambda path: (not path.is_dir() or path.is_symlink(), path.name)):
        to = target / one.name
        if one.is_dir() and not one.is_symlink() and to.is_dir():
            _move_all(one, to)
        elif os.path.lexists(to):
            raise FileExistsError(f"{to} is there already")
        else:
            one.rename(to)
