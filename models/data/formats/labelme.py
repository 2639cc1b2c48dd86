"""LabelMe: a JSON file for each image, with `shapes`: polygons, rectangles, circles, and masks as pictures in base64.

Shapes of one label and one `group_id` are one object of several parts. `classes.txt` or `labels.txt` in the folder
lists the classes; where there is none, they are those of the shapes, sorted.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Polygon, Problem
from models.data.formats.protocol import Format, Found, Outline, Target, Writer
from models.data.image_files import size_hw
from models.data.parsing import classes, mask_picture
from models.data.parsing.contents import Contents, Glance, glance, natural
from models.data.parsing.json_file import parsed
from models.data.parsing.shapes import Tally, box_of, ellipse, encoded, filled, is_around, mask_of
from models.data.parsing.sources import Sources
from models.data.parsing.values import (
    BadValueError,
    EmptyBoxError,
    box,
    coordinate,
    extent,
    plain,
    polygons,
    shown,
    stated_size_hw,
    text,
)
from models.masks.boxes import box_around

LISTS = ("classes.txt", "labels.txt")
LEFT_OUT = ("point", "points", "line", "linestrip")
_NO_CLASSES = ("__ignore__", "_background_")


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What the files say, in the order of their names (2 before 10), and what could not be read.

    path: a folder of such files, or one of them.
    """
    folder = path if path.is_dir() else path.parent
    problems: list[Problem] = []
    tally = Tally()
    images = []
    for file in [path] if path.is_file() else sorted(Contents(path).files((".json",)), key=natural):
        if path.is_dir() and (its := glance(file)).top and not its.has("shapes"):
            problems.append(Problem(Place(file), "not LabelMe's: passed over", fatal=False))
            continue
        try:
            images.append(_Reading(file, sources, problems, tally).image())
        except DataError as error:
            problems += error.problems
        except BadValueError as error:
            problems.append(Problem(Place(file), str(error)))
    problems += tally.notes()
    listed = next((one for name in LISTS if (one := folder / name).is_file()), None)
    names = None if listed is None else tuple(one for one in classes.read(listed) or () if one not in _NO_CLASSES)
    return classes.dataset(names, images, problems, str(listed)), problems


