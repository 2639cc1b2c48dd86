"""A JSON object whose lists are read with the line that each of their entries starts on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Entry(NamedTuple):
    """An element of a list, and its line counted from 1."""

    line: int
    value: Any


def parse(text: str) -> dict[str, Any]:
    """The object: a list of Entry where the value is a list, else the value as it is.

    Raises json.JSONDecodeError, which has the line, as `json.loads` does; also for a document that is no object.
    """
    at = _after(text, "{", _skip(text, 0))
    found: dict[str, Any] = {}
    if text[at : at + 1] == "}":
        at += 1
    else:
        while True:
            if text[at : at + 1] != '"':
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
            key, at = _DECODER.raw_decode(text, at)
            at = _after(text, ":", _skip(text, at))
            if text[at : at + 1] == "[":
                found[key] = []
                for entry, end in _elements(text, at):
                    if entry is not None:
                        found[key].append(entry)
                    at = end
            else:
                found[key], at = _DECODER.raw_decode(text, at)
            at = _skip(text, at)
            if text[at : at + 1] == "}":
                at += 1
                break
            at = _after(text, ",", at)
    if (end := _skip(text, at)) != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return found


def _elements(text: str, at: int) -> Iterator[tuple[Entry | None, int]]:
    """Each element of the list that opens at `at` and where it ends; at last None and where the list ends."""
    line, counted = text.count("\n", 0, at) + 1, at
    at = _after(text, "[", at)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, at = _DECODER.raw_decode(text, at)
        yield Entry(line, value), at
        at = _skip(text, at)
        if text[at : at + 1] != "]":
            at = _after(text, ",", at)
            if text[at : at + 1] == "]":
                raise json.JSONDecodeError("Expecting value", text, at)
    yield None, at + 1


def _after(text: str, expected: str, at: int) -> int:
    """Where to go on behind the expected character and the white space that follows it."""
    if text[at : at + 1] != expected:
        raise json.JSONDecodeError(f"Expecting {expected!r}", text, at)
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
