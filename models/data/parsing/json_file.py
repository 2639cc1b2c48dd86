"""A JSON file as text and as a document, or the line in which it is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from models.data.dataset import DataError, Place, Problem
from models.data.parsing.contents import text_of

Document = TypeVar("Document")


def parsed(path: Path, parse: Callable[[str], Document]) -> Document:
    """What `parse` makes of the file. Raises DataError where that is nothing."""
    try:
        return parse(text_of(path))
    except json.JSONDecodeError as error:
        raise not_json(path, error) from error
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, deep nesting
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error


def not_json(path: Path, error: json.JSONDecodeError) -> DataError:
    """What is said of a file that is no JSON, with the line."""
    return DataError([Problem(Place(path, error.lineno), f"not JSON: {error.msg} (column {error.colno})")])
