"""Boxes of COCO's lists of results for the images of a run, which have names and no ids."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from app.folders.sources import SourceImage
from models.data.formats.coco import image_ids as coco_ids
from models.data.formats.coco.image_ids import CocoIds, as_number
from models.data.parsing.ids import Id
from models.data.parsing.rle import read_rle
from models.data.parsing.values import BadValueError, extent, polygons, shown
from models.evaluation import readings
from models.evaluation.image_names import ByName
from models.evaluation.readings import BoxForm, Options, UnclearError, number_in_name
from models.evaluation.result_list import Bad, Listed, parse

Box = tuple[float, float, float, float]

_OPENED = 200  # images whose size is looked up to see what the numbers of the boxes are
_WAY_OUT = "--prompts-images FILE names the annotation file that has these ids"


@dataclass(frozen=True)
class ListedBoxes:
    """of_image: by name, or what stands for one that is not known, the boxes with label and score. class_names: of the
    annotation file. bad: entries that cannot be used. notes: what should be said of how the list was read.
    """

    of_image: dict[str, list[tuple[Box, str | None, float | None]]]
    class_names: tuple[str, ...]
    bad: list[Bad]
    notes: list[str]


def read_listed(
    content: Sequence[Any], images: Sequence[SourceImage], options: Options, annotation_file: Path | None = None
) -> ListedBoxes:
    """The boxes of the list. annotation_file: a COCO file that has the ids of images and categories.

    A text that is no number is a name. Raises DataError for the annotation file, and UnclearError where the list can be
    read in two ways.
    """
    entries, bad = parse(content)
    ids = CocoIds((), ()) if annotation_file is None else coco_ids.read(annotation_file)
    notes: list[str] = []
    names = _names(entries, images, ids, options, notes)
    used = dict.fromkeys(one.category for one in entries if one.label is None and one.category is not None)
    labels: dict[Id, str] = {one: str(one) for one in used}
    class_names = tuple(dict.fromkeys(name for _, name in ids.categories))
    if ids.categories or options.category_ids is not None:
        chosen = readings.categories(used, ids.categories, class_names, options.category_ids)
        labels = dict(chosen.meaning)
        notes += [chosen.note] if chosen.note else []
    elif any(as_number(one) is not None for one in used):
        notes.append(
            "the classes are called by their category_id, as there are no names; --prompts-images FILE has them"
        )

    sizes = _Sizes(images, ids)
    doubt = _doubt([one for one in entries if one.box is not None], names, sizes)
    if doubt and options.boxes is None:
        raise UnclearError(doubt)
    of_image: dict[str, list[tuple[Box, str | None, float | None]]] = defaultdict(list)
    empty = twice = 0
    for one in entries:
        name = names[one.index]
        its = of_image[name]
        try:
            if one.label is None and one.category is not None and one.category not in labels:
                raise BadValueError(f"category_id: expected the id of a category, found {one.category}")
            box = _box(one, options.boxes or "xywh", name, sizes)
            if box[0] > box[2] or box[1] > box[3]:
                raise BadValueError(f"bbox: expected a width and a height above 0, found {list(one.box or ())}")
        except BadValueError as error:
            bad.append(Bad(one.index, f"image {one.image_name or one.image}: {error}"))
            continue
        label = one.label if one.label is not None or one.category is None else labels[one.category]
        if box[0] == box[2] or box[1] == box[3]:
            empty += 1
        elif (box, label, one.score) in its[-1:] or (box, label, one.score) in its:
            twice += 1
        else:
            its.append((box, label, one.score))
    if empty:
        notes.append(f"{empty} boxes of no width or height are left out")
    if twice:
        notes.append(f"{twice} boxes are there twice, of the same class and score: each is one object")
    return ListedBoxes(dict(of_image), class_names, bad, notes)


def _names(
    entries: Sequence[Listed], images: Sequence[SourceImage], ids: CocoIds, options: Options, notes: list[str]
) -> dict[int, str]:
    """For each entry's index the name of its image."""
    known = readings.ids_of((one.id, one.name) for one in ids.images)
    stems = [(image.stem, image.name) for image in images]
    exact = {stem for stem, _ in stems}
    found: dict[int, str] = {}
    numbered: list[Listed] = []
    for one in entries:
        if one.image_name is not None:
            found[one.index] = one.image_name
        elif isinstance(one.image, str) and known.get(one.image) is None:
            if as_number(one.image) is None or one.image in exact:
                found[one.index] = one.image
            else:
                numbered.append(one)
        else:
            numbered.append(one)
    by_number: dict[int, list[str]] = defaultdict(list)
    for stem, name in stems:
        if stem.isascii() and stem.isdigit():
            by_number[int(stem)].append(name)
        elif (number := number_in_name(stem)) is not None:
            by_number[number].append(name)
    in_coco_names = [(number, name) for stem, name in stems if (number := number_in_name(stem)) is not None]
    chosen = readings.images(
        dict.fromkeys(one.image for one in numbered if one.image is not None),
        known,
        readings.ids_of((number, names[0]) for number, names in by_number.items()),
        readings.ids_of(in_coco_names),
        _WAY_OUT,
        options.image_ids,
    )
    notes += [chosen.note] if chosen.note else []
    of_known = set(known.values())
    for one in numbered:
        assert one.image is not None
        found[one.index] = name = chosen.meaning.get(one.image, f"image {one.image}")
        number = as_number(one.image)
        if name not in of_known and number is not None and len(alike := by_number.get(number, [])) > 1:
            raise UnclearError(f"image_id: expected one image of number {number}, found {' and '.join(alike)}")
    return found


