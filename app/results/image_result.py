"""What was found in one image: the value that every writer of results takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from app.contract import masks
from app.prediction import PredictedObject

# The class of a box that came without one.
UNNAMED = "object"


@dataclass(frozen=True)
class ImageResult:
    """The objects of one image, in the order of their numbers.

    name: the image's path under the folder of the run's images, with forward slashes. size_hw: (height, width).
    """

    name: str
    size_hw: tuple[int, int]
    objects: tuple[PredictedObject, ...]

    def to_json(self) -> dict[str, Any]:
        return {"image": self.name, "size_hw": list(self.size_hw), "objects": [_as_json(one) for one in self.objects]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ImageResult:
        """The inverse of `to_json`. Raises KeyError or TypeError for anything else."""
        height, width = value["size_hw"]
        objects = (PredictedObject(**one | {"box_xyxy": tuple(one["box_xyxy"])}) for one in value["objects"])
        return cls(value["image"], (height, width), tuple(objects))


def _as_json(one: PredictedObject) -> dict[str, Any]:
    """As a line of a journal has had it ever since: what was never asked for is not there."""
    seldom = ("rotated_box", "mask_agreement")
    return {key: value for key, value in asdict(one).items() if key not in seldom or value is not None}


@dataclass(frozen=True)
class Corners:
    """How few corners outlines of masks have, as `app.contract.masks.encode_polygons` takes it; falsy: exact ones."""

    polygon_tolerance: float | None = None
    max_vertices: int | None = None

    def __bool__(self) -> bool:
        return self.polygon_tolerance is not None or self.max_vertices is not None

    def polygons(self, mask: np.ndarray) -> list[np.ndarray]:
        """(N, 2) x and y in 0..1 for each part of the mask (H, W) bool."""
        flat = masks.encode_polygons(mask, self.polygon_tolerance, self.max_vertices)
        return [np.array(one).reshape(-1, 2) for one in flat]


EXACT = Corners()


class Results(Protocol):
    """The results of many images in the order of their names; it can be gone through more than once."""

    def __iter__(self) -> Iterator[ImageResult]: ...


def label_of(found: PredictedObject) -> str:
    return UNNAMED if found.label is None else found.label


def mask_of(found: PredictedObject) -> np.ndarray | None:
    """The object's mask (H, W) bool, or None without one."""
    return None if found.rle is None else coco_mask.decode(found.rle).astype(bool)


def classes_of(known: Sequence[str], results: Iterable[ImageResult]) -> tuple[str, ...]:
    """The known classes, and behind them, sorted, those that objects have besides."""
    found = {label_of(one) for result in results for one in result.objects}
    return (*known, *sorted(found.difference(known)))
