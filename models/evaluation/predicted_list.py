"""A list of results, laid on the images and classes of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from models.data import Annotation, DataError, Dataset, Place, Problem
from models.data.formats.coco.image_ids import as_number
from models.data.parsing.ids import Id, Ids
from models.data.parsing.rle import read_rle
from models.data.parsing.values import BadValueError, polygons
from models.evaluation import readings
from models.evaluation.dataset_ids import ids_of
from models.evaluation.image_names import ByName
from models.evaluation.masks import Rle
from models.evaluation.matching import IOU_THRESHOLD, box_ious
from models.evaluation.predicted import Predicted, Predictions
from models.evaluation.readings import BoxForm, Options, number_in_name
from models.evaluation.result_list import Bad, Listed

_LAID = 5000  # boxes, the best of the list, that are laid on objects to see which reading is right
_WAY_OUT = "expected the names as `file_name` or `image_id`, or a data set in COCO's format"


def read_list(
    path: Path, parsed: tuple[list[Listed], list[Bad]], dataset: Dataset, options: Options, *, skip_bad: bool = False
) -> Predictions:
    """What the entries of a list say of each image of the data set; parsed: those that can be read, and the others.

    Raises DataError with its bad entries, unless they are to be skipped, and UnclearError where it can be read in two
    ways.
    """
    entries, bad = parsed
    total = len(entries) + len(bad)
    notes: list[str] = []
    ids = ids_of(dataset)
    lying = _Lying(dataset, [one for one in entries if one.box is not None], options.boxes or "xywh")
    image_of = _images(entries, dataset, ids.images, options, lying, notes)
    if entries and not image_of:
        named = list(dict.fromkeys(str(one.image_name or one.image) for one in entries))
        raise DataError([Problem(Place(path), f"expected images of the data set, found only others: {_few(named)}")])
    here = [one for one in entries if one.index in image_of]
    boxed = [one for one in here if one.box is not None]
    sizes = np.array([dataset.images[image_of[one.index]].size_hw for one in boxed], np.float64).reshape(-1, 2)
    doubt = readings.box_doubt(np.array([one.box for one in boxed], np.float64).reshape(-1, 4), sizes)
    if doubt and options.boxes is None:
        raise readings.UnclearError(doubt)
    labels = _labels(here, dataset, ids.categories, options, lambda meaning: lying.of_class(image_of, meaning), notes)

    found: list[list[Predicted]] = [[] for _ in dataset.images]
    for one in here:
        index = image_of[one.index]
        try:
            if one.label is None and one.category not in labels:
                known = _few([str(own) for own, _ in ids.categories] or list(dataset.class_names))
                if one.category is None:
                    raise BadValueError(f"expected a category_id ({known}) or a label, found neither")
                raise BadValueError(f"category_id: expected one of the data set's ({known}), found {one.category}")
            label = one.label or labels[one.category]  # type: ignore[index]  # it is in there
            found[index].append(_predicted(one, label, options.boxes or "xywh", dataset.images[index].size_hw))
        except BadValueError as error:
            bad.append(Bad(one.index, f"image {one.image_name or one.image}: {error}"))
    if bad and not skip_bad:
        first = Problem(Place(path), f"{len(bad)} of {total} entries cannot be read; --skip-bad leaves them out")
        raise DataError([first, *(Problem(Place(path), str(one)) for one in sorted(bad, key=lambda one: one.index))])
    if bad:
        notes.append(f"{len(bad)} of {total} entries are left out, as they cannot be read: {bad[0]}")
    _say(entries, here, dataset, image_of, notes)
    found = [_joined(in_image) for in_image in found]
    if joined := len(here) - sum(map(len, found)) - sum(one.index in image_of for one in bad):
        notes.append(f"{joined} objects are there as a box and again as a mask: each is one object")
    return Predictions(found, tuple(f"{path}: {note}" for note in notes))


def _say(
    entries: Sequence[Listed], here: Sequence[Listed], dataset: Dataset, image_of: Mapping[int, int], notes: list[str]
) -> None:
    if others := len(entries) - len(here):
        notes.append(f"{others} entries are of images that are not in the data set; they are passed over")
    if without := sum(one.score is None for one in here):
        notes.append(f"{without} entries have no score; each counts as 1")
    if lacking := len(dataset) - len(set(image_of.values())):
        notes.append(f"{lacking} of the data set's {len(dataset)} images have no entry: nothing was found in them")


def _images(
    entries: Sequence[Listed],
    dataset: Dataset,
    ids: Ids[int],
    options: Options,
    lying: _Lying,
    notes: list[str],
) -> dict[int, int]:
    """For each entry's index that of its image; without the entries of other images."""
    by_name = ByName(image.path for image in dataset.images)
    found: dict[int, int] = {}
    numbered: list[Listed] = []
    of_name: dict[str, int | None] = {}
    for one in entries:
        name = one.image_name
        if name is None and isinstance(one.image, str) and ids.get(one.image) is None:
            name = one.image if as_number(one.image) is None or by_name.find(one.image, loosely=True) else None
        if name is None:
            numbered.append(one)
            continue
        if name not in of_name:
            fitting = by_name.find(name, loosely=True)
            if len(fitting) > 1:
                raise readings.UnclearError(
                    f"entry {one.index}: {len(fitting)} images of the data set are called {name}: expected them told "
                    "apart by folders"
                )
            of_name[name] = fitting[0] if fitting else None
        if (index := of_name[name]) is not None:
            found[one.index] = index
    if not found:  # the names, if there are any, are those of another place
        numbered = list(entries)
    stems = [(image.name.rsplit(".", 1)[0], index) for index, image in enumerate(dataset.images)]
    in_names = readings.ids_of([(int(stem), index) for stem, index in stems if stem.isascii() and stem.isdigit()])
    coco_names = [(number_in_name(stem), index) for stem, index in stems]
    chosen = readings.images(
        dict.fromkeys(one.image for one in numbered if one.image is not None),
        ids,
        in_names,
        readings.ids_of([(number, index) for number, index in coco_names if number is not None]),
        _WAY_OUT,
        options.image_ids,
        lambda meaning: lying.anywhere(meaning),
    )
    if chosen.note:
        notes.append(chosen.note)
    for one in numbered:
        if one.image is not None and one.image in chosen.meaning:
            found[one.index] = chosen.meaning[one.image]
    return found


