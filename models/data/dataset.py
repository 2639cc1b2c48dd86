"""The one form in memory that every annotation format is read into and written from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from pycocotools import mask as coco_mask

Polygon = tuple[float, ...]  # x1, y1, x2, y2, ... in absolute pixels

_LONGEST_REASON = 1000  # characters
# Of a reason: what is quoted, and words with a digit or a slash in them.
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\S*[\d/]\S*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was read: a file and, where it has lines, the line counted from 1."""

    file: Path
    line: int | None = None

    def __str__(self) -> str:
        return str(self.file) if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a data set, and where.

    reason: of a long one, whatever it quotes, the beginning and the end are kept.
    fatal: what it is about could not be read at all. about: which image or object it is, said before the reason.
    """

    place: Place
    reason: str
    fatal: bool = True
    about: str = ""

    def __post_init__(self) -> None:
        if len(self.reason) > _LONGEST_REASON:
            kept = _LONGEST_REASON // 2
            object.__setattr__(self, "reason", f"{self.reason[:kept]} ... {self.reason[-kept:]}")

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"

    @property
    def what(self) -> str:
        """What is wrong, with what."""
        return f"{self.about}: {self.reason}" if self.about else self.reason

    @property
    def kind(self) -> str:
        """What problems that differ in no more than a number, a name or a file have in common."""
        return _PARTICULAR.sub("_", self.reason)


class DataError(ValueError):
    """A data set that cannot be used as it is; its message has a line for each of the `problems`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object in an image.

    label: the class's name.
    box_xyxy: x1, y1, x2, y2 in absolute pixels of the image, origin at the top left corner of its top left pixel.
    polygons: the object's outline, in the same frame, of one part or several; or None.
    rle: the object's mask as COCO's compressed RLE, {"size": [H, W], "counts": str}; or None. Never with polygons.
    crowd: COCO's `iscrowd`: a region of many objects, which counts neither for nor against a detector.
    place: where it was read; score: a detector's, where one was asked for. Neither is part of what it is.
    """

    label: str
    box_xyxy: tuple[float, float, float, float]
    polygons: tuple[Polygon, ...] | None = None
    rle: dict[str, Any] | None = None
    crowd: bool = False
    place: Place | None = field(default=None, compare=False)
    score: float | None = field(default=None, compare=False)

    @property
    def has_mask(self) -> bool:
        return self.polygons is not None or self.rle is not None

    def mask(self, size_hw: tuple[int, int]) -> np.ndarray | None:
        """The object's mask (H, W) bool as COCO's own rasteriser draws it; None where only its box is known."""
        rle = self.to_rle(size_hw)
        return None if rle is None else coco_mask.decode(rle).astype(bool)

    def to_rle(self, size_hw: tuple[int, int]) -> dict[str, Any] | None:
        """The mask of `mask` as COCO's compressed RLE, {"size": [H, W], "counts": str}."""
        if self.polygons is None:
            return self.rle
        parts = coco_mask.frPyObjects([list(polygon) for polygon in self.polygons], *size_hw)
        whole = coco_mask.merge(parts)
        return {"size": [int(side) for side in whole["size"]], "counts": whole["counts"].decode("ascii")}


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image and what is known to be in it.

    path: the image's file, or its http(s) URL as text.
    size_hw: its (height, width) in pixels.
    place: where it was read; not part of what it is.
    page: of a file with several pages or frames, counted from 1.
    """

    path: Path | str
    size_hw: tuple[int, int]
    annotations: tuple[Annotation, ...] = ()
    place: Place | None = field(default=None, compare=False)
    page: int = 1

    @property
    def name(self) -> str:
        """The file's name with its suffix; of a URL, the last part of its path, decoded."""
        if isinstance(self.path, Path):
            return self.path.name
        return unquote(re.split("[?#]", self.path, maxsplit=1)[0]).rsplit("/", 1)[-1]

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """(N, 4) float64, one for each annotation."""
        return np.array([one.box_xyxy for one in self.annotations], np.float64).reshape(-1, 4)


@dataclass(frozen=True)
class Dataset:
    """Images with objects of named classes.

    class_names: in the order of their indices in a detector's output. images: in the order of the source.

    Raises ValueError when made with an annotation of a class that has no name in `class_names`.
    """

    class_names: tuple[str, ...]
    images: tuple[LabelledImage, ...]

    def __post_init__(self) -> None:
        known = set(self.class_names)
        for image, annotation in self.annotations():
            if annotation.label not in known:
                raise ValueError(
                    f"{image.path}: unknown class {annotation.label!r}: expected one of {self.class_names}"
                )

    def __len__(self) -> int:
        return len(self.images)

    def annotations(self) -> Iterator[tuple[LabelledImage, Annotation]]:
        """Every annotation with its image, in order."""
        for image in self.images:
            for annotation in image.annotations:
                yield image, annotation

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The images of these indices, with the same classes."""
        return Dataset(self.class_names, tuple(self.images[index] for index in indices))


def data_hash(dataset: Dataset) -> str:
    """The sha256, as hex digits, of what the data set says: its classes in their order, and for each image its name,
    its size and its objects in their order. Where the files are, in which format and in which order, is no matter.
    """
    images = sorted(json.dumps(_said(image)) for image in dataset.images)
    return hashlib.sha256(json.dumps([dataset.class_names, images]).encode("ascii")).hexdigest()


def _said(image: LabelledImage) -> list[Any]:
    """What of an image goes into the hash; a coordinate is hashed to the millionth of a pixel."""

    def numbers(values: Sequence[float]) -> list[float]:
        return [round(float(value), 6) + 0.0 for value in values]

    objects = [
        [
            one.label,
            numbers(one.box_xyxy),
            [numbers(polygon) for polygon in one.polygons or ()],
            one.rle["counts"] if one.rle else None,
            bool(one.crowd),
        ]
        for one in image.annotations
    ]
    page = [] if image.page == 1 else [image.page]
    return [image.name, [int(length) for length in image.size_hw], objects, *page]