class _Reading:
    def __init__(self, file: Path, sources: Sources, problems: list[Problem], tally: Tally) -> None:
        self._file = file
        self._sources = sources
        self._problems = problems
        self._tally = tally

    def image(self) -> LabelledImage:
        content = parsed(self._file, json.loads)
        if not isinstance(content, dict):
            raise BadValueError(f"not LabelMe's: expected an object, found {shown(content)}")
        here = self._file.parent
        folders = (here, here / "images", here.parent, here.parent / "images")
        stated = stated_size_hw(content.get("imageHeight"), content.get("imageWidth"), ("imageHeight", "imageWidth"))
        path = self._sources.find(
            content.get("imagePath") or self._file.stem, "imagePath", folders, tree=here, otherwise=self._file.stem
        )
        if content.get("imageData") and isinstance(path, Path) and not os.path.isfile(path):
            what = (
                "{count} images are only inside their JSON files (imageData): `labelme_export_json FILE` writes img.png"
            )
            self._tally.add(what, Place(self._file))
        size = stated or size_hw(path, self._sources.page)
        shapes = content.get("shapes")
        if not isinstance(shapes, list):
            raise BadValueError(f"shapes: expected a list, found {shown(shapes)}")
        groups: dict[Any, list[tuple[int, Any]]] = {}
        for index, shape in enumerate(shapes):
            group = shape.get("group_id") if isinstance(shape, dict) else None
            label = shape.get("label") if isinstance(shape, dict) else None
            alone = group is None or isinstance(group, list | dict) or not isinstance(label, str)
            groups.setdefault(("", index) if alone else (label, group), []).append((index, shape))
        found = [one for parts in groups.values() if (one := self._object(parts, size)) is not None]
        return LabelledImage(path, size, tuple(found), Place(self._file))

    def _object(self, parts: Sequence[tuple[int, Any]], size: tuple[int, int]) -> Annotation | None:
        """The object of these shapes; None where they are none, or bad."""
        read = []
        for index, shape in parts:
            try:
                if (one := self._shape(shape, size)) is not None:
                    read.append(one)
            except EmptyBoxError as error:
                self._problem(index, f"{error}: left out", fatal=False)
            except BadValueError as error:
                self._problem(index, error)
        if not read:
            return None
        first, place = read[0], Place(self._file)
        crowd = any(one.crowd for one in read)
        if all(one.polygons is not None for one in read):
            outline = tuple(part for one in read for part in one.polygons or ())
            try:
                return Annotation(first.label, box(*extent(outline), "points"), outline, crowd=crowd, place=place)
            except EmptyBoxError as error:
                self._problem(parts[0][0], f"{error}: left out", fatal=False)
                return None
        if len(read) == 1:
            return first
        if any(one.has_mask for one in read):
            whole = coco_mask.merge([one.to_rle(size) or filled(one.box_xyxy, size) for one in read])
            rle = {"size": list(size), "counts": whole["counts"].decode("ascii")}
            return Annotation(first.label, box_of(rle, "the group"), rle=rle, crowd=crowd, place=place)
        self._tally.add("{count} groups of rectangles are read as the boxes around them", place)
        corners = np.array([one.box_xyxy for one in read])
        x1, y1, x2, y2 = (float(one) for one in (*corners[:, :2].min(0), *corners[:, 2:].max(0)))
        return Annotation(first.label, (x1, y1, x2, y2), crowd=crowd, place=place)

    def _problem(self, index: int, reason: object, fatal: bool = True) -> None:
        self._problems.append(Problem(Place(self._file), f"shapes[{index}]: {reason}", fatal))

    def _shape(self, shape: Any, size: tuple[int, int]) -> Annotation | None:
        if not isinstance(shape, dict):
            raise BadValueError(f"expected an object, found {shown(shape)}")
        place = Place(self._file)
        kind = shape.get("shape_type") or "polygon"  # as old files leave it out
        if kind in LEFT_OUT:
            self._tally.add(f"{{count}} shapes of type {kind} are no boxes or masks: left out", place)
            return None
        label = text(shape.get("label"), "label")
        flags = shape.get("flags")
        crowd = isinstance(flags, dict) and flags.get("crowd") is True
        points = shape.get("points")
        if kind in ("polygon", "oriented_rectangle", "rotation", "quadrilateral"):
            if kind != "polygon":
                self._tally.add("{count} turned rectangles are read as polygons", place)
            outline = polygons([points], "points")
            return Annotation(label, extent(outline), outline, crowd=crowd, place=place)
        if kind == "circle":
            (x, y), (edge_x, edge_y) = _points(points, 2)
            self._tally.add("{count} circles are read as polygons", place)
            radius = math.hypot(edge_x - x, edge_y - y)
            outline = polygons([list(ellipse(x, y, radius, radius))], "points")
            return Annotation(label, box(*extent(outline), "points"), outline, crowd=crowd, place=place)
        if kind == "rectangle":
            corners = _points(points, 4 if isinstance(points, list) and len(points) == 4 else 2)
            xs, ys = [x for x, _ in corners], [y for _, y in corners]
            # It may have been drawn from any corner.
            return Annotation(label, box(min(xs), min(ys), max(xs), max(ys), "points"), crowd=crowd, place=place)
        if kind == "mask":
            rle = encoded(_mask(shape.get("mask"), _points(points, 2), size))
            return Annotation(label, box_of(rle, "mask"), rle=rle, crowd=crowd, place=place)
        raise BadValueError(f"shape_type: expected polygon, rectangle, circle or mask, found {shown(kind)}")


def _points(points: Any, count: int) -> list[tuple[float, float]]:
    if not isinstance(points, list) or len(points) != count or not all(isinstance(one, list) for one in points):
        raise BadValueError(f"points: expected {count} pairs of x and y, found {shown(points)}")
    if any(len(one) != 2 for one in points):
        raise BadValueError(f"points: expected {count} pairs of x and y, found {shown(points)}")
    return [(coordinate(x, "points"), coordinate(y, "points")) for x, y in points]


