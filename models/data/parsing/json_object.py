"""A JSON object whose lists are read with the line that each of their entries starts on, one entry at a time."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
# An object without others in it: where it ends is seen so in a quarter of the time that making it takes.
_FLAT = re.compile(r'\{[^{}"]*+(?:"[^"\\]*+"[^{}"]*+)*\}')


class Entry(NamedTuple):
    """An element of a list, and its line counted from 1."""

    line: int
    value: Any


class Entries:
    """A list of the document. Its elements are made anew each time that they are gone through.

    A million objects as Python's own take gigabytes; the text that they are in, and where each starts, a tenth.
    """

    def __init__(self, text: str, starts: array[int]) -> None:
        self._text = text
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Entry]:
        """Raises json.JSONDecodeError for an element that cannot be made."""
        text, line, counted, decode = self._text, 1, 0, _DECODER.raw_decode
        for at in self._starts:
            line, counted = line + text.count("\n", counted, at), at
            try:
                value = decode(text, at)[0]
            except json.JSONDecodeError:
                raise
            except ValueError as error:  # a number of thousands of digits
                raise json.JSONDecodeError(str(error), text, at) from error
            except RecursionError as error:  # which `parse` did not meet, as it was called from less deep
                raise json.JSONDecodeError("Nested too deeply", text, at) from error
            yield Entry(line, value)


def parse(text: str) -> dict[str, Any]:
    """The object: `Entries` where the value is a list, else the value as it is.

    Raises json.JSONDecodeError, which has the line, as `json.loads` does; also for a document that is no object. Going
    through `Entries` raises it for what is broken within an element.
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
                starts, at = _elements(text, at)
                found[key] = Entries(text, starts)
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


def _elements(text: str, at: int) -> tuple[array[int], int]:
    """Where each element of the list that opens at `at` starts, and where the list ends."""
    starts = array("q")
    at = _after(text, "[", at)
    while text[at : at + 1] != "]":
        starts.append(at)
        flat = _FLAT.match(text, at)
        at = _skip(text, flat.end() if flat else _DECODER.raw_decode(text, at)[1])
        if text[at : at + 1] != "]":
            at = _after(text, ",", at)
            if text[at : at + 1] == "]":
                raise json.JSONDecodeError("Expecting value", text, at)
    return starts, at + 1


def _after(text: str, expected: str, at: int) -> int:
    """Where to go on behind the expected character and the white space that follows it."""
    if text[at : at + 1] != expected:
        raise json.JSONDecodeError(f"Expecting {expected!r}", text, at)
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too


def parse_list(text: str) -> Entries:
    """The list that the document is. Raises json.JSONDecodeError; also for a document that is no list."""
    starts, at = _elements(text, _skip(text, 0))
    if (end := _skip(text, at)) != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return Entries(text, starts)
