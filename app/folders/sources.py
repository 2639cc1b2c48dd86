"""The images of a run: found in folders, here or in a store, or named by a list of addresses; each with a name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from app.folders.storage import Place, RemotePath
from app.prediction import ANY_IMAGE, PredictionError, read_image
from models.data.image_files import size_hw
from models.data.parsing.contents import is_hidden, text_of
from models.data.parsing.values import BadValueError
from models.images.decoding import ImageError, image_size_hw
from models.images.formats import SUFFIXES

_SHOWN = 5  # names in a note
_LIST_SUFFIX = ".txt"
_MOST_LIST_BYTES = 2**28


class SourceError(ValueError):
    """There are no such images."""


@dataclass(frozen=True, slots=True)  # there may be a million
class SourceImage:
    """path: absolute, or in a store, or an http(s) address as text.

    name: its path under the root of the run's images, with forward slashes.
    """

    path: Place | str
    name: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders that it is in, from the outermost, and what it is called there."""
        if isinstance(self.path, Path):
            return self.path.parts
        return PurePosixPath(self.path.key if isinstance(self.path, RemotePath) else urlsplit(self.path).path).parts

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    def size_hw(self) -> tuple[int, int]:
        """(height, width) as it is shown. Raises BadValueError where its file does not say it."""
        if isinstance(self.path, Path):
            return size_hw(self.path)
        try:  # there is no reading a header alone
            return image_size_hw(self.read(), exif_orientation=True)
        except (ImageError, PredictionError) as error:
            raise BadValueError(f"{self.path}: {error}") from error

    def read(self) -> bytes:
        """The encoded file. Raises PredictionError."""
        if not isinstance(self.path, RemotePath):
            return read_image(self.path)
        try:
            if (size := self.path.stat().st_size) > ANY_IMAGE.max_bytes:
                raise PredictionError(f"expected an image of at most {ANY_IMAGE.max_bytes} bytes, got {size}")
            return self.path.read_bytes()
        except OSError as error:
            raise PredictionError(f"cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True)
class Sources:
    """root: the folder that all images are under; of addresses what they begin with, as text.

    images: in the order of their names. notes: what was left out.
    """

    root: Place | str
    images: tuple[SourceImage, ...]
    notes: tuple[str, ...]

    @property
    def here(self) -> Path | None:
        """The root, if it is a folder of this machine."""
        return self.root if isinstance(self.root, Path) else None

    def address_from(self, results: RemotePath | None) -> str | None:
        """What stands before the images' names in files that say where they are; None: a path from there to here.

        results: where those files are, if that is a store.
        """
        if isinstance(self.root, Path):
            return None if results is None else self.root.as_uri()
        return str(self.root)


def beside(root: Place | str, name: str) -> Place | str:
    """Where the image of this name is."""
    return f"{root}/{name}" if isinstance(root, str) else root / name


def find_images(places: Sequence[Place], *, recursive: bool, leave_out: Place) -> Sources:
    """The images that the places name: files as they are, and of folders the files with an image's suffix.

    A single file that ends in .txt is a list of addresses, one to a line. recursive: whether folders in folders are
    gone into. leave_out: a folder whose files are none of them. Raises SourceError where a place is missing, or nothing
    is found.
    """
    here = [place for place in places if isinstance(place, Path)]
    away = [place for place in places if isinstance(place, RemotePath)]
    if len({place.root for place in away}) + bool(here) > 1:
        raise SourceError(f"{', '.join(map(str, places))}: expected images of one place, found several")
    if len(here) == 1 and here[0].suffix.lower() == _LIST_SUFFIX and here[0].is_file():
        return _listed(here[0])
    try:
        found = _found_away(away, recursive, leave_out) if away else _found_here(here, recursive, leave_out)
    except OSError as error:
        raise SourceError(str(error)) from error
    if not found.images:
        where = ", ".join(map(str, places))
        plural = "s" * (len(found.folders) > 1)
        hint = f"; --recursive looks into its {len(found.folders)} folder{plural} too" if found.folders else ""
        raise SourceError(f"{where}: expected images ({', '.join(SUFFIXES)}), found none{hint}")
    images = sorted((SourceImage(path, name) for name, path in found.images.items()), key=lambda one: one.name)
    for image in images:
        if any(0xD800 <= ord(character) <= 0xDFFF for character in image.name):
            raise SourceError(f"{image.name!a}: expected a name in UTF-8")
    return Sources(found.root, tuple(images), tuple(found.notes()))


@dataclass
class _Found:
    """What is in folders: the images by their names, and what is none."""

    root: Place
    images: dict[str, Place]
    others: list[str]
    hidden: list[str]
    folders: list[str]
    odd: list[str]  # keys that are no paths

    def sort(self, path: Place, name: str, *, is_folder: bool) -> None:
        """Add one that was met in a folder."""
        if isinstance(path, RemotePath) and not set(path.key.split("/")).isdisjoint(("", ".", "..")):
            self.odd.append(str(path))
        elif is_hidden(Path(path.name)):
            self.hidden.append(path.name)
        elif is_folder:
            self.folders.append(path.name)
        elif PurePosixPath(path.name).suffix.lower() in SUFFIXES:
            self.images[name] = path
        else:
            self.others.append(path.name)

    def notes(self) -> Iterator[str]:
        if self.others:
            they = "it has" if len(self.others) == 1 else "they have"
            yield f"{_some(self.others)}: left out, as {they} no image's suffix"
        if self.hidden:
            they = "it is" if len(self.hidden) == 1 else "they are"
            yield f"{_some(self.hidden)}: left out, as {they} hidden"
        if self.odd:
            yield f"{_some(self.odd)}: left out, as an empty name, . or .. in a key cannot be followed"
        if self.folders:
            yield f"{_some(self.folders)}: not gone into; --recursive does"


def _found_here(paths: Sequence[Path], recursive: bool, leave_out: Place) -> _Found:
    for path in paths:
        if not path.exists():
            raise SourceError(f"{path}: there is no such file or folder")
    places = [Path(os.path.abspath(path)) for path in paths]
    root = Path(os.path.commonpath([place if place.is_dir() else place.parent for place in places]))
    found = _Found(root, {}, [], [], [], [])
    for place in places:
        if place.is_file():
            found.images[place.relative_to(root).as_posix()] = place
            continue
        passed = {leave_out.resolve()} if isinstance(leave_out, Path) else set()
        for path in _entries(place, recursive, passed):
            found.sort(path, path.relative_to(root).as_posix(), is_folder=path.is_dir())
    return found


def _found_away(places: Sequence[RemotePath], recursive: bool, leave_out: Place) -> _Found:
    kinds = [place.kind() for place in places]
    for place, kind in zip(places, kinds, strict=True):
        if kind is None:
            raise SourceError(f"{place}: there is no such file or folder")
    folders = [place if kind == "folder" else place.parent for place, kind in zip(places, kinds, strict=True)]
    root = RemotePath(places[0].root, _common([folder.key for folder in folders]))
    found = _Found(root, {}, [], [], [], [])
    for place, kind in zip(places, kinds, strict=True):
        if kind == "file":
            found.images[place.under(root) or place.name] = place
            continue
        hidden: set[str] = set()
        for path, is_folder in place.entries(recursive=recursive):
            inside = path.under(place) or path.name
            if isinstance(leave_out, RemotePath) and (path == leave_out or path.under(leave_out)):
                continue
            # A listing goes into all folders; those that a walk would not enter are said once.
            closed = next((one for one in inside.split("/")[:-1] if is_hidden(Path(one))), None)
            if closed is None:
                found.sort(path, path.under(root) or path.name, is_folder=is_folder)
            elif closed not in hidden:
                hidden.add(closed)
                found.hidden.append(closed)
    return found


def _common(keys: Sequence[str]) -> str:
    """The folder that all of these folders are in."""
    shared = []
    for parts in zip(*(key.split("/") for key in keys), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


def _listed(path: Path) -> Sources:
    """The images that a list of http(s) addresses names, one to a line; empty lines and those with # are none."""
    try:
        if (size := path.stat().st_size) > _MOST_LIST_BYTES:
            raise SourceError(f"{path}: expected a list of at most {_MOST_LIST_BYTES} bytes, found {size}")
        lines = text_of(path).splitlines()
    except (OSError, UnicodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    addresses: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        parts = urlsplit(line)
        name = unquote(parts.path).strip("/")
        if parts.scheme.lower() not in ("http", "https") or not parts.netloc or not name:
            raise SourceError(f"{path}:{number}: expected an http(s) address of an image, found {line[:80]!r}")
        if ".." in name.split("/") or "\0" in name:
            raise SourceError(f"{path}:{number}: expected an address without .. in its path, found {line[:80]!r}")
        key = f"{parts.scheme.lower()}://{parts.netloc}/{name}"
        if addresses.setdefault(key, line) != line:
            raise SourceError(f"{path}:{number}: expected one address for each path, found {addresses[key]} and {line}")
    if not addresses:
        raise SourceError(f"{path}: expected http(s) addresses of images, one to a line, found none")
    root = _common([key.rpartition("/")[0] for key in addresses])
    if root.count("/") < 2:  # of several hosts
        raise SourceError(f"{path}: expected addresses of one host, found several")
    images = sorted(
        (SourceImage(line, key[len(root) + 1 :]) for key, line in addresses.items()), key=lambda one: one.name
    )
    return Sources(root, tuple(images), ())


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


def _some(names: Sequence[str]) -> str:
    first = ", ".join(names[:_SHOWN])
    return first if len(names) <= _SHOWN else f"{first} and {len(names) - _SHOWN} more"