class _Sizes:
    """The (height, width) of images by name: as the annotation file states it, else as the file has it."""

    def __init__(self, images: Sequence[SourceImage], ids: CocoIds) -> None:
        self._images = images
        self._by_name = ByName(one.path if isinstance(one.path, Path | str) else str(one.path) for one in images)
        self._known: dict[str, tuple[int, int] | None] = {one.name: one.size_hw for one in ids.images if one.size_hw}

    def of(self, name: str) -> tuple[int, int] | None:
        if name not in self._known:
            found = self._by_name.find(name, loosely=True)
            self._known[name] = None
            if len(found) == 1:
                with contextlib.suppress(BadValueError):  # it is told when the image's turn comes
                    self._known[name] = self._images[found[0]].size_hw()
        return self._known[name]


def _doubt(entries: Sequence[Listed], names: dict[int, str], sizes: _Sizes) -> str | None:
    some = set(list(dict.fromkeys(names.values()))[:_OPENED])
    of_some = [(sizes.of(names[one.index]) or (0, 0)) if names[one.index] in some else (0, 0) for one in entries]
    boxes = np.array([one.box for one in entries], np.float64).reshape(-1, 4)
    return readings.box_doubt(boxes, np.array(of_some, np.float64).reshape(-1, 2))


def _box(one: Listed, form: BoxForm, name: str, sizes: _Sizes) -> Box:
    """The corners in pixels; without a box, those around the mask. Raises BadValueError."""
    if one.box is not None:
        size = sizes.of(name) if form.endswith("fractions") else None
        if form.endswith("fractions") and size is None:
            raise BadValueError("bbox: expected an image whose size is known, as its numbers are fractions")
        return readings.corners(one.box, form, size)
    if isinstance(one.segmentation, dict):
        own = sizes.of(name) or one.segmentation.get("size")
        if not isinstance(own, list | tuple) or len(own) != 2 or not all(type(side) is int for side in own):
            raise BadValueError(f"segmentation.size: expected the image's height and width, found {shown(own)}")
        x, y, width, height = map(float, coco_mask.toBbox(read_rle(one.segmentation, (own[0], own[1]))))
        return x, y, x + width, y + height
    parts = polygons(one.segmentation, "segmentation", dropped=[])
    if not parts:
        raise BadValueError("bbox: expected a box or a segmentation with an area, found neither")
    return extent(parts)
