"""Reads COCO's object annotations: one JSON file with `images`, `annotations` and `categories`.

A segmentation is a list of polygons or a run-length encoding, compressed (`counts` is text) or not (a list). Ids may
be integers or text.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.formats.coco import files as coco_files
from models.data.formats.coco import writing as coco_writing
from models.data.formats.protocol import Format, Writer
from models.data.image_files import size_hw
from models.data.parsing import json_object
from models.data.parsing.ids import Ids, IdsSeen
from models.data.parsing.json_file import not_json, parsed
from models.data.parsing.json_object import Entries, Entry
from models.data.parsing.rle import read_rle
from models.data.parsing.shapes import Tally, box_of, turned_box
from models.data.parsing.sources import Sources
from models.data.parsing.values import (
    FRACTIONS,
    BadValueError,
    EmptyBoxError,
    are_fractions,
    box,
    extent,
    flag,
    is_missing,
    listed,
    number,
    polygons,
    score_of,
    shown,
    stated_size_hw,
    text,
)


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What the file holds, and what in it could not be read.

    Images are looked for beside the file, in `images/` beside it, in the folder above (as in COCO's own
    `annotations/instances_val2017.json`) and in `images/` there; then by name in all folders there. A size that is
    not stated is taken from the image.

    Raises DataError when it is no such file at all.
    """
    try:
        return _Reading(path, sources).all()
    except json.JSONDecodeError as error:
        raise not_json(path, error) from error


