"""The images of a run: found in folders, each with a name that no other has."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.data.parsing.contents import is_hidden
from models.images.formats import SUFFIXES

_SHOWN = 5  # names in a note


class SourceError(ValueError):
    """There are no such images."""


@dataclass(frozen=True)
class SourceImage:
    """path: absolute. name: its path under the root of the run's images, with forward slashes."""

    path: Path
    name: str


@dataclass(frozen=True)
class Sources:
    """root: the folder that all images are under. images: in the order of their names. notes: what was left out."""

    root: Path
    images: tuple[SourceImage, ...]
    notes: tuple[str, ...]


def find_images(paths: Sequence[Path], *, recursive: bool, leave_out: Path) -> Sources:
    """The images that the paths name: files as they are, and of folders the files with an image's suffix.

    recursive: whether folders in folders are gone into. leave_out: a folder whose files are none of them. Raises
    SourceError where a path is missing, or nothing is found.
    """
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path}: there is no such file or folder")
    places = [Path(os.path.abspath(path)) for path in paths]
    found: set[Path] = set()
    others: list[Path] = []
    folders: list[Path] = []
    hidden: list[Path] = []
    for place in places:
        if place.is_file():
            found.add(place)
            continue
        for path in _entries(place, recursive, {leave_out.resolve()}):
            if is_hidden(path):
                hidden.append(path)
            elif path.is_dir():
                folders.append(path)
            elif path.suffix.lower() in SUFFIXES:
                found.add(path)
            else:
                others.append(path)
    if not found:
        where = ", ".join(map(str, paths))
        hint = f"; --recursive looks into its {len(folders)} folder{'s' * (len(folders) > 1)} too" if folders else ""
        raise SourceError(f"{where}: expected images ({', '.join(SUFFIXES)}), found none{hint}")
    root = Path(os.path.commonpath([place if place.is_dir() else place.parent for place in places]))
    notes = []
    if others:
        notes.append(f"{_some(others)}: left out, as {'it has' if len(others) == 1 else 'they have'} no image's suffix")
    if hidden:
        notes.append(f"{_some(hidden)}: left out, as {'it is' if len(hidden) == 1 else 'they are'} hidden")
    if folders:
        notes.append(f"{_some(folders)}: not gone into; --recursive does")
    images = sorted((SourceImage(path, path.relative_to(root).as_posix()) for path in found), key=lambda one: one.name)
    for image in images:
        if any(0xD800 <= ord(character) <= 0xDFFF for character in image.name):
            raise SourceError(f"{image.name!a}: expected a name in UTF-8")
    return Sources(root, tuple(images), tuple(notes))


def _entries(folder: Path, recursive: bool, passed: set[Path]) -> Iterator[Path]:
    """The files of a folder, and the folders in it that are not gone into.

    passed: folders not to go into, or not again, as links may lead back; more are added.
    """
    passed.add(folder.resolve())
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir():
            yield entry
        elif entry.resolve() not in passed:
            if recursive and not is_hidden(entry):
                yield from _entries(entry, recursive, passed)
            else:
                yield entry


def _some(paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:_SHOWN])
    return names if len(paths) <= _SHOWN else f"{names} and {len(paths) - _SHOWN} more"
