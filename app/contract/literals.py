"""Reads lists of numbers out of text: JSON's, and Python's literals as the catalog's clients write them with `str()`.

`ast.literal_eval` reads the same and much more, at half a kilobyte of memory for each character. Not read here, though
Python would: strings and other constants, sets, dicts, complex numbers, and a sign before a parenthesis.

LiteralError      the text is no list of numbers, or one nested too deeply
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

# Texts that stand for nothing, as pandas and Python clients write a missing value.
_NONE_TEXTS = frozenset({"", "none", "null", "nan"})
MAX_DEPTH = 16  # of brackets; prompts have three, and parentheses may stand around them

# Groups are repeated without `+` behind: up to Python 3.11.4, such a repetition that fails half way keeps what it had
# taken (`(?:,b)*+` takes the comma of `,c`). The engine keeps a place to go back to for each time: so there are bounds.
_PLAIN = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![\w.])"  # as JSON writes it
_MOST = 5000  # numbers at once, digits of a number (Python takes fewer), comments in a row
_DIGITS = rf"[0-9](?:_?[0-9]){{0,{_MOST}}}"
_BETWEEN = rf"(?:[ \t\f\r\n]++|\#[^\r\n]*+|\\\r?\n){{0,{_MOST}}}"  # white space, comments, lines that go on
_TOKEN = re.compile(
    rf"""
    {_BETWEEN} (?:
      (?P<numbers> {_PLAIN} (?: [ \t\r\n]*+ , [ \t\r\n]*+ {_PLAIN} ){{0,{_MOST}}} )
    | (?P<sign> [+-]?+ ) [ \t\f]*+
      (?: (?P<float> (?: {_DIGITS}\.(?:{_DIGITS})? | \.{_DIGITS} ) (?: [eE][+-]?{_DIGITS} )?
                   | {_DIGITS}[eE][+-]?{_DIGITS} )
        | (?P<int> 0[xX](?:_?[0-9a-fA-F]){{1,{_MOST}}} | 0[oO](?:_?[0-7]){{1,{_MOST}}}
                 | 0[bB](?:_?[01]){{1,{_MOST}}} | {_DIGITS} ) )
    | (?P<mark> [\[\](),] )
    | (?P<end> \Z )
    )""",
    re.VERBOSE,
)
_OPENING = {"]": "[", ")": "("}


class LiteralError(ValueError):
    """The text is no list of numbers, or one nested too deeply; says where or why."""


def is_nothing(value: object) -> bool:
    """Whether a cell of a table holds nothing: null, NaN, or a text that says so."""
    if isinstance(value, str):
        return value.strip().lower() in _NONE_TEXTS
    return value is None or (isinstance(value, float) and math.isnan(value))


def parse_numbers(text: str) -> Any:
    """The nested lists and tuples of int and float that the text holds; also a single number.

    JSON that holds other values gives them, so what comes out must be looked at. Raises LiteralError.
    """
    try:
        return json.loads(text)  # most of what comes, and fast
    except (ValueError, RecursionError):
        return _parse(text)


class _Level:
    """What has been read between one pair of brackets, or outside of all."""

    __slots__ = ("opening", "items", "has_comma", "wants_item")

    def __init__(self, opening: str) -> None:
        self.opening = opening
        self.items: list[Any] = []
        self.has_comma = False
        self.wants_item = True

    def add(self, items: list[Any]) -> None:
        if not self.wants_item:
            raise LiteralError("two values without a comma")
        self.items += items
        self.has_comma |= len(items) > 1
        self.wants_item = False

    def value(self) -> Any:
        if self.opening == "[":
            return self.items
        # Parentheses without a comma only stand around a value; so does nothing at all.
        return tuple(self.items) if self.has_comma or not self.items else self.items[0]


def _parse(text: str) -> Any:
    levels = [_Level("")]
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise LiteralError(f"at {text[place : place + 20]!r}")
        place, level, mark = token.end(), levels[-1], token["mark"]
        if token["numbers"] is not None:  # most of them at once
            level.add(_plain(token["numbers"]))
        elif mark is None:
            if token["end"] is None:
                level.add([_number(token)])
        elif mark == ",":
            if level.wants_item:
                raise LiteralError("a comma without a value")
            level.has_comma = level.wants_item = True
        elif mark in _OPENING:
            if level.opening != _OPENING[mark]:
                raise LiteralError(f"{mark!r} closes nothing")
            levels.pop()
            levels[-1].add([level.value()])
        elif len(levels) > MAX_DEPTH:
            raise LiteralError("nested too deeply")
        else:
            levels.append(_Level(mark))
    if len(levels) > 1 or not levels[0].items:
        raise LiteralError("it has no end")
    return levels[0].value()


def _plain(numbers: str) -> list[int | float]:
    try:
        return list(json.loads(f"[{numbers}]"))
    except ValueError as error:  # more digits than Python converts
        raise LiteralError("a number of too many digits") from error


def _number(token: re.Match[str]) -> int | float:
    """A number that JSON would write in another way."""
    try:
        digits = token["float"]
        number = int(token["int"], 0) if digits is None else float(digits.replace("_", ""))
    except ValueError as error:  # leading zeros, or more digits than Python converts
        raise LiteralError(f"{token[0].strip()[:20]!r} is no number") from error
    return -number if token["sign"] == "-" else number
