"""A JSON file as text and as a document, or the line in which it is none."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from models.data.dataset import DataError, Place, Problem

Document = TypeVar("Document")


def written(path: Path) -> str:
    """The file's text: UTF-8, or UTF-16 where its mark says so, as PowerShell writes it. Raises OSError, ValueError."""
    content = path.read_bytes()
    return content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")


def parsed(path: Path, parse: Callable[[str], Document]) -> Document:
    """What `parse` makes of the file. Raises DataError where that is nothing."""
    try:
        return parse(written(path))
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} (column {error.colno})"
        raise DataError([Problem(Place(path, error.lineno), reason)]) from error
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, deep nesting
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error
