"""An XML file as a tree of elements that know their lines, whatever encoding it declares."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
# What the parser reads by itself; it asks for every other encoding, and takes those of one byte a character only.
_PARSERS_OWN = frozenset({"utf-8", "iso-8859-1", "us-ascii"})
_WIDE = ("utf-16", "utf16", "ucs-2", "utf-32", "utf32")
# Python has these as text encodings; no XML file is written in them.
_NO_ENCODINGS_OF_FILES = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"})


@dataclass(slots=True)
class Element:
    """An XML element, and the line that it starts on."""

    tag: str
    line: int
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        return (child for child in self.children if child.tag == tag)

    def first(self, tag: str) -> Element | None:
        return next(self.all(tag), None)


class ElementError(Exception):
    """What is wrong in an XML file, and on which line."""

    def __init__(self, line: int, reason: object) -> None:
        super().__init__(str(reason))
        self.line = line


def parse(file: Path) -> Element:
    """The file's outermost element, as `parse_content` finds it. Raises ElementError, and OSError as reading does."""
    return parse_content(file.read_bytes())


def parse_content(content: bytes) -> Element:
    """A document's outermost element. An encoding that the parser lacks, GB2312 say, is decoded as Python does.

    Raises ElementError for what is no XML, an encoding that nobody knows, text that is not in its encoding, and for
    entities that a document defines for itself.
    """
    declared = _DECLARED.match(content)
    encoding = None
    if declared is not None:
        name = declared[1].decode("ascii")
        if name.lower().startswith(_WIDE):  # it could not be read as ASCII if it were: .NET's writers leave this behind
            encoding = "utf-8"
        elif name.lower() not in _PARSERS_OWN:
            content, encoding = _decoded(content, name), "utf-8"
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    stack: list[tuple[Element, list[str]]] = [(Element("", 0), [])]  # what is open, with the pieces of its text

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, parser.CurrentLineNumber, attributes=attributes)
        stack[-1][0].children.append(element)
        stack.append((element, []))

    def end(tag: str) -> None:
        element, pieces = stack.pop()
        element.text = "".join(pieces)

    def characters(content: str) -> None:
        stack[-1][1].append(content)

    def entity(name: str, *rest: object) -> None:
        raise ElementError(parser.CurrentLineNumber, f"expected plain XML, found the definition of an entity {name!r}")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ElementError(error.lineno, f"not XML: {expat.ErrorString(error.code)}") from error
    return stack[0][0].children[0]


def _decoded(content: bytes, encoding: str) -> bytes:
    """The same text in UTF-8."""
    try:
        if codecs.lookup(encoding).name.replace("-", "_") in _NO_ENCODINGS_OF_FILES:  # whatever it is called by
            raise LookupError
        return content.decode(encoding).encode("utf-8")
    except LookupError as error:
        reason = f"expected an encoding that Python knows, found {encoding!r}: save the file as UTF-8"
        raise ElementError(1, reason) from error
    except UnicodeError as error:
        line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise ElementError(line, f"not {encoding}, which the file declares ({error}): save it as UTF-8") from error
