"""The ids of a COCO file: which image and which class each of them stands for.

`coco.read` needs them only while it reads. A list of results names images and classes by nothing else, so they are read
again for it; the annotations, which are most of such a file, are dropped as they are parsed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.data.dataset import DataError, Place, Problem
from models.data.parsing.contents import text_of
from models.data.parsing.ids import Id
from models.data.parsing.values import BadValueError, shown


@dataclass(frozen=True)
class ImageEntry:
    """An image of the file. name: its `file_name`. size_hw: (height, width), or None where the file has no size."""

    id: Id
    name: str
    size_hw: tuple[int, int] | None


@dataclass(frozen=True)
class CocoIds:
    """Images and categories (id and name), each in the order of the file. What has no id or no name is left out."""

    images: tuple[ImageEntry, ...]
    categories: tuple[tuple[Id, str], ...]


def as_number(identity: Id) -> int | None:
    """The number that an id is or is written as; None where it is none."""
    if isinstance(identity, int):
        return identity
    return int(identity) if re.fullmatch("[0-9]{1,18}", identity) else None


def identity(value: Any, field: str) -> Id:
    """An id as other tools write it: a number, a number with `.0` behind it, or text. Raises BadValueError."""
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(text[:-2]) if re.fullmatch(r"[0-9]{1,18}\.0", text) else text
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int):
            return value
        if value.is_integer():
            return int(value)
    raise BadValueError(f"{field}: expected a number or text, found {shown(value)}")


def read(path: Path) -> CocoIds:
    """The ids of the file. Raises DataError when it is no COCO file."""
    try:
        content = json.loads(text_of(path), object_hook=_without_annotations)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError([Problem(Place(path), "expected a COCO file with a list `images`, found none")])
    listed = content.get("categories")
    images = [entry for entry in map(_image, content["images"]) if entry is not None]
    categories = [entry for entry in map(_category, listed if isinstance(listed, list) else ()) if entry is not None]
    return CocoIds(tuple(images), tuple(categories))


def _without_annotations(entry: dict[str, Any]) -> dict[str, Any] | None:
    return None if "image_id" in entry else entry


def _image(entry: Any) -> ImageEntry | None:
    try:
        own, name = identity(entry["id"], "id"), entry["file_name"]
    except (BadValueError, KeyError, TypeError):
        return None
    if not isinstance(name, str):
        return None
    sides = [entry.get(side) for side in ("height", "width")]
    try:
        height, width = (int(float(side)) for side in sides)
    except (TypeError, ValueError, OverflowError):
        height = width = 0
    return ImageEntry(own, name, (height, width) if height > 0 and width > 0 else None)


def _category(entry: Any) -> tuple[Id, str] | None:
    try:
        own, name = identity(entry["id"], "id"), entry["name"]
    except (BadValueError, KeyError, TypeError):
        return None
    return (own, name) if isinstance(name, str) else None
