"""What is wrong with a data set that could be read: its image files, its boxes and polygons, what is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models.data.dataset import Annotation, Dataset, LabelledImage, Place, Problem
from models.data.images import examine
from models.data.values import BadValueError, extent, shortest

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


def check(dataset: Dataset, classes: Iterable[str] | None = None) -> list[Problem]:
    """Every problem, in the order of the images. Reads every image file whole; fetches no URL.

    classes: the only ones there may be; None: any.
    """
    allowed = None if classes is None else tuple(classes)
    problems: list[Problem] = []
    paths: dict[Path | str, LabelledImage] = {}
    contents: dict[str, LabelledImage] = {}
    for image in dataset.images:
        place = image.place or Place(Path(image.path))
        key = image.path.resolve() if isinstance(image.path, Path) else image.path
        first = paths.setdefault(key, image)
        if first is not image:
            problems.append(_problem(place, f"the same image as in {first.place}", str(image.path)))
        elif isinstance(image.path, Path):
            problems += _file(image, image.path, place, contents)
        problems += _objects(image, place, allowed)
    if allowed is not None:
        used = {one.label for _, one in dataset.annotations()}
        unknown = [name for name in dataset.class_names if name not in allowed and name not in used]
        if unknown:
            source = dataset.images[0].place if dataset.images else None
            reason = f"unknown classes without objects, {', '.join(unknown)}: expected one of {', '.join(allowed)}"
            problems.append(_problem(Place(source.file if source else Path(".")), reason))
    return problems


def _problem(place: Place, reason: str, about: str = "") -> Problem:
    return Problem(place, reason, fatal=False, about=about)


def _file(image: LabelledImage, path: Path, place: Place, contents: dict[str, LabelledImage]) -> Iterator[Problem]:
    try:
        found = examine(path)
    except BadValueError as error:
        yield _problem(place, str(error))
        return
    first = contents.setdefault(found.sha256, image)
    if first is not image:
        yield _problem(place, f"the same content as {first.path}", str(path))
    if image.size_hw != found.size_hw:
        reason = f"expected {_size(image.size_hw)}, as the data set says, found {_size(found.size_hw)}"
        if image.size_hw == found.stored_hw:
            reason += " (after the turn that the file's EXIF orientation asks for)"
        yield _problem(place, reason, str(path))


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[1]} x {size_hw[0]} pixels"


def _objects(image: LabelledImage, place: Place, allowed: tuple[str, ...] | None) -> Iterator[Problem]:
    height, width = image.size_hw
    seen: set[Annotation] = set()
    for one in image.annotations:
        where = one.place or place
        what = f"{image.name}: {one.label} {_numbers(one.box_xyxy)}"
        x1, y1, x2, y2 = one.box_xyxy
        if x1 >= x2 or y1 >= y2:
            kind = "empty" if x1 == x2 or y1 == y2 else "inverted"
            yield _problem(where, f"expected x1 < x2 and y1 < y2, found an {kind} box", what)
        elif not _inside(one.box_xyxy, width, height):
            yield _problem(where, f"the box reaches outside the image of {_size(image.size_hw)}", what)
        for part in one.polygons or ():
            if len(part) < 6:
                yield _problem(where, f"expected polygons of 3 points or more, found {len(part) // 2}", what)
            elif not _inside(extent([part]), width, height):
                yield _problem(where, f"a polygon reaches outside the image of {_size(image.size_hw)}", what)
        if allowed is not None and one.label not in allowed:
            yield _problem(where, f"unknown class {one.label!r}: expected one of {', '.join(allowed)}", what)
        if _key(one) in seen:
            yield _problem(where, "the same object is there already", what)
        seen.add(_key(one))


def _inside(xyxy: tuple[float, float, float, float], width: int, height: int) -> bool:
    x1, y1, x2, y2 = xyxy
    return min(x1, y1) >= -TOLERANCE and x2 <= width + TOLERANCE and y2 <= height + TOLERANCE


def _numbers(values: Iterable[float]) -> str:
    return " ".join(map(shortest, values))


def _key(one: Annotation) -> Annotation:
    """The annotation in a form that can be in a set: its run-length encoding as a tuple."""
    if one.rle is None:
        return one
    return Annotation(one.label, one.box_xyxy, ((*one.rle["counts"].encode(),),), None, one.crowd)
