"""A list of results as COCO's tools exchange it: [{"image_id", "category_id", "bbox", "score"}, ...], entry by entry.

What stands in an entry is read here; which image, class and pixels it means is decided in `readings.py`, by the whole
list. `bbox` may be missing beside a `segmentation`, and either may be text that holds the list. A name of the image or
of the class beside the ids, as Ultralytics and others write it, goes before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.data.formats.coco.image_ids import identity
from models.data.parsing.ids import Id
from models.data.parsing.values import BadValueError, coordinate, listed, score_of, shown

FIELDS = "image_id, category_id, bbox and score"
# Lists of results within an object, by the name that tools give them.
WRAPPERS = ("annotations", "predictions", "results", "detections")
_IMAGE_NAMES = ("file_name", "image_name", "filename")
_LABELS = ("label", "category_name", "class_name")

Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class Listed:
    """One entry: what it says itself.

    index: its place in the list, from 0. image: its `image_id`, None where only a name is known. box: four numbers of
    an order and a scale that the list as a whole has; None with a segmentation alone. score: None without one.
    """

    index: int
    image: Id | None
    image_name: str | None
    category: Id | None
    label: str | None
    box: Four | None
    segmentation: Any
    score: float | None


@dataclass(frozen=True)
class Bad:
    """An entry that cannot be read, and why."""

    index: int
    reason: str

    def __str__(self) -> str:
        return f"entry {self.index}: {self.reason}"


def is_wrapped(content: Any) -> Sequence[Any] | None:
    """The list of results that an object holds instead of a data set, or None."""
    if not isinstance(content, dict) or isinstance(content.get("images"), list):
        return None
    for name in WRAPPERS:
        found = content.get(name)
        if isinstance(found, list) and found and isinstance(found[0], dict) and "image_id" in found[0]:
            return found
    return None


def parse(content: Sequence[Any]) -> tuple[list[Listed], list[Bad]]:
    """The entries that can be read, and those that cannot."""
    entries, bad = [], []
    for index, entry in enumerate(content):
        try:
            entries.append(_entry(index, entry))
        except BadValueError as error:
            known = entry.get("image_id") if isinstance(entry, dict) else None
            bad.append(Bad(index, str(error) if known is None else f"image {known}: {error}"))
    return entries, bad


def is_named(content: Any) -> bool:
    """Whether it is boxes by the names of images: {"photo.jpg": [{"box": [x1, y1, x2, y2], "label", "score"}, ...]}."""
    if not isinstance(content, dict) or not content or isinstance(content.get("images"), list):
        return False
    return all(
        isinstance(boxes, list)
        and all(isinstance(one, list) or isinstance(one, dict) and "box" in one for one in boxes)
        for boxes in content.values()
    )


def parse_named(content: Mapping[str, Sequence[Any]]) -> tuple[list[Listed], list[Bad]]:
    """The same of boxes by the names of images; counted through all of the file."""
    entries, bad = [], []
    index = 0
    for name, boxes in content.items():
        for one in boxes:
            try:
                its = one if isinstance(one, dict) else {"box": one}
                x1, y1, x2, y2 = four(its["box"], "box", "[x1, y1, x2, y2]")
                score = None if its.get("score") is None else score_of(its["score"])
                box = (x1, y1, x2 - x1, y2 - y1)
                entries.append(Listed(index, None, name, None, _first_text(its, _LABELS), box, None, score))
            except BadValueError as error:
                bad.append(Bad(index, f"image {name}: {error}"))
            index += 1
    return entries, bad


def _entry(index: int, entry: Any) -> Listed:
    if not isinstance(entry, dict):
        raise BadValueError(f"expected an object with {FIELDS}, found {shown(entry)}")
    image_name, label = _first_text(entry, _IMAGE_NAMES), _first_text(entry, _LABELS)
    image = None
    if image_name is None or entry.get("image_id") is not None:
        image = identity(entry.get("image_id"), "image_id")
    category = None if entry.get("category_id") is None else identity(entry["category_id"], "category_id")
    segmentation = listed(entry.get("segmentation"))
    if segmentation in ([], {}, ""):
        segmentation = None
    box = None
    if entry.get("bbox") is not None or segmentation is None:
        box = four(entry.get("bbox"), "bbox")
    score = None
    if entry.get("score") is not None:
        score = score_of(entry["score"])
    return Listed(index, image, image_name, category, label, box, segmentation, score)


def four(value: Any, field: str, expected: str = "[x, y, width, height]") -> Four:
    """Four finite numbers, within what any image can hold. Raises BadValueError."""
    value = listed(value)
    if not isinstance(value, list) or len(value) != 4:
        raise BadValueError(f"{field}: expected {expected}, found {shown(value)}")
    x, y, z, w = (coordinate(one, field) for one in value)
    return x, y, z, w


def _first_text(entry: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((entry[name] for name in names if isinstance(entry.get(name), str) and entry[name].strip()), None)
