"""What lies at a path, looked at once for all formats: names, and the first bytes of JSON and XML files.

A JSON file may have hundreds of megabytes. What it is shows in the names at its beginning.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

FIRST_BYTES = 4096
MORE_BYTES = 262_144  # where those do not say what it is
MOST_YAML = 1_000_000  # bytes; twenty thousand names of classes take half of it
DEEPEST, LONGEST_NAME = 12, 80  # of what is remembered of it

# What operating systems and notebooks leave in folders.
_LEFT_BEHIND = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[{}\[\]:,]', re.DOTALL)  # a text may be cut off
_ROOT = re.compile(rb"<([A-Za-z_][\w.-]*)")


def is_hidden(path: Path) -> bool:
    """Whether it is no part of any data set: `.DS_Store`, `._photo.json`, `__MACOSX`, notebook checkpoints."""
    return path.name.startswith(".") or path.name.lower() in _LEFT_BEHIND


def visible(folder: Path) -> list[Path]:
    """What is in the folder, sorted, without what is hidden. Nothing, where it cannot be looked into."""
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path))
    except OSError:
        return []


def walk(folder: Path) -> Iterator[Path]:
    """The files in the folder and all that are in it, sorted as people count, without what is hidden.

    Links to folders are followed, but no folder is gone through twice.
    """
    yield from _walk(folder, set())


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    folders = []
    for path in sorted(visible(folder), key=natural):
        if os.path.isdir(path):  # which is no error where it may not be looked at
            folders.append(path)
        else:
            yield path
    for one in folders:
        yield from _walk(one, seen)


def natural(path: Path) -> list[tuple[int, str]]:
    """For sorting by name, 2 before 10."""
    return natural_text(path.name)


def natural_text(text: str) -> list[tuple[int, str]]:
    """For sorting texts, with the numbers in them by their value."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(one), "") if one.isdecimal() and len(one) < 1000 else (-1, one) for one in parts]


def text_of(path: Path) -> str:
    """The file's text: UTF-8, or UTF-16 where its mark says so, as PowerShell writes it.

    Raises OSError, and UnicodeError for another encoding.
    """
    content = path.read_bytes()
    return content.decode(marked(content) or "utf-8-sig")


def yaml_text(path: Path) -> str:
    """The text of a YAML file, whose parser takes a minute for a megabyte. Raises OSError for a larger one, too."""
    if (size := path.stat().st_size) > MOST_YAML:
        raise OSError(f"expected at most {MOST_YAML} bytes of YAML, found {size}")
    return text_of(path)


def marked(content: bytes) -> str | None:
    """UTF-16, where the content begins with its mark; no other text does."""
    return "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None


class Glance(NamedTuple):
    """The beginning of a JSON document.

    top: `{`, `[` or nothing. paths: the names in it, each after those around it: `images[].file_name`, and `[].data`
    where the document is a list. Names that are the same as others but for what stands before are there once.
    """

    top: str
    paths: frozenset[str]

    def has(self, *paths: str) -> bool:
        """Whether all of these are there."""
        return self.paths.issuperset(paths)

    def has_any(self, *paths: str) -> bool:
        return not self.paths.isdisjoint(paths)

    def ends(self, *names: str) -> bool:
        """Whether one of these names is there, anywhere."""
        return any(path.rsplit(".", 1)[-1] in names for path in self.paths)


NOTHING = Glance("", frozenset())


class Contents:
    """A file, or a folder with its files. What was looked at is remembered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_file = path.is_file()
        self._glances: dict[Path, Glance] = {}
        self._roots: dict[Path, str] = {}

    @property
    def folder(self) -> Path:
        return self.path.parent if self.is_file else self.path

    def files(self, suffixes: Iterable[str], folders: Iterable[str] = (".",)) -> Iterator[Path]:
        """The file itself, or those that are in these folders here, sorted, if their suffix is one of these."""
        paths = [self.path] if self.is_file else (path for one in folders for path in visible(self.path / one))
        known = tuple(suffixes)
        return (path for path in paths if path.suffix.lower() in known and path.is_file())

    def json_files(self, folders: Iterable[str] = (".",)) -> Iterator[tuple[Path, Glance]]:
        """The JSON files, each with its beginning."""
        for path in self.files((".json",), folders):
            yield path, self.glance(path)

    def glance(self, path: Path) -> Glance:
        """The beginning of a JSON file; nothing, where it cannot be read."""
        if path not in self._glances:
            self._glances[path] = glance(path)
        return self._glances[path]

    def root(self, path: Path) -> str:
        """The name of an XML file's outermost element; empty where there is none at its beginning."""
        if path not in self._roots:
            self._roots[path] = _root(path)
        return self._roots[path]


def glance(path: Path) -> Glance:
    """The beginning of a JSON file; nothing, where it cannot be read or is no JSON."""
    try:
        with path.open("rb") as file:
            first = file.read(FIRST_BYTES)
            found = _glance(first)
            if len(first) == FIRST_BYTES and len(found.paths) < 12:
                found = _glance(first + file.read(MORE_BYTES - FIRST_BYTES))
    except OSError:
        return NOTHING
    return found


def _glance(content: bytes) -> Glance:
    return text_glance(content.decode(marked(content) or "utf-8-sig", "replace"))


def text_glance(text: str) -> Glance:
    """What is in the text as far as it goes."""
    text = text.lstrip()
    if text[:1] not in ("{", "["):
        return NOTHING
    paths: set[str] = set()
    around: list[str] = []  # for each bracket that is open, the path of what is in it
    name, last = "", ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in "{[":
            outside = around[-1] if around else ""
            inside = f"{outside}.{name}" if name and outside else name or outside
            if len(around) >= DEEPEST:
                inside = around[-1]
            elif token == "[":
                inside += "[]"
            around.append(inside)
            name = ""
        elif token in "}]":
            if around:
                around.pop()
            name = ""
        elif token == ":":
            name = last[1:-1][:LONGEST_NAME]
            paths.add(f"{around[-1]}.{name}" if around and around[-1] else name)
        elif token == ",":
            name = ""
        last = token
    return Glance(text[0], frozenset(paths))


def _root(path: Path) -> str:
    try:
        with path.open("rb") as file:
            first = file.read(FIRST_BYTES)
    except OSError:
        return ""
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        first = first.decode("utf-16", "ignore").encode()
    found = _ROOT.search(re.sub(rb"<!--.*?-->", b"", first, flags=re.DOTALL))
    return found[1].decode("ascii", "replace") if found else ""