class _Reading:
    """One file being read. Its entries are gone through one by one, as there may be a million."""

    def __init__(self, path: Path, sources: Sources) -> None:
        self._path = path
        self._sources = sources
        self._content = _parse(path)
        self._problems: list[Problem] = []
        self._tally = Tally()
        self._classes: Ids[str] = Ids()
        self._images: Ids[LabelledImage] = Ids()
        self._unread: Ids[bool] = Ids()

    def all(self) -> tuple[Dataset, list[Problem]]:
        names = self._categories()
        self._read_images()
        found: dict[int, list[Annotation]] = {id(image): [] for image in self._images.values()}
        fractions = self._annotations(found)
        if fractions and not any(found.values()):  # not a few of many: the file is written so
            place = Place(self._path)
            theirs = set(map(id, fractions))
            self._problems = [one for one in self._problems if id(one) not in theirs]
            self._problems.append(Problem(place, f"every bbox lies {FRACTIONS}"))
        images = tuple(
            LabelledImage(image.path, image.size_hw, tuple(found[id(image)]), image.place)
            for image in self._images.values()
        )
        return Dataset(names, images), self._problems

    def _problem(self, section: str, index: int, found: Entry, reason: object, fatal: bool = True) -> None:
        known = f" (id {shown(found.value['id'])})" if isinstance(found.value, dict) and "id" in found.value else ""
        place = Place(self._path, found.line)
        self._problems.append(Problem(place, f"{section}[{index}]{known}: {reason}", fatal))

    def _categories(self) -> tuple[str, ...]:
        entries: list[Entry] = list(self._content["categories"])
        left_out = self._umbrella(entries)
        for index, found in enumerate(entries):
            entry = found.value
            try:
                identity, name = identity_of(entry, "id"), text(entry.get("name"), "name")
                if found is left_out:
                    reason = f"{name!r} is the others' supercategory and has no objects: no class"
                    self._problem("categories", index, found, reason, fatal=False)
                elif not self._classes.add(identity, name):
                    raise BadValueError(f"id: expected each id once, found {shown(identity)} again")
            except BadValueError as error:
                if self._is_unused(entry):
                    reason = "it has no name and no objects: no class"
                    self._problem("categories", index, found, reason, fatal=False)
                else:
                    self._problem("categories", index, found, error)
        names = list(self._classes.values())
        for name, times in Counter(names).items():
            if times > 1:
                reason = f"categories: {times} of them are named {name!r}: they are one class"
                self._problems.append(Problem(Place(self._path), reason, fatal=False))
        return tuple(dict.fromkeys(names))

    def _umbrella(self, entries: Sequence[Entry]) -> Entry | None:
        """The category that Roboflow writes before the real ones: the supercategory of them all, without objects."""
        if len(entries) < 2 or not all(isinstance(entry.value, dict) for entry in entries):
            return None
        first, *others = entries
        name = first.value.get("name")
        if not isinstance(name, str) or any(entry.value.get("supercategory") != name for entry in others):
            return None
        identity = first.value.get("id")
        if any(
            isinstance(entry.value, dict) and entry.value.get("category_id") == identity
            for entry in self._content["annotations"]
        ):
            return None
        return first

    def _is_unused(self, category: Any) -> bool:
        """Whether a category has no name, and no annotation is of it. VIA writes such for options without a text."""
        if not isinstance(category, dict) or not is_missing(category.get("name")) or "id" not in category:
            return False
        return not any(
            isinstance(entry.value, dict) and entry.value.get("category_id") == category["id"]
            for entry in self._content["annotations"]
        )

    def _read_images(self) -> None:
        folders = (
            self._path.parent,
            self._path.parent / "images",
            self._path.parent.parent,
            self._path.parent.parent / "images",
        )
        # What is above a folder that is only for annotations belongs to the data set.
        tree = folders[2 if self._path.parent.name.lower().startswith(("annotation", "label")) else 0]
        for index, found in enumerate(self._content["images"]):
            entry = found.value
            try:
                identity = identity_of(entry, "id")
                if identity in self._images or identity in self._unread:
                    raise BadValueError("id: expected each image once, found it again")
                self._unread.add(identity, True)
                name, url = entry.get("file_name"), None
                if is_missing(name) and isinstance(address := entry.get("coco_url"), str) and "://" in address:
                    name, url = "/".join(address.split("/")[-2:]), address  # LVIS: the folder and the file
                file = self._sources.find(name, "file_name", folders, tree=tree, hint=self._path.stem, url=url)
                size = stated_size_hw(entry.get("height"), entry.get("width")) or size_hw(file, self._sources.page)
                self._images.add(identity, LabelledImage(file, size, place=Place(self._path, found.line)))
                self._unread.remove(identity)
            except BadValueError as error:
                self._problem("images", index, found, error)

    def _annotations(self, found: dict[int, list[Annotation]]) -> list[Problem]:
        """Reads them into `found`, by their images; returns the problems of boxes that seem to be fractions."""
        ids, image_of, path = IdsSeen(), self._images.get, self._path
        fractions: list[Problem] = []
        for index, one in enumerate(self._content["annotations"]):
            line, entry = one
            dropped: list[str] = []
            try:
                identity = identity_of(entry, "image_id")
                image = image_of(identity)
                if image is None:
                    if identity in self._unread:
                        raise BadValueError("its image could not be read")
                    raise BadValueError(f"image_id: expected the id of an image, found {shown(identity)}")
                if not is_missing(entry.get("id")):
                    ids.add(identity_of(entry, "id"), index)
                annotation = self._annotation(entry, image.size_hw, Place(path, line), dropped)
                found[id(image)].append(annotation)
            except _OnlyKeypointsError:
                self._tally.add("{count} annotations have keypoints, and no box or mask: left out", Place(path, line))
                continue
            except EmptyBoxError as error:
                self._problem("annotations", index, one, f"{error}: left out", fatal=False)
            except BadValueError as error:
                self._problem("annotations", index, one, error)
                if isinstance(error, _FractionsError):
                    fractions.append(self._problems[-1])
            for reason in dropped:
                self._problem("annotations", index, one, f"{reason}: this part is left out", fatal=False)
        if again := ids.again():
            for index, one in enumerate(self._content["annotations"]):
                if index in again:
                    reason = "id: expected each id once, found it again"
                    self._problem("annotations", index, one, reason, fatal=False)
        self._problems += self._tally.notes()
        return fractions

    def _annotation(
        self, entry: dict[str, Any], size_hw: tuple[int, int], place: Place, dropped: list[str]
    ) -> Annotation:
        label = self._classes.get(category := identity_of(entry, "category_id"))
        if label is None:
            raise BadValueError(f"category_id: expected the id of a category, found {shown(category)}")
        normalized = self._sources.normalized
        scale_xy = (size_hw[1], size_hw[0]) if normalized else (1, 1)
        segmentation = entry.get("segmentation")
        parts = rle = None
        if segmentation:
            segmentation = listed(segmentation)
            if isinstance(segmentation, dict) and segmentation:
                rle = read_rle(segmentation, size_hw)
            elif segmentation and not is_missing(segmentation):
                parts = polygons(segmentation, "segmentation", scale_xy, dropped) or None
        crowd = False if (iscrowd := entry.get("iscrowd")) == 0 else flag(iscrowd, "iscrowd")
        bbox = listed(entry.get("bbox"))
        xyxy = None
        if bbox and not is_missing(bbox):
            x, y, width, height = _four(bbox)
            x2, y2 = x + width, y + height
            if normalized:
                x, y, x2, y2 = x * scale_xy[0], y * scale_xy[1], x2 * scale_xy[0], y2 * scale_xy[1]
            elif x2 <= 1 and are_fractions((x, y, x2, y2), size_hw):
                raise _FractionsError(f"bbox: {shown(bbox)} lies {FRACTIONS}")
            try:
                xyxy = box(x, y, x2, y2, "bbox")
            except EmptyBoxError:
                if not parts and not rle:
                    raise
                dropped.append("bbox: of no width or height, the box is that around the segmentation")
        if xyxy is None and parts:
            xyxy = box(*extent(parts), "segmentation")
        elif xyxy is None and rle:
            xyxy = box_of(rle, "segmentation")
        elif xyxy is None:
            if isinstance(entry.get("keypoints"), list) and entry["keypoints"]:
                raise _OnlyKeypointsError
            raise BadValueError("bbox: expected a box or a segmentation, found neither")
        if not parts and rle is None and (turn := _turn(entry)):
            x1, y1, x2, y2 = xyxy
            corners = turned_box(x1, y1, x2 - x1, y2 - y1, turn, ((x1 + x2) / 2, (y1 + y2) / 2))
            parts, xyxy = (corners,), box(*extent((corners,)), "bbox")
            self._tally.add("{count} turned boxes are read as polygons of four corners", place)
        known = entry.get("score") if self._sources.scores else None
        score = None if known is None else score_of(known)
        return Annotation(label, xyxy, parts, rle, crowd, place, score)