def _labels(
    here: Sequence[Listed],
    dataset: Dataset,
    categories: Sequence[tuple[Id, str]],
    options: Options,
    fits: Any,
    notes: list[str],
) -> Mapping[Id, str]:
    used = Counter(one.category for one in here if one.label is None and one.category is not None)
    chosen = readings.categories(used, categories, dataset.class_names, options.category_ids, fits)
    if chosen.note:
        notes.append(chosen.note)
    return chosen.meaning


def _predicted(one: Listed, label: str, form: BoxForm, size_hw: tuple[int, int]) -> Predicted:
    """Raises BadValueError."""
    score = 1.0 if one.score is None else one.score
    rle = None if one.segmentation is None else mask_of(one.segmentation, size_hw)
    if one.box is not None:
        box = readings.corners(one.box, form, size_hw)
        if box[0] > box[2] or box[1] > box[3]:
            raise BadValueError(f"bbox: expected {form.split('-')[0]} with x1 <= x2 and y1 <= y2, found {one.box}")
    else:
        if rle is None:
            raise BadValueError("bbox: expected a box or a segmentation with an area, found neither")
        x, y, width, height = (float(value) for value in coco_mask.toBbox(dict(rle)))
        box = (x, y, x + width, y + height)
    return Predicted(label, score, box, rle)


def mask_of(segmentation: Any, size_hw: tuple[int, int]) -> Rle | None:
    """The mask of a `segmentation` of any form as compressed RLE; None of polygons of no area.

    Raises BadValueError.
    """
    if isinstance(segmentation, dict):
        return read_rle(segmentation, size_hw)
    parts = polygons(segmentation, "segmentation", dropped=[])
    return Annotation("", (0, 0, 0, 0), parts).to_rle(size_hw) if parts else None


def _joined(objects: list[Predicted]) -> list[Predicted]:
    """The objects, without the boxes that stand beside the same box with a mask."""
    with_mask = Counter((one.label, one.score, one.box_xyxy) for one in objects if one.rle is not None)
    kept = []
    for one in objects:
        key = (one.label, one.score, one.box_xyxy)
        if one.rle is None and with_mask[key] > 0:
            with_mask[key] -= 1
            continue
        kept.append(one)
    return kept


class _Lying:
    """Which objects of the data set the best boxes of a list lie on, to see which of two readings is right."""

    def __init__(self, dataset: Dataset, entries: Sequence[Listed], form: BoxForm) -> None:
        self._dataset, self._form = dataset, form
        self._best = sorted(entries, key=lambda one: -(one.score or 0.0))[:_LAID]
        self._kept: dict[tuple[int, int], str | None] = {}

    def of_class(self, image_of: Mapping[int, int], classes: Mapping[Id, str]) -> int:
        """How many lie on an object of the class that they have by this reading."""
        return sum(
            self._label(one, image_of[one.index]) == classes.get(one.category)
            for one in self._best
            if one.index in image_of and one.category is not None and one.label is None and one.category in classes
        )

    def anywhere(self, images: Mapping[Id, int]) -> int:
        """How many lie on any object of the image that they have by this reading."""
        here = ((one, images[one.image]) for one in self._best if one.image is not None and one.image in images)
        return sum(self._label(one, index) is not None for one, index in here)

    def _label(self, one: Listed, index: int) -> str | None:
        """The class of the object that the box overlaps most, if that is enough to stand for it."""
        if (one.index, index) not in self._kept:
            image = self._dataset.images[index]
            assert one.box is not None
            box = readings.corners(one.box, self._form, image.size_hw)
            overlaps = box_ious([box], [annotation.box_xyxy for annotation in image.annotations])
            best = int(overlaps.argmax()) if overlaps.size else 0
            on = overlaps.size > 0 and overlaps[0, best] >= IOU_THRESHOLD
            self._kept[one.index, index] = image.annotations[best].label if on else None
        return self._kept[one.index, index]


def _few(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
