"""What is wrong with a data set that could be read: its image files, its boxes and polygons, what is there twice."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.data.dataset import Annotation, Dataset, LabelledImage, Place, Problem
from models.data.image_files import examine
from models.data.parsing.values import BadValueError, extent, shortest, sized
from models.images.notes import PhotoNotes

TOLERANCE = 1e-6  # pixels, to which coordinates are kept


@dataclass(frozen=True)
class ClassCount:
    """How much there is of one class. masks: objects of which more than the box is known."""

    name: str
    objects: int
    images: int
    masks: int
    crowds: int


def counts(dataset: Dataset) -> list[ClassCount]:
    """For each class, in order."""
    objects: Counter[str] = Counter()
    masks: Counter[str] = Counter()
    crowds: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for image in dataset.images:
        images.update({one.label for one in image.annotations})
        for one in image.annotations:
            objects[one.label] += 1
            masks[one.label] += one.has_mask
            crowds[one.label] += one.crowd
    return [ClassCount(name, objects[name], images[name], masks[name], crowds[name]) for name in dataset.class_names]


def check(dataset: Dataset, classes: Iterable[str] | None = None, notes: PhotoNotes | None = None) -> list[Problem]:
    """Every problem, in the order of the images. Reads every image file whole; fetches no URL.

    classes: the only ones there may be; None: any. notes: are told how the images were read.
    """
    allowed = None if classes is None else tuple(classes)
    problems: list[Problem] = []
    paths: dict[Any, LabelledImage] = {}
    contents: dict[str, LabelledImage] = {}
    for image in dataset.images:
        place = image.place or Place(Path(image.path))
        first = paths.setdefault(_identity(image.path), image)
        if first is not image:
            problems.append(_problem(place, f"the same image as in {first.place}", str(image.path)))
        elif isinstance(image.path, Path):
            problems += _file(image, image.path, place, contents, notes)
        problems += _objects(image, place, allowed)
    if allowed is not None:
        used = {one.label for _, one in dataset.annotations()}
        unknown = [name for name in dataset.class_names if name not in allowed and name not in used]
        if unknown:
            source = dataset.images[0].place if dataset.images else None
            reason = f"unknown classes without objects, {', '.join(unknown)}: expected one of {', '.join(allowed)}"
            problems.append(_problem(Place(source.file if source else Path(".")), reason))
    return problems


def _identity(path: Path | str) -> Any:
    """What two names of one image have in common: the file itself, whatever links lead to it."""
    if isinstance(path, str):
        return path
    try:
        found = os.stat(path)
    except OSError:  # it is missing, which is said of each name that it has
        return path
    return (found.st_dev, found.st_ino) if found.st_ino else path.resolve()


def _problem(place: Place, reason: str, about: str = "") -> Problem:
    return Problem(place, reason, fatal=False, about=about)


def _file(
    image: LabelledImage, path: Path, place: Place, contents: dict[str, LabelledImage], notes: PhotoNotes | None
) -> Iterator[Problem]:
    try:
        found = examine(path, image.page)
    except BadValueError as error:
        yield _problem(place, str(error))
        return
    if notes is not None:
        notes.add(path, found.page_count, found.reading)
    first = contents.setdefault(found.sha256, image)
    if first is not image:
        yield _problem(place, f"the same content as {first.path}", str(path))
    if image.size_hw != found.size_hw:
        reason = f"expected {sized(image.size_hw)}, as the data set says, found {sized(found.size_hw)}"
        if image.size_hw == found.stored_hw:
            reason += " (after the turn that the file's EXIF orientation asks for)"
        yield _problem(place, reason, str(path))


def _objects(image: LabelledImage, place: Place, allowed: tuple[str, ...] | None) -> Iterator[Problem]:
    height, width = image.size_hw
    seen: set[tuple[Any, ...]] = set()
    for one in image.annotations:
        for reason in _reasons(one, height, width):
            yield _problem(one.place or place, reason, _what(one, image))
        if allowed is not None and one.label not in allowed:
            reason = f"unknown class {one.label!r}: expected one of {', '.join(allowed)}"
            yield _problem(one.place or place, reason, _what(one, image))
        key = (one.label, one.box_xyxy, one.polygons, one.rle and one.rle["counts"], one.crowd)
        if key in seen:
            yield _problem(one.place or place, "the same object is there already", _what(one, image))
        seen.add(key)


def _reasons(one: Annotation, height: int, width: int) -> Iterator[str]:
    x1, y1, x2, y2 = one.box_xyxy
    if x1 >= x2 or y1 >= y2:
        kind = "empty" if x1 == x2 or y1 == y2 else "inverted"
        yield f"expected x1 < x2 and y1 < y2, found an {kind} box"
    elif not _inside(one.box_xyxy, width, height):
        yield f"the box reaches outside the image of {sized((height, width))}"
    for part in one.polygons or ():
        if len(part) < 6:
            yield f"expected polygons of 3 points or more, found {len(part) // 2}"
        elif not _inside(extent([part]), width, height):
            yield f"a polygon reaches outside the image of {sized((height, width))}"


def _what(one: Annotation, image: LabelledImage) -> str:
    return f"{image.name}: {one.label} {_numbers(one.box_xyxy)}"


def _inside(xyxy: tuple[float, float, float, float], width: int, height: int) -> bool:
    x1, y1, x2, y2 = xyxy
    return min(x1, y1) >= -TOLERANCE and x2 <= width + TOLERANCE and y2 <= height + TOLERANCE


def _numbers(values: Iterable[float]) -> str:
    return " ".join(map(shortest, values))