def _mask(written: Any, corners: Sequence[tuple[float, float]], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool. The picture is of the mask's own extent, whose last column and row `points` count in."""
    if not isinstance(written, str):
        raise BadValueError(f"mask: expected a picture in base64, found {shown(written)}")
    left, top = (round(value) for value in corners[0])
    try:
        content = base64.b64decode(written, validate=True)
    except ValueError as error:
        raise BadValueError(f"mask: expected a picture in base64, found another text ({error})") from error
    height, width = mask_picture.header(content, "mask").size_hw
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        found = f"{width} x {height} at {left}, {top}"
        raise BadValueError(f"mask: expected one within the image of {size[1]} x {size[0]}, found {found}")
    mask = np.zeros(size, bool, order="F")
    np.not_equal(mask_picture.values(content, "mask"), 0, out=mask[top : top + height, left : left + width])
    return mask


def is_labelme(glance: Glance) -> bool:
    return glance.top == "{" and glance.has("shapes") and glance.has_any("imagePath", "imageData", "imageHeight")


def find(contents: Contents) -> Iterator[Found]:
    """A folder of such files counts once."""
    if any(is_labelme(its) for _, its in contents.json_files()):
        yield Found(contents.path)


def check(dataset: Dataset, names: Sequence[str], outline: Outline | None) -> None:
    """Raises ValueError for a class or a name that is not one line of text."""
    classes.check(dataset.class_names)
    for name in names:
        if not name.isprintable() or name.startswith("."):
            raise ValueError(
                f"the file name {name!r} is hidden or not one line of text: LabelMe's files cannot have it"
            )


def write(dataset: Dataset, target: Target) -> list[str]:
    """Returns a line for each kind of thing that LabelMe could not hold as it was."""
    boxes = empty = 0
    for image, reference, name in zip(dataset.images, target.references, target.names, strict=True):
        shapes: list[dict[str, Any]] = []
        for number, one in enumerate(image.annotations):
            shapes += _shapes(one, number, image.size_hw)
            lost = one.has_mask and not _is_held(one, image.size_hw)
            empty += lost
            around = extent(one.polygons) == one.box_xyxy if one.polygons else is_around(one, image.size_hw)
            boxes += not around and not lost
        content: dict[str, Any] = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": reference,
            "imageData": None,
            "imageHeight": image.size_hw[0],
            "imageWidth": image.size_hw[1],
        }
        file = target.folder / f"{Path(name).stem}.json"
        file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    classes.write(target.folder / LISTS[0], dataset.class_names)
    notes = [f"{boxes} boxes are not the ones around their masks, which LabelMe takes for them"] if boxes else []
    return notes + ([f"{empty} empty masks left out"] if empty else [])


def _shapes(one: Annotation, number: int, size_hw: tuple[int, int]) -> Iterator[dict[str, Any]]:
    common = {"label": one.label, "flags": {"crowd": True} if one.crowd else {}}
    if one.polygons is not None and _is_held(one, size_hw):
        group = number if len(one.polygons) > 1 else None
        for part in one.polygons:
            yield {**common, "points": _pairs(part), "group_id": group, "shape_type": "polygon"}
        return
    mask = mask_of(one, size_hw) if one.rle is not None else None
    if mask is None:
        x1, y1, x2, y2 = map(plain, one.box_xyxy)
        yield {**common, "points": [[x1, y1], [x2, y2]], "group_id": None, "shape_type": "rectangle"}
        return
    left, top, right, bottom = box_around(mask) or (0, 0, 0, 0)
    file = BytesIO()
    Image.fromarray(mask[top:bottom, left:right]).save(file, format="PNG")
    picture = base64.b64encode(file.getvalue()).decode("ascii")
    points = [[left, top], [right - 1, bottom - 1]]
    yield {**common, "points": points, "group_id": None, "shape_type": "mask", "mask": picture}


def _is_held(one: Annotation, size_hw: tuple[int, int]) -> bool:
    """Whether the mask has an inside."""
    if one.polygons is None:
        return mask_of(one, size_hw) is not None
    x1, y1, x2, y2 = extent(one.polygons)
    return x1 < x2 and y1 < y2


def _pairs(part: Polygon) -> list[list[int | float]]:
    return [[plain(x), plain(y)] for x, y in zip(part[::2], part[1::2], strict=True)]


FORMAT = Format(
    "labelme",
    "LabelMe (a folder with a .json file for each image)",
    find,
    read,
    Writer(write, check, renames=True),
)
