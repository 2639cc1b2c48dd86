"""What stands in place of an image's base64, and the way out: the end of an error's sentence, "" where it is unknown.

Only looks at what was refused already, and quotes nothing of it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

_LOOKED_AT = 4096  # characters: what an image is not, its beginning tells
_ENCODE = "send base64.b64encode(data).decode() of the file's bytes"
_CONTENT = "the service cannot see your files: send the content of the file, as base64"
_PATH = re.compile(
    r"(?:[A-Za-z]:)?[^\n]{0,300}?\.(?:jpe?g|jfif|png|webp|bmp|gif|tiff?|heic|avif|txt|b64)", re.IGNORECASE
)
_FOLDERS = re.compile(r"(?:[A-Za-z]:[\\/]|\.{0,2}/|~/|\\\\)?(?:[\w .-]+[\\/])+[\w .-]+")
_HEX = re.compile(r"(?:0x|\\x)?(?:[0-9a-f]{2}[\s:]?)+", re.IGNORECASE)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{1,20})://", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\$\{?\w+\}?|\{\{?[\w .-]*\}?\}|<[\w .-]*>|%\w+%")


def of_value(value: object) -> str:
    """Of a value that is no text."""
    if isinstance(value, list):
        if value and all(isinstance(one, str) for one in value):
            return "; leave out the list around it: a row has one image"
        return "; are these bytes or pixels? Send the file's bytes as base64"
    if isinstance(value, dict):
        return "; send the base64 of the file alone"
    return "; every row needs an image" if value is None or value != value else ""


def of_text(text: str, is_image: Callable[[bytes], bool]) -> str:
    """Of a text that is not the base64 of an image. is_image: whether a file that begins so is one."""
    text = text.strip()
    start = text[:_LOOKED_AT]
    if start[:2] in ("b'", 'b"'):
        return f"; it is Python's text of bytes, b'...': {_ENCODE}"
    if start.lower().startswith("file:"):
        return f"; {_CONTENT}"
    scheme = _SCHEME.match(start)
    if scheme is not None:
        return f"; of URLs only http(s) is fetched, not {scheme[1].lower()}: send a signed https URL, or base64"
    if _PLACEHOLDER.fullmatch(start):
        return "; is this a placeholder, in which no image was put?"
    if start.startswith('"'):
        return "; it has quotes inside its quotes, of JSON inside JSON: encode it once"
    if start.startswith(("[", "array(", "tensor(", "(")):
        is_literal = re.match(r"[\[(]+\s*-?\d", start) is not None and len(text) < 200
        order = (
            " The values of a row stand in the order of columns"
            if is_literal
            else f" {_ENCODE[0].upper()}{_ENCODE[1:]}"
        )
        return f"; are these {'points or boxes' if is_literal else 'pixels or bytes, as text'}?{order}"
    if start.startswith("{"):
        return "; it is JSON inside JSON: send the base64 alone"
    if start.startswith("<"):
        return f"; it is the text of a Python object, or of a web page: {_ENCODE}"
    if len(text) <= 400 and (_PATH.fullmatch(text) or _FOLDERS.fullmatch(text)):
        return f"; is this a path? {_CONTENT[0].upper()}{_CONTENT[1:]}"
    if _HEX.fullmatch(start[:512]) and is_image(_from_hex(start[:64])):
        return f"; it is hexadecimal: {_ENCODE}"
    if "\\n" in start or "\\/" in start:
        return "; its backslashes are of JSON inside JSON: encode it once"
    if re.search("%(?:2[BbFf]|3[Dd])", start) or re.search("%(?:2[BbFf]|3[Dd])", text[-8:]):
        return "; it is percent-encoded, as in a URL: send the base64 as it is"
    if text.endswith("..."):
        return "; it was cut short, as print() does with long text: send all of it"
    if is_image(_twice(start)):
        return "; it is base64 of base64: encode it once"
    return ""


def _from_hex(text: str) -> bytes:
    digits = re.sub(r"[\s:]", "", re.sub(r"\A(?:0x|\\x)", "", text))
    return bytes.fromhex(digits[: len(digits) // 2 * 2])


def _twice(text: str) -> bytes:
    """What is in base64 of base64, of which the beginning is enough."""
    try:
        inner = binascii.a2b_base64(text[:64])
        return binascii.a2b_base64(inner[:32])
    except ValueError:
        return b""
