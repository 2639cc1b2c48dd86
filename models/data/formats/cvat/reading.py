"""CVAT for images 1.1: an XML file with an `image` for each picture, in it each `box`, `polygon`, `mask` and `ellipse`.

A mask is stored of its own extent: `left`, `top`, `width` and `height` in pixels, and `rle`, the lengths of the runs of
0, 1, 0, ... row by row in there. Boxes may be turned, by degrees, about their centres. Polygons and masks of one label
and one `group_id` are one object of several parts, as in CVAT's own export to COCO.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.formats.cvat import writing as cvat_writing
from models.data.formats.protocol import Format, Found, Writer
from models.data.image_files import size_hw
from models.data.parsing import classes
from models.data.parsing.contents import Contents
from models.data.parsing.shapes import Tally, box_of, ellipse, encoded, merged, outlined, turned_box
from models.data.parsing.sources import Sources
from models.data.parsing.values import (
    BadValueError,
    EmptyBoxError,
    box,
    number,
    shown,
    sized,
    stated_size_hw,
    text,
)
from models.data.parsing.xml_tree import Element, ElementError, parse

LEFT_OUT = ("polyline", "points", "cuboid", "skeleton", "tag")
_MOST = 2**53  # of what a run may be; what fits is seen later
_SIDES = ("xtl", "ytl", "xbr", "ybr")


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """The images in the file's order, and what could not be read. The classes are those that it lists.

    Raises DataError where it is no such file, and for the tracks of a video.
    """
    try:
        root = parse(path)
    except ElementError as error:
        raise DataError([Problem(Place(path, error.line), str(error))]) from error
    except (OSError, UnicodeError) as error:
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error
    if root.tag != "annotations":
        raise DataError([Problem(Place(path, root.line), f"not CVAT: expected <annotations>, found <{root.tag}>")])
    problems: list[Problem] = []
    tracks = list(root.all("track"))
    if tracks and root.first("image") is None:
        reason = (
            f"{len(tracks)} tracks of a video (CVAT for video 1.1), which have no pictures: "
            "export the task as CVAT for images 1.1"
        )
        raise DataError([Problem(Place(path, tracks[0].line), reason)])
    problems += (Problem(Place(path, one.line), "a track of a video: expected images") for one in tracks)
    tally = Tally()
    images = []
    for element in root.all("image"):
        try:
            images.append(_image(element, path, sources, problems, tally))
        except BadValueError as error:
            problems.append(Problem(Place(path, element.line), f"image: {error}"))
    problems += tally.notes()
    return classes.dataset(_names(root), images, problems, str(path)), problems


def _names(root: Element) -> tuple[str, ...] | None:
    """The labels of the task or project, in order; parts of a skeleton are none."""
    found: list[str] = []
    meta = root.first("meta")
    waiting = deque([] if meta is None else [meta])
    while waiting:
        element = waiting.popleft()
        if element.tag == "labels":
            for label in element.all("label"):
                name, parent = label.first("name"), label.first("parent")
                if name is not None and name.text.strip() and (parent is None or not parent.text.strip()):
                    found.append(name.text.strip())
        else:
            waiting += element.children
    return tuple(dict.fromkeys(found)) or None


def _image(element: Element, path: Path, sources: Sources, problems: list[Problem], tally: Tally) -> LabelledImage:
    given = element.attributes
    name = text(given.get("name"), "name")
    here = path.parent
    folders = (here, here / "images", here.parent, here.parent / "images")
    tree = here.parent if here.name.lower().startswith("annotation") else here
    file = sources.find(name, "name", folders, tree=tree, hint=given.get("subset", ""))
    size = stated_size_hw(given.get("height"), given.get("width")) or size_hw(file, sources.page)
    found: dict[object, list[Annotation]] = {}  # by group, or of a shape that is none of a group's, by its place
    for index, shape in enumerate(element.children):
        place = Place(path, shape.line)
        try:
            annotation = _annotation(shape, size, place, tally)
            if annotation is not None:
                group = shape.attributes.get("group_id", "0") if shape.tag in ("polygon", "mask") else "0"
                found.setdefault(index if group == "0" else (annotation.label, group), []).append(annotation)
        except EmptyBoxError as error:
            problems.append(Problem(place, f"{shape.tag}: {error}: left out", fatal=False))
        except BadValueError as error:
            problems.append(Problem(place, f"{shape.tag}: {error}"))
    for parts in found.values():
        if len(parts) > 1:
            tally.add("{count} objects of several shapes, by their group_id", parts[0].place or Place(path))
    return LabelledImage(file, size, tuple(merged(parts, size) for parts in found.values()), Place(path, element.line))


def _annotation(shape: Element, size: tuple[int, int], place: Place, tally: Tally) -> Annotation | None:
    given = shape.attributes
    if shape.tag in LEFT_OUT:
        tally.add(f"{{count}} shapes of type {shape.tag} are no boxes or masks: left out", place)
        return None
    if shape.tag not in ("box", "polygon", "mask", "ellipse"):
        raise BadValueError("expected box, polygon, mask or ellipse, found another shape")
    label = text(given.get("label"), "label")
    turn = number(given.get("rotation") or 0, "rotation") % 360
    if shape.tag == "box":
        x1, y1, x2, y2 = (number(given.get(side), side) for side in _SIDES)
        xyxy = box(x1, y1, x2, y2, "xtl ytl xbr ybr")
        if not turn:
            return Annotation(label, xyxy, place=place)
        tally.add("{count} turned boxes are read as polygons of four corners", place)
        centre = ((x1 + x2) / 2, (y1 + y2) / 2)
        return outlined(label, turned_box(x1, y1, x2 - x1, y2 - y1, turn, centre), " ".join(_SIDES), place)
    if shape.tag == "ellipse":
        x, y, across, down = (number(given.get(name), name) for name in ("cx", "cy", "rx", "ry"))
        tally.add("{count} ellipses are read as polygons", place)
        return outlined(label, ellipse(x, y, across, down, turn), "cx cy rx ry", place)
    if shape.tag == "polygon":
        return outlined(label, _points(given.get("points")), "points", place)
    rle = encoded(_mask(given, size))
    return Annotation(label, box_of(rle, "rle"), rle=rle, place=place)


def _points(written: str | None) -> list[list[str]]:
    """`x,y;x,y;...`"""
    points = [one.split(",") for one in (written or "").split(";") if one.strip()]
    if any(len(one) != 2 for one in points) or len(points) < 3:
        raise BadValueError(
            f"points: expected x,y of three points or more, with ; between them, found {shown(written)}"
        )
    return points


def _mask(given: dict[str, str], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool. Nothing is made of it before it is sure that it lies in the image."""
    left, top, width, height = (_whole(given.get(name), name) for name in ("left", "top", "width", "height"))
    if width < 1 or height < 1 or left + width > size[1] or top + height > size[0]:
        found = f"left {left}, top {top}, width {width}, height {height}"
        raise BadValueError(f"expected a mask within the image of {sized(size)}, found {found}")
    runs = [_whole(one, "rle") for one in re.split(r"[\s,]+", (given.get("rle") or "").strip(" ,"))]
    if sum(runs) != width * height:
        raise BadValueError(f"rle: expected runs that fill {width * height} pixels, found {sum(runs)}")
    mask = np.zeros(size, bool, order="F")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask


def _whole(value: str | None, field: str) -> int:
    found = number(value, field)
    if not 0 <= found <= _MOST or found != int(found):
        raise BadValueError(f"{field}: expected a whole number of pixels, found {shown(value)}")
    return int(found)


def _find(contents: Contents) -> Iterator[Found]:
    files: Iterable[Path] = contents.files((".xml",), (".", "annotations"))
    return (Found(path) for path in files if contents.root(path) == "annotations")


FORMAT = Format(
    "cvat",
    "CVAT for images 1.1 (an .xml file)",
    _find,
    read,
    Writer(cvat_writing.write, cvat_writing.check, file="annotations.xml", alone=True),
)
