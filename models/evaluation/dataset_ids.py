"""The ids that the images and classes of a data set have in the COCO file it was read from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote

from models.data import DataError, Dataset, LabelledImage
from models.data.formats.coco import image_ids as coco_ids
from models.data.formats.coco.image_ids import ImageEntry
from models.data.parsing.ids import Id, Ids
from models.evaluation import readings
from models.evaluation.readings import UnclearError


@dataclass(frozen=True)
class DatasetIds:
    """images: the index of each image. categories: ids and names. Both are empty of a data set that has no ids."""

    images: Ids[int]
    categories: Sequence[tuple[Id, str]]


def ids_of(dataset: Dataset) -> DatasetIds:
    """Reads them from the files that the images' places name. Raises UnclearError where files have ids in common."""
    found: list[tuple[Id, int]] = []
    categories: dict[Id, str] = {}
    files: list[Path] = []
    numbered = list(enumerate(dataset.images))
    for file, group in groupby(numbered, lambda pair: pair[1].place.file if pair[1].place is not None else None):
        if file is None or file.suffix.lower() != ".json":
            continue
        try:
            ids = coco_ids.read(file)
        except DataError:
            continue
        files.append(file)
        found += _paired(list(group), ids.images)
        for identity, name in ids.categories:
            if categories.setdefault(identity, name) != name:
                raise UnclearError(_in_common("category_id", identity, files))
    seen: set[Id] = set()
    for identity, _ in found:
        if identity in seen:
            raise UnclearError(_in_common("image_id", identity, files))
        seen.add(identity)
    return DatasetIds(readings.ids_of(found), list(categories.items()))


def _in_common(field: str, identity: Id, files: Sequence[Path]) -> str:
    return (
        f"{field}: the data are in {len(files)} files ({', '.join(map(str, files[:3]))}), and {identity} stands for "
        "something else in two of them; measure one file at a time"
    )


def _paired(images: Sequence[tuple[int, LabelledImage]], entries: Sequence[ImageEntry]) -> list[tuple[Id, int]]:
    """The ids of images that are in the file's order; where some were left out, told apart by their names."""
    if len(images) == len(entries):
        return [(entry.id, index) for entry, (index, _) in zip(entries, images, strict=True)]
    found = []
    rest = iter(entries)
    for index, image in images:
        stem = _stem(image.name)
        for entry in rest:
            if stem in (_stem(entry.name), _stem(unquote(entry.name))):
                found.append((entry.id, index))
                break
    return found


def _stem(name: str) -> str:
    return Path(re.split(r"[?#]", name, maxsplit=1)[0].replace("\\", "/")).stem.casefold()