def _turn(entry: dict[str, Any]) -> float:
    """By how many degrees CVAT's user has turned the box about its centre; the `bbox` is that of the box before it."""
    attributes = entry.get("attributes")
    turn = attributes.get("rotation") if isinstance(attributes, dict) else None
    # Somebody's own attribute of that name may be a text.
    return turn % 360 if isinstance(turn, int | float) and math.isfinite(turn) else 0


class _OnlyKeypointsError(BadValueError):
    """An annotation that has points, and neither a box nor a mask."""


class _FractionsError(BadValueError):
    """A box that is one of pixels by its format, and of fractions by its values."""


def _parse(path: Path) -> dict[str, Any]:
    content = parsed(path, json_object.parse)
    sections = ("images", "annotations", "categories")
    missing = [name for name in sections if not isinstance(content.get(name), Entries)]
    if missing:
        raise DataError([Problem(Place(path), f"not COCO: expected lists {', '.join(sections)}, lacks {missing[0]}")])
    return content


def identity_of(entry: Any, field: str) -> int | str:
    """The id in this field of an entry. Raises BadValueError."""
    if not isinstance(entry, dict):
        raise BadValueError(f"expected an object, found {shown(entry)}")
    value = entry.get(field)
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():  # as pandas writes a column in which some are missing
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadValueError(f"{field}: expected an integer or text, found {shown(value)}")
    return value


def _four(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise BadValueError(f"bbox: expected [x, y, width, height], found {shown(value)}")
    return [number(one, "bbox") for one in value]


FORMAT = Format(
    "coco",
    "COCO (a .json file)",
    coco_files.find,
    read,
    Writer(lambda dataset, target: coco_writing.write(dataset, target.file, target.references), alone=True),
)
