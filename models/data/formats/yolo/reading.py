"""YOLO's text files: for each image a file of the same stem, and a line in it for each object, in 0..1.

    class x y width height              a box, by its centre
    class x1 y1 x2 y2 x3 y3 ...         an outline, of three points or more

The classes are numbers; their names are in `data.yaml` (Ultralytics, Roboflow), `classes.txt` (Label Studio, labelImg)
or `obj.names` (Darknet, CVAT). Label files are beside the images, or in `labels/` where the images are in `images/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.formats.protocol import Format, Writer
from models.data.formats.yolo import places as yolo_places
from models.data.formats.yolo.writing import check, write
from models.data.image_files import size_hw
from models.data.parsing import classes
from models.data.parsing.contents import text_of
from models.data.parsing.shapes import Tally, outlined
from models.data.parsing.sources import Sources
from models.data.parsing.values import BadValueError, EmptyBoxError, box, number, score_of, shortest, shown

FAR_OUTSIDE = 4.0  # in widths and heights of the image: no box reaches there
_RIGHT_ANGLE = 0.02  # cosine of an angle that is nearly right

Lines = list[tuple[int, list[float]]]  # the line, and the numbers on it


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """The images in the order in which `data.yaml` or their folder has them, and what could not be read.

    path: `data.yaml`, or a folder. An image without a label file has no objects, as Ultralytics takes it. Sizes are
    read from the images. Raises DataError where there are no labels, or where all of them are turned boxes.
    """
    found = yolo_places.look(path, sources)
    return _Reading(found, sources).all()


class _Reading:
    def __init__(self, found: yolo_places.Layout, sources: Sources) -> None:
        self._found = found
        self._sources = sources
        self._names = found.names
        self._problems: list[Problem] = list(found.problems)
        self._tally = Tally()
        self._largest = -1
        self._turned = self._straight = 0
        self._first_turned: Place | None = None

    def all(self) -> tuple[Dataset, list[Problem]]:
        images = []
        for image, label in self._found.pairs:
            try:
                images.append(self._image(image, label))
            except BadValueError as error:
                self._problems.append(Problem(Place(label or Path(image)), str(error)))
            except (OSError, UnicodeError) as error:
                self._problems.append(Problem(Place(label or Path(image)), f"cannot be read ({error})"))
        if self._turned and not self._straight:
            reason = (
                f"all {self._turned} objects are turned boxes of four corners (YOLO OBB): expected boxes or outlines; "
                "write them as class x y width height, or as masks"
            )
            raise DataError([Problem(self._first_turned or Place(self._found.path), reason)])
        names = self._class_names()
        self._problems += self._tally.notes()
        return classes.dataset(names, images, self._problems, str(self._found.listed_in)), self._problems

    def _class_names(self) -> tuple[str, ...]:
        if self._names is not None:
            return tuple(dict.fromkeys(self._names.values()))
        reason = (
            "no data.yaml, classes.txt or obj.names says what the classes are called: they are called by their numbers"
        )
        self._problems.append(Problem(Place(self._found.path), reason, fatal=False))
        return tuple(map(str, range(self._largest + 1)))

    def _image(self, image: Path | str, label: Path | None) -> LabelledImage:
        if isinstance(image, str):
            raise BadValueError(f"expected an image file, as YOLO states no sizes, found the address {image}")
        hw = size_hw(image, self._sources.page)
        if label is None:
            self._tally.add("{count} images have no label file: they are taken as images without objects", Place(image))
            return LabelledImage(image, hw, (), Place(image))
        objects = []
        lines = [
            (line, re.split(r"[\s,]+", written.strip()))
            for line, written in enumerate(text_of(label).splitlines(), start=1)
            if written.strip()
        ]
        exact = self._sources.normalized is False or self._found.keypoints
        more = 0 if exact else _more([fields[1:] for _, fields in lines])
        for line, fields in lines:
            place = Place(label, line)
            try:
                objects.append(self._object(fields, hw, place, more))
            except EmptyBoxError as error:
                self._problems.append(Problem(place, f"{error}: left out", fatal=False))
            except BadValueError as error:
                self._problems.append(Problem(place, str(error)))
        return LabelledImage(image, hw, tuple(objects), Place(label, 1))

    def _object(self, fields: Sequence[str], hw: tuple[int, int], place: Place, more: int) -> Annotation:
        """more: how many numbers at the end of each line of the file are no coordinates."""
        first, *rest = fields
        name = self._class(first, rest)
        if more == 2:
            rest = rest[:-1]
            self._tally.add("{count} lines end with the number of a track: it is left out", place)
        values = [number(one, f"number {index}") for index, one in enumerate(rest, start=2)]
        if (keypoints := self._found.keypoints) and len(values) == 4 + keypoints:
            values = values[:4]
            self._tally.add("the keypoints of {count} objects are left out", place)
        score = None
        if self._sources.scores and len(values) % 2:  # a score ends a line, of a box or an outline
            score = score_of(values.pop())
        elif len(values) == 5 or (more and len(values) % 2):
            values.pop()
            self._tally.add("{count} lines end with one more number, a detector's score: it is left out", place)
        absolute = self._sources.normalized is False
        scale_x, scale_y = (1, 1) if absolute else (hw[1], hw[0])
        if not absolute and values and max(map(abs, values)) > FAR_OUTSIDE:
            found = shortest(max(values, key=abs))
            raise BadValueError(f"expected fractions in 0..1, found {found} (pixels? --absolute reads them)")
        if len(values) == 4:
            self._straight += 1
            x, y, width, height = values
            left, right = (x - width / 2) * scale_x, (x + width / 2) * scale_x
            top, bottom = (y - height / 2) * scale_y, (y + height / 2) * scale_y
            edges = box(left, top, right, bottom, "x y width height, in pixels")
            return Annotation(name, edges, place=place, score=score)
        if len(values) < 6 or len(values) % 2:
            hint = " (keypoints? a data.yaml with kpt_shape says how many)" if len(values) > 6 else ""
            raise BadValueError(
                "expected a class and x y width height, or a class and three points or more, found "
                f"{len(values) + 1} numbers{hint}"
            )
        outline = [one * (scale_y if index % 2 else scale_x) for index, one in enumerate(values)]
        if len(values) == 8 and _is_turned_box(outline):
            self._turned += 1
            self._first_turned = self._first_turned or place
        elif len(values) != 8 or not _is_box(outline):
            self._straight += 1
        return replace(outlined(name, outline, "the outline, in pixels", place), score=score)

    def _class(self, written: str, rest: Sequence[str]) -> str:
        try:
            index = int(number(written, "class"))
            if index < 0 or index != float(written):
                raise BadValueError
        except BadValueError:
            hint = " (DOTA's turned boxes? expected YOLO's)" if len(rest) in (8, 9) and _is_word(rest[7:]) else ""
            raise BadValueError(f"expected the number of a class first, found {shown(written)}{hint}") from None
        self._largest = max(self._largest, min(index, 100_000))
        if self._names is None:
            if index > 100_000:
                raise BadValueError(f"expected the number of a class first, found {shown(written)}")
            return str(index)
        if index not in self._names:
            known = f"{len(self._names)} classes of {self._found.listed_in}, counted from 0"
            raise BadValueError(f"expected one of the {known}, found {index}")
        return self._names[index]


def _more(rows: Sequence[Sequence[str]]) -> int:
    """How many numbers at the end of the lines are no coordinates: a score, or a score and the number of a track.

    It is so for all lines of a file, or for none: a line alone may be an outline that is cut off.
    """
    if not rows or not all(len(row) > 5 for row in rows):
        return 1 if rows and all(len(row) % 2 and len(row) > 4 for row in rows) else 0
    if all(len(row) % 2 and _is_fraction(row[-1]) for row in rows):
        return 1
    tracked = all(len(row) % 2 == 0 and row[-1].isdecimal() and _is_fraction(row[-2]) for row in rows)
    return 2 if tracked and any(int(row[-1]) > 1 for row in rows) else 0


def _is_fraction(written: str) -> bool:
    try:
        return 0 <= float(written) <= 1
    except ValueError:
        return False


def _is_word(values: Iterable[str]) -> bool:
    return any(any(character.isalpha() for character in one) for one in values)


def _is_box(outline: Sequence[float]) -> bool:
    return len(set(outline[::2])) == 2 and len(set(outline[1::2])) == 2


def _is_turned_box(outline: Sequence[float]) -> bool:
    """Whether four points have right angles, and sides that are not along the image's."""
    points = list(zip(outline[::2], outline[1::2], strict=True))
    sides = [(x2 - x1, y2 - y1) for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True)]
    if any(max(abs(x), abs(y)) < 1 for x, y in sides):
        return False
    for (ax, ay), (bx, by) in zip(sides, sides[1:] + sides[:1], strict=True):
        if abs(ax * bx + ay * by) > _RIGHT_ANGLE * ((ax * ax + ay * ay) * (bx * bx + by * by)) ** 0.5:
            return False
    return all(min(abs(x), abs(y)) > _RIGHT_ANGLE * max(abs(x), abs(y)) for x, y in sides)


FORMAT = Format(
    "yolo",
    "YOLO (a folder with data.yaml or labels/)",
    yolo_places.find,
    read,
    Writer(write, check, file="data.yaml", renames=True),
)
