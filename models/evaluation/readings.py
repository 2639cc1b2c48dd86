"""Which of its possible readings a list of results has: of `category_id`, of `image_id` and of `bbox`.

COCO's own reading is taken where it holds. Detectors also write a category's position in place of its id, corners in
place of a width and a height, and fractions in place of pixels. What shows that is told or asked for, never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from models.data.formats.coco.image_ids import as_number
from models.data.parsing.ids import Id, Ids

CategoryIds = Literal["ids", "from-0", "from-1"]
ImageIds = Literal["ids", "names"]
BoxForm = Literal["xywh", "xyxy", "xywh-fractions", "xyxy-fractions"]

_WORDS = {
    "ids": "ids",
    "from-0": "positions from 0",
    "from-1": "positions from 1",
    "names": "the numbers in the files' names",
}
_BEYOND = 0.01  # of a side, and two pixels: how far a box of a detector that clips none may leave the image
_SHARE = 0.05
_ENOUGH = 3  # objects that another reading has to fit before it speaks against the usual one

_Meant = TypeVar("_Meant")


class UnclearError(ValueError):
    """The list can be read in two ways; the message says which, and the option that chooses."""


@dataclass(frozen=True)
class Options:
    """Readings that were asked for; None: as the list itself tells."""

    category_ids: CategoryIds | None = None
    image_ids: ImageIds | None = None
    boxes: BoxForm | None = None


@dataclass(frozen=True)
class Chosen(Generic[_Meant]):
    """For each id in use what it stands for, without those that stand for nothing; and what should be said of it."""

    meaning: Mapping[Id, _Meant]
    note: str | None = None


def categories(
    used: Collection[Id],
    known: Sequence[tuple[Id, str]],
    names: Sequence[str],
    asked: CategoryIds | None = None,
    fits: Callable[[Mapping[Id, str]], int] | None = None,
) -> Chosen[str]:
    """The class of each `category_id` in use.

    known: the ids of the categories and their names; empty where the data have no ids. names: the classes in their
    order. fits: how many boxes have, by such a reading, the class of the object that they lie on; None where no objects
    are known. An id that is the text of a class's name is that class. Raises UnclearError.
    """
    table = ids_of(known)
    named: dict[Id, str] = {}
    for one in used:
        if isinstance(one, str) and one in names and table.get(one) is None:
            named[one] = one
    numbers = [one for one in used if one not in named]
    readings: dict[str, dict[Id, str]] = {"ids": _found(numbers, table)} if known else {}
    for start in (0, 1):
        readings[f"from-{start}"] = _found(numbers, ids_of(enumerate(names, start)))
    if asked is not None:
        if asked not in readings:
            raise UnclearError("--category-ids ids: there are no such ids; from-0 and from-1 are positions")
        return Chosen(named | readings[asked])
    if not numbers:
        return Chosen(named)
    whole = [one for one in readings if len(readings[one]) == len(numbers)]
    if not whole and known:
        return Chosen(named | readings["ids"])
    if not whole:
        raise UnclearError(
            f"category_id: expected the name of a class ({_few(names)}) as `label` or `category_id`, as there are no "
            f"ids of categories; found {_few(sorted(map(str, numbers)))}"
        )
    taken = _decided("category_id", "--category-ids", readings, whole, fits)
    note = None
    if taken != "ids":
        start = int(taken[-1])
        counted = _few([f"{index} is {name}" for index, name in enumerate(names, start)])
        why = f"not all are ids of categories ({_few([str(one) for one, _ in known])})" if known else "there are no ids"
        note = f"category_id is read as positions from {start}, as {why}: {counted}; --category-ids says otherwise"
    return Chosen(named | readings[taken], note)


def images(
    used: Collection[Id],
    known: Ids[_Meant],
    in_names: Ids[_Meant],
    in_coco_names: Ids[_Meant],
    way_out: str,
    asked: ImageIds | None = None,
    fits: Callable[[Mapping[Id, _Meant]], int] | None = None,
) -> Chosen[_Meant]:
    """The image of each `image_id` in use.

    known: by the ids of an annotation file; empty where there is none. in_names: by the number that a file is named
    with, which some detectors write. in_coco_names: the same of names like COCO's, where that number is the id.
    way_out: what else than an option helps where there are no ids. fits: how many boxes lie on an object by such a
    reading; None where no objects are known. Raises UnclearError.
    """
    readings = {"ids": _found(used, known), "names": _found(used, in_names)}
    if asked == "ids" and is_empty(known):
        raise UnclearError(f"--image-ids ids: there are no ids of images; {way_out}")
    if asked is not None:
        return Chosen(readings[asked])
    if not used:
        return Chosen({})
    if is_empty(known):
        if not is_empty(in_coco_names):
            return Chosen(_found(used, in_coco_names))
        raise UnclearError(
            f"image_id: found {_few(sorted(map(str, used)))}, and nothing says which images these are: {way_out}; "
            "--image-ids names takes the numbers that the files are named with"
        )
    if not readings["names"] or readings["ids"] == readings["names"]:
        return Chosen(readings["ids"])
    if len(readings["ids"]) > len(readings["names"]):
        return Chosen(readings["ids"])
    taken = "names"
    if readings["ids"]:
        taken = _decided("image_id", "--image-ids", readings, list(readings), fits)
    note = None
    if taken == "names":
        count = len(readings["names"])
        note = f"image_id is read as the number in a file's name, which fits {count}; --image-ids ids says otherwise"
    return Chosen(readings[taken], note)


def _decided(
    field: str,
    option: str,
    readings: Mapping[str, Mapping[Id, _Meant]],
    whole: Sequence[str],
    fits: Callable[[Mapping[Id, _Meant]], int] | None,
) -> str:
    """The reading to take, of those under which every id stands for something.

    Ids are ids unless what lies on what speaks against them. Raises UnclearError where two remain.
    """
    unlike = [one for at, one in enumerate(whole) if all(readings[one] != readings[other] for other in whole[:at])]
    if len(unlike) == 1:
        return unlike[0]
    counts = {one: 0 if fits is None else fits(readings[one]) for one in unlike}
    first, *others = sorted(unlike, key=lambda one: -counts[one])
    clear = counts[first] >= _ENOUGH and all(counts[first] > 2 * counts[one] for one in others)
    if "ids" in unlike and (first == "ids" or not clear):
        return "ids"
    if "ids" not in unlike and clear:
        return first
    said = " or ".join(
        _WORDS[one] + (f" ({counts[one]} boxes lie on such an object)" if fits is not None else "") for one in unlike
    )
    raise UnclearError(f"{field} can be {said}; say which: {' or '.join(f'{option} {one}' for one in unlike)}")


def box_doubt(boxes: np.ndarray, sizes_hw: np.ndarray) -> str | None:
    """What speaks against boxes (N, 4) being x, y, width and height in pixels, with the way out; None: nothing does.

    sizes_hw: (N, 2), the (height, width) of each box's image; 0 where that is not known.
    """
    if not len(boxes):
        return None
    if (boxes >= 0).all() and (boxes <= 1.000001).all() and (boxes % 1).any():
        return (
            f"bbox: all {len(boxes)} boxes are in 0..1: are these fractions of the width and height? --boxes "
            "xywh-fractions reads x, y, width and height as such, xyxy-fractions corners; --boxes xywh takes pixels"
        )
    known = (sizes_hw > 0).all(axis=1)
    first, second, sides = boxes[known, :2], boxes[known, 2:], sizes_hw[known, ::-1]
    if not len(first):
        return None
    edge = sides + np.maximum(2, _BEYOND * sides)
    beyond = ((first + second) > edge).any(axis=1)
    corners = (second > first).all(axis=1) & (second <= edge).all(axis=1)
    if corners.all() and beyond.any() or corners.mean() >= 1 - _SHARE and beyond.mean() > _SHARE:
        return (
            f"bbox: {int(beyond.sum())} of {len(beyond)} boxes end outside their image as x, y, width and height, and "
            "lie within it as corners: --boxes xyxy reads x1, y1, x2, y2, --boxes xywh what COCO has"
        )
    return None


def corners(box: Sequence[float], form: BoxForm, size_hw: tuple[int, int] | None) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 in pixels. size_hw: of the image, for fractions."""
    x, y, z, w = box
    if not form.startswith("xyxy"):
        z, w = x + z, y + w
    if form.endswith("fractions"):
        assert size_hw is not None
        height, width = size_hw
        x, y, z, w = x * width, y * height, z * width, w * height
    return x, y, z, w


def number_in_name(stem: str) -> int | None:
    """The `image_id` that a file is named after, where its name is one of COCO's: 000000000139, COCO_val2014_0000....

    Any other number in a name may be anything.
    """
    head, _, digits = stem.rpartition("_")
    if len(digits) != 12 or not digits.isascii() or not digits.isdigit():
        return None
    return as_number(digits) if not head or head.startswith("COCO_") else None


def ids_of(entries: Iterable[tuple[Id, _Meant]]) -> Ids[_Meant]:
    """What each id means; of an id that comes again, the first."""
    found: Ids[_Meant] = Ids()
    for identity, meant in entries:
        found.add(identity, meant)
    return found


def is_empty(ids: Ids[Any]) -> bool:
    return not list(ids.values())


def _found(used: Collection[Id], table: Ids[_Meant]) -> dict[Id, _Meant]:
    return {one: meant for one in used if (meant := table.get(one)) is not None}


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
