"""Datumaro's own JSON, as Datumaro and CVAT write it: `categories` with the labels, and `items` with annotations.

Annotations are `bbox`, `rotated_bbox`, `polygon`, `ellipse` and `mask`. Those of one `group`, above 0, and one label
are one object of several parts; a single box in a group of outlines or masks is the box of that object. The attribute
`is_crowd` marks crowds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.formats.protocol import Format, Found
from models.data.image_files import size_hw
from models.data.parsing import classes, json_object
from models.data.parsing.contents import Contents, Glance
from models.data.parsing.json_file import parsed
from models.data.parsing.json_object import Entries
from models.data.parsing.rle import read_rle
from models.data.parsing.shapes import Tally, box_of, ellipse, merged, outlined, turned_box
from models.data.parsing.sources import Sources
from models.data.parsing.values import BadValueError, EmptyBoxError, box, flag, number, shown, stated_size_hw, text

LEFT_OUT = ("points", "polyline", "label", "caption", "cuboid_2d", "cuboid_3d", "skeleton", "feature_vector", "tabular")


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """The items in the file's order, and what could not be read. Raises DataError when it is no such file at all."""
    content = parsed(path, json_object.parse)
    categories = content.get("categories")
    listed = categories.get("label") if isinstance(categories, dict) else None
    labels = listed.get("labels") if isinstance(listed, dict) else None
    if not isinstance(content.get("items"), Entries) or not isinstance(labels, list):
        raise DataError([Problem(Place(path), "not Datumaro's: expected categories.label.labels and a list items")])
    try:
        names = [text(one.get("name") if isinstance(one, dict) else one, "categories.label.labels") for one in labels]
    except BadValueError as error:
        raise DataError([Problem(Place(path), str(error))]) from error
    return _Reading(path, sources, names).all(content["items"])


