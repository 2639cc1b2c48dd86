"""Supervisely: a project with `meta.json` and datasets, each with `ann/` (a JSON file for each image) and `img/`.

Objects are `rectangle`, `polygon` (which may have holes), `multipolygon`, `oriented_bbox` and `bitmap`. Outlines and
bitmaps of one class and one `instance` are one object of several parts. Corners are taken as they stand, as
Supervisely's own export to COCO takes them.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.formats.protocol import Format, Found
from models.data.image_files import size_hw
from models.data.parsing import classes
from models.data.parsing.contents import Contents, glance, natural, visible
from models.data.parsing.json_file import parsed
from models.data.parsing.shapes import Tally, box_of, encoded, merged, outlined, turned_box
from models.data.parsing.sources import Sources
from models.data.parsing.values import (
    BadValueError,
    EmptyBoxError,
    box,
    coordinate,
    number,
    shown,
    stated_size_hw,
    text,
)

LEFT_OUT = ("point", "line", "graph", "cuboid", "cuboid_2d", "alpha_mask", "any")
_MOST_BYTES = 2**28  # of a mask's picture, unpacked
_NO_DATASETS = ("ann", "img", "meta", "seg")


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """The images of all datasets, by their names in each (2 before 10), and what could not be read.

    path: the project's folder, or a dataset's. The classes are those of `meta.json`, else those of the objects, sorted.
    """
    problems: list[Problem] = []
    tally = Tally()
    images = []
    folders = list(_datasets(path))
    for folder in folders:
        for file in sorted(Contents(folder).files((".json",), ("ann",)), key=natural):
            try:
                images.append(_Reading(file, folder, sources, problems, tally).image())
            except DataError as error:
                problems += error.problems
            except BadValueError as error:
                problems.append(Problem(Place(file), str(error)))
    problems += tally.notes()
    if len(folders) > 1:
        names = ", ".join(str(one.relative_to(path)) for one in folders[:5]) + (", ..." if len(folders) > 5 else "")
        reason = f"{len(folders)} datasets are read as one ({names}); name the folder of one to read it alone"
        problems.append(Problem(Place(path), reason, fatal=False))
    meta = next((one / "meta.json" for one in (path, path.parent) if (one / "meta.json").is_file()), None)
    names_listed = None if meta is None else _names(meta)
    return classes.dataset(names_listed, images, problems, str(meta)), problems


def _names(meta: Path) -> tuple[str, ...] | None:
    content = parsed(meta, json.loads)
    listed = content.get("classes") if isinstance(content, dict) else None
    titles = [one.get("title") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return tuple(dict.fromkeys(one for one in titles if isinstance(one, str) and one.strip())) or None


class _Reading:
    def __init__(self, file: Path, folder: Path, sources: Sources, problems: list[Problem], tally: Tally) -> None:
        self._file = file
        self._folder = folder
        self._sources = sources
        self._problems = problems
        self._tally = tally

    def image(self) -> LabelledImage:
        content = parsed(self._file, json.loads)
        objects = content.get("objects") if isinstance(content, dict) else None
        if not isinstance(objects, list):
            raise BadValueError(f"not Supervisely's: expected an object with a list objects, found {shown(content)}")
        place = Place(self._file)
        name = self._file.name.removesuffix(".json")  # of `photo.jpg.json`
        path = self._sources.find(name, "the image of this name", (self._folder / "img",), tree=self._folder)
        size = content.get("size")
        size = size if isinstance(size, dict) else {}
        fields = ("size.height", "size.width")
        hw = stated_size_hw(size.get("height"), size.get("width"), fields) or size_hw(path, self._sources.page)
        groups: dict[Any, list[Annotation]] = {}
        for index, one in enumerate(objects):
            try:
                found = self._object(one, hw, place)
            except EmptyBoxError as error:
                self._problems.append(Problem(place, f"objects[{index}]: {error}: left out", fatal=False))
            except BadValueError as error:
                self._problems.append(Problem(place, f"objects[{index}]: {error}"))
            else:
                if found is not None:
                    key = one.get("instance")
                    alone = not isinstance(key, str) or not key or not found.has_mask
                    groups.setdefault(("", index) if alone else (found.label, key), []).append(found)
        return LabelledImage(path, hw, tuple(merged(parts, hw) for parts in groups.values()), place)

    def _object(self, one: Any, hw: tuple[int, int], place: Place) -> Annotation | None:
        if not isinstance(one, dict):
            raise BadValueError(f"expected an object, found {shown(one)}")
        kind = one.get("geometryType") or ("bitmap" if one.get("bitmap") else None)  # as old files leave it out
        if kind in LEFT_OUT:
            self._tally.add(f"{{count}} objects of type {kind} are no boxes or masks: left out", place)
            return None
        label = text(one.get("classTitle"), "classTitle")
        if kind == "bitmap":
            rle = encoded(_bitmap(one.get("bitmap"), hw))
            return Annotation(label, box_of(rle, "bitmap"), rle=rle, place=place)
        if kind == "multipolygon":
            parts = one.get("parts")
            if not isinstance(parts, list) or not parts:
                raise BadValueError(f"parts: expected a list of outlines, found {shown(parts)}")
            return merged([_polygon(part, label, hw, place) for part in parts], hw)
        points = one.get("points")
        if kind == "polygon":
            return _polygon(points, label, hw, place)
        if kind not in ("rectangle", "oriented_bbox"):
            raise BadValueError(f"geometryType: expected rectangle, polygon or bitmap, found {shown(kind)}")
        corners = _points(points.get("exterior") if isinstance(points, dict) else points, 2)
        (x1, x2), (y1, y2) = (sorted(side) for side in zip(*corners, strict=True))  # from any corner
        if kind == "rectangle":
            return Annotation(label, box(x1, y1, x2, y2, "points"), place=place)
        self._tally.add("{count} turned boxes are read as polygons of four corners", place)
        turn = math.degrees(number(one.get("angle") or 0, "angle"))
        centre = ((x1 + x2) / 2, (y1 + y2) / 2)
        return outlined(label, turned_box(x1, y1, x2 - x1, y2 - y1, turn, centre), "points", place)


def _polygon(points: Any, label: str, hw: tuple[int, int], place: Place) -> Annotation:
    """An outline, less its holes."""
    if not isinstance(points, dict):
        raise BadValueError(f"points: expected exterior and interior, found {shown(points)}")
    outer = outlined(label, points.get("exterior") or (), "points.exterior", place)
    inside = points.get("interior") or []
    if not isinstance(inside, list):
        raise BadValueError(f"points.interior: expected a list of holes, found {shown(inside)}")
    if not inside:
        return outer
    mask = outer.mask(hw)
    for hole in inside:
        mask &= ~outlined(label, hole if isinstance(hole, list) else (), "points.interior", place).mask(hw)  # type: ignore[operator]
    return Annotation(label, outer.box_xyxy, rle=encoded(mask), place=place)  # type: ignore[arg-type]  # it has one


def _points(points: Any, count: int) -> list[tuple[float, float]]:
    if not isinstance(points, list) or len(points) != count or not all(isinstance(one, list) for one in points):
        raise BadValueError(f"points: expected {count} pairs of x and y, found {shown(points)}")
    if any(len(one) != 2 for one in points):
        raise BadValueError(f"points: expected {count} pairs of x and y, found {shown(points)}")
    return [(coordinate(x, "points"), coordinate(y, "points")) for x, y in points]


def _bitmap(bitmap: Any, hw: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the picture, which is of the mask's own extent, at its `origin`."""
    if not isinstance(bitmap, dict) or not isinstance(bitmap.get("data"), str):
        raise BadValueError(f"bitmap: expected data and origin, found {shown(bitmap)}")
    left, top = (round(value) for value in _points([bitmap.get("origin")], 1)[0])
    try:
        with Image.open(BytesIO(_unpacked(bitmap["data"]))) as picture:
            width, height = picture.size
            if left < 0 or top < 0 or left + width > hw[1] or top + height > hw[0]:
                found = f"{width} x {height} at {left}, {top}"
                raise BadValueError(f"bitmap: expected one within the image of {hw[1]} x {hw[0]}, found {found}")
            pixels = np.asarray(picture)
    except BadValueError:
        raise
    except (OSError, ValueError, SyntaxError, zlib.error, binascii.Error, Image.DecompressionBombError) as error:
        reason = f"bitmap.data: expected a picture, packed with zlib, in base64, found another text ({error})"
        raise BadValueError(reason) from error
    mask = np.zeros(hw, bool)
    inside = pixels[..., -1] if pixels.ndim == 3 else pixels  # the opacity, of four channels
    mask[top : top + height, left : left + width] = inside != 0
    return mask


def _unpacked(data: str) -> bytes:
    """A picture may also stand there without zlib."""
    content = base64.b64decode(data, validate=True)
    return content if content[:4] == b"\x89PNG" else zlib.decompressobj().decompress(content, _MOST_BYTES)


def _datasets(folder: Path) -> Iterator[Path]:
    """The folders with `ann/` here, and in all folders here, as datasets may be in others; none of them twice."""
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        one = waiting.pop(0)
        if (real := one.resolve()) in seen:
            continue
        seen.add(real)
        if (one / "ann").is_dir():
            yield one
        waiting += (other for other in visible(one) if other.is_dir() and other.name not in _NO_DATASETS)


def _find(contents: Contents) -> Iterator[Found]:
    """The project around `meta.json`, or one dataset."""
    if contents.is_file:
        return
    if not (contents.path / "ann").is_dir() and not glance(contents.path / "meta.json").has("classes"):
        return
    for folder in _datasets(contents.path):
        file = next(Contents(folder).files((".json",), ("ann",)), None)
        if file is not None and glance(file).has("size", "objects"):
            yield Found(contents.path)
            return


FORMAT = Format("supervisely", "Supervisely (a project, or a dataset with ann/ and img/)", _find, read)
