"""VGG Image Annotator (VIA), versions 1 and 2: a JSON file with `regions` for each image, alone or in a project.

Shapes are `rect`, `polygon`, `circle` and `ellipse`. The class of a region is one of its attributes: the only one that
there is, or else the one called so. VIA states no sizes of images: they are read from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.formats.protocol import Format, Found
from models.data.image_files import size_hw
from models.data.parsing import classes
from models.data.parsing.contents import Contents, Glance
from models.data.parsing.json_file import parsed
from models.data.parsing.shapes import Tally, ellipse, outlined
from models.data.parsing.sources import Sources
from models.data.parsing.values import BadValueError, EmptyBoxError, box, coordinate, number, shortest, shown, text

CLASS_NAMES = ("class", "label", "name", "category", "type", "object", "class_name")  # of the attribute, the best first
LEFT_OUT = ("point", "polyline", "line")
ONLY_CLASS = "object"  # where no region has an attribute


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """The images in the file's order, and what could not be read.

    The classes are the options of the attribute in their order, with what else the regions have behind them.
    """
    content = parsed(path, json.loads)
    images = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(images, dict):
        raise DataError([Problem(Place(path), f"not VIA's: expected an object with images, found {shown(content)}")])
    return _Reading(path, sources, content, images).all()


class _Reading:
    def __init__(self, path: Path, sources: Sources, content: dict[str, Any], images: dict[str, Any]) -> None:
        self._path = path
        self._sources = sources
        self._images = images
        self._problems: list[Problem] = []
        self._tally = Tally()
        self._attribute = self._chosen()
        self._names = _options(content, self._attribute)

    def all(self) -> tuple[Dataset, list[Problem]]:
        found = []
        for key, entry in self._images.items():
            try:
                found.append(self._image(entry))
            except BadValueError as error:
                self._problem(shown(key), error)
        self._problems += self._tally.notes()
        names = self._names
        if names:
            used = (one.label for image in found for one in image.annotations)
            names = tuple(dict.fromkeys((*names, *used)))
        return classes.dataset(names or None, found, self._problems, str(self._path)), self._problems

    def _problem(self, where: str, reason: object, fatal: bool = True) -> None:
        self._problems.append(Problem(Place(self._path), f"{where}: {reason}", fatal))

    def _chosen(self) -> str | None:
        """The attribute that is the class; None where regions have none. Raises DataError where it may be several."""
        names: dict[str, None] = {}
        for entry in self._images.values():
            for one in _regions(entry):
                attributes = one.get("region_attributes") if isinstance(one, dict) else None
                names |= dict.fromkeys(attributes if isinstance(attributes, dict) else ())
        if len(names) < 2:
            return next(iter(names), None)
        all_of_them = ", ".join(names)
        known = {one.casefold(): one for one in reversed(names)}
        if chosen := next((known[one] for one in CLASS_NAMES if one in known), None):
            self._problem(
                f"attributes {all_of_them}", f"{chosen!r} is read as the class, the others are left out", False
            )
            return chosen
        reason = f"regions have the attributes {all_of_them}: call the one that is the class `class` in VIA"
        raise DataError([Problem(Place(self._path), reason)])

    def _image(self, entry: Any) -> LabelledImage:
        if not isinstance(entry, dict):
            raise BadValueError(f"expected an image, an object, found {shown(entry)}")
        here, name = self._path.parent, entry.get("filename")
        file = self._sources.find(
            name, "filename", (here, here / "images", here.parent, here.parent / "images"), tree=here
        )
        size = size_hw(file, self._sources.page)
        found = []
        for index, region in enumerate(_regions(entry)):
            where = f"{name}, regions[{index}]"
            try:
                found += [] if (one := self._region(region)) is None else [one]
            except EmptyBoxError as error:
                self._problem(where, f"{error}: left out", fatal=False)
            except BadValueError as error:
                self._problem(where, error)
        return LabelledImage(file, size, tuple(found), Place(self._path))

    def _region(self, region: Any) -> Annotation | None:
        shape = region.get("shape_attributes") if isinstance(region, dict) else None
        if not isinstance(shape, dict):
            raise BadValueError(f"shape_attributes: expected an object, found {shown(region)}")
        kind, place = text(shape.get("name"), "shape_attributes.name"), Place(self._path)
        if kind in LEFT_OUT:
            self._tally.add(f"{{count}} regions of type {kind} are no boxes or masks: left out", place)
            return None
        label = self._label(region.get("region_attributes"), place)
        if kind == "rect":
            x, y, width, height = (number(shape.get(side), side) for side in ("x", "y", "width", "height"))
            return Annotation(label, box(x, y, x + width, y + height, "x y width height"), place=place)
        if kind == "polygon":
            xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
            if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
                count = len(xs) if isinstance(xs, list) else "a list of"
                raise BadValueError(f"all_points_y: expected {count} numbers, as all_points_x has, found {shown(ys)}")
            return outlined(label, [one for point in zip(xs, ys, strict=True) for one in point], "all_points", place)
        if kind in ("circle", "ellipse"):
            self._tally.add(f"{{count}} {kind}s are read as polygons", place)
            x, y = coordinate(shape.get("cx"), "cx"), coordinate(shape.get("cy"), "cy")
            across, down = (
                coordinate(shape.get(one), one) for one in (("r", "r") if kind == "circle" else ("rx", "ry"))
            )
            turn = math.degrees(number(shape.get("theta") or 0, "theta"))
            return outlined(label, ellipse(x, y, across, down, turn), f"the {kind}", place)
        raise BadValueError(f"shape_attributes.name: expected rect, polygon, circle or ellipse, found {shown(kind)}")

    def _label(self, attributes: Any, place: Place) -> str:
        if self._attribute is None:
            what = f"no region has a class (region_attributes): {{count}} regions are of one class, {ONLY_CLASS!r}"
            self._tally.add(what, place)
            return ONLY_CLASS
        value = attributes.get(self._attribute) if isinstance(attributes, dict) else None
        if isinstance(value, dict):  # of a checkbox
            checked = [name for name, is_so in value.items() if is_so]
            if len(checked) > 1:
                self._tally.add("{count} regions have several classes: the first is read", place)
            value = next(iter(checked), None)
        field = f"region_attributes.{self._attribute}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = shortest(number(value, field))  # of classes that are numbers
        return text(value, field).strip()


def _regions(entry: Any) -> Sequence[Any]:
    """Version 1 numbers them in an object."""
    regions = entry.get("regions") if isinstance(entry, dict) else None
    if isinstance(regions, dict):
        return list(regions.values())
    return regions if isinstance(regions, list) else ()


def _options(content: dict[str, Any], attribute: str | None) -> tuple[str, ...]:
    """The attribute's options in a project, in order."""
    found: Any = content.get("_via_attributes")
    for name in ("region", attribute, "options"):
        found = found.get(name) if isinstance(found, dict) else None
    return tuple(one for one in found if one.strip()) if isinstance(found, dict) else ()


def _is_via(glance: Glance) -> bool:
    if glance.top != "{":
        return False
    return glance.has("_via_img_metadata") or glance.ends("shape_attributes") or _is_of_no_regions(glance)


def _is_of_no_regions(glance: Glance) -> bool:
    return glance.ends("file_attributes") and glance.ends("regions")


def _find(contents: Contents) -> Iterator[Found]:
    return (Found(path) for path, glance in contents.json_files((".", "annotations")) if _is_via(glance))


FORMAT = Format("via", "VIA (its project or annotations, a .json file)", _find, read)