class _Reading:
    def __init__(self, path: Path, sources: Sources, names: Sequence[str]) -> None:
        self._path = path
        self._sources = sources
        self._names = names
        self._problems: list[Problem] = []
        self._tally = Tally()

    def all(self, items: Entries) -> tuple[Dataset, list[Problem]]:
        images = []
        for index, (line, entry) in enumerate(items):
            place = Place(self._path, line)
            try:
                images.append(self._image(entry, place))
            except BadValueError as error:
                self._problems.append(Problem(place, f"items[{index}]: {error}"))
        self._problems += self._tally.notes()
        names = tuple(dict.fromkeys(self._names))
        return classes.dataset(names, images, self._problems, str(self._path)), self._problems

    def _image(self, entry: Any, place: Place) -> LabelledImage:
        if not isinstance(entry, dict):
            raise BadValueError(f"expected an item, an object, found {shown(entry)}")
        image = entry.get("image")
        image = image if isinstance(image, dict) else {}
        subset, above = self._path.stem, self._path.parent.parent
        stem = text(entry.get("id"), "id")
        at = above / "images" / subset
        # The id has the folders that CVAT leaves out of the path.
        folders = ((at / stem).parent, at, above / "images", self._path.parent)
        file = self._sources.find(image.get("path") or stem, "image.path", folders, tree=above, hint=subset)
        size = image.get("size")
        height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
        hw = stated_size_hw(height, width, ("image.size[0]", "image.size[1]")) or size_hw(file, self._sources.page)
        annotations = entry.get("annotations")
        if not isinstance(annotations, list):
            raise BadValueError(f"annotations: expected a list, found {shown(annotations)}")
        groups: dict[Any, list[Annotation]] = {}
        boxes: dict[Any, list[int]] = {}  # of groups: the places of their boxes among the annotations
        for index, one in enumerate(annotations):
            where = f"{shown(stem)}, annotations[{index}]"
            try:
                found = self._annotation(one, hw, place)
            except EmptyBoxError as error:
                self._problems.append(Problem(place, f"{where}: {error}: left out", fatal=False))
            except BadValueError as error:
                self._problems.append(Problem(place, f"{where}: {error}"))
            else:
                if found is not None:
                    group = one.get("group")
                    grouped = type(group) is int and group > 0
                    if grouped and not found.has_mask:
                        boxes.setdefault((found.label, group), []).append(index)
                    alone = not grouped or not found.has_mask
                    groups.setdefault(("", index) if alone else (found.label, group), []).append(found)
        objects = {key: merged(parts, hw) for key, parts in groups.items()}
        for key, places in boxes.items():
            if key in objects and len(places) == 1:
                self._tally.add("{count} boxes are those of the masks in their groups", place)
                objects[key] = replace(objects[key], box_xyxy=objects.pop(("", places[0])).box_xyxy)
        return LabelledImage(file, hw, tuple(objects.values()), place)

    def _annotation(self, one: Any, hw: tuple[int, int], place: Place) -> Annotation | None:
        if not isinstance(one, dict):
            raise BadValueError(f"expected an object, found {shown(one)}")
        kind = one.get("type")
        if kind in LEFT_OUT:
            self._tally.add(f"{{count}} annotations of type {kind} are no boxes or masks: left out", place)
            return None
        label, attributes = self._label(one.get("label_id")), one.get("attributes")
        crowd = flag(attributes.get("is_crowd"), "attributes.is_crowd") if isinstance(attributes, dict) else False
        if kind == "mask":
            rle = one.get("rle")
            if not isinstance(rle, dict):
                raise BadValueError(f"rle: expected an object with counts and size, found {shown(rle)}")
            rle = read_rle(rle, hw)
            return Annotation(label, box_of(rle, "rle"), None, rle, crowd, place)
        if kind == "bbox":
            x, y, width, height = _numbers(one, "bbox", "x, y, width, height")
            turn = attributes.get("rotation") if isinstance(attributes, dict) else None
            if turn is None or not (turn := number(turn, "attributes.rotation") % 360):
                return Annotation(label, box(x, y, x + width, y + height, "bbox"), None, None, crowd, place)
            outline = turned_box(x, y, width, height, turn, (x + width / 2, y + height / 2))
        elif kind == "rotated_bbox":
            x, y, width, height, turn = _numbers(one, "rotated_bbox", "centre x, centre y, width, height, degrees")
            outline = turned_box(x - width / 2, y - height / 2, width, height, turn, (x, y))
        elif kind == "ellipse":
            x1, y1, x2, y2 = _numbers(one, "points", "x1, y1, x2, y2")
            outline = ellipse((x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2)
        elif kind == "polygon" and isinstance(one.get("points"), list):
            outline = tuple(one["points"])
        else:
            raise BadValueError(f"type: expected bbox, polygon, ellipse or mask, found {shown(kind)}")
        if kind != "polygon":
            what = (
                "ellipses are read as polygons"
                if kind == "ellipse"
                else "turned boxes are read as polygons of four corners"
            )
            self._tally.add(f"{{count}} {what}", place)
        found = outlined(label, outline, "points", place)
        return Annotation(label, found.box_xyxy, found.polygons, None, crowd, place)

    def _label(self, index: Any) -> str:
        if type(index) is not int or not 0 <= index < len(self._names):
            raise BadValueError(f"label_id: expected one of the {len(self._names)} labels, found {shown(index)}")
        return self._names[index]


def _numbers(one: dict[str, Any], field: str, names: str) -> list[float]:
    value = one.get(field)
    if not isinstance(value, list) or len(value) != len(names.split(",")):
        raise BadValueError(f"{field}: expected [{names}], found {shown(value)}")
    return [number(each, field) for each in value]


def _is_datumaro(glance: Glance) -> bool:
    return glance.top == "{" and glance.has("categories", "items") and not glance.has("images")


def _find(contents: Contents) -> Iterator[Found]:
    return (Found(path) for path, glance in contents.json_files((".", "annotations")) if _is_datumaro(glance))


FORMAT = Format("datumaro", "Datumaro (its own .json file)", _find, read)
