"""Annotated pictures, and a predictor whose answers can be derived: it finds what it is told, and fills boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from app.prediction import PredictedObject, PredictionError
from models.data import Annotation, Dataset, LabelledImage
from models.evaluation import filled_box
from models.rle import Rle, encode_rle

SIZE_HW = (60, 80)


def disc(x: float, y: float, radius: float) -> Rle:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return encode_rle((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def round_thing(label: str, x: int, y: int, radius: int) -> Annotation:
    rle = disc(x, y, radius)
    left, top, width, height = coco_mask.toBbox(dict(rle))
    return Annotation(label, (left, top, left + width, top + height), rle=dict(rle))


@dataclass
class BoxFiller:
    """Detects `finds` in every image; its mask of a box is the whole box, and of a point a disc of radius 5."""

    finds: Sequence[PredictedObject] = ()
    classes: tuple[str, ...] = ("can", "carton")
    name: str = "filler"
    broken: bytes | None = None
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def description(self) -> Mapping[str, Any]:
        return {
            "detector": {"name": "finder", "classes": list(self.classes)} if self.classes else None,
            "segmenter": {"name": self.name} if self.name else None,
        }

    def detect(self, image: Any, score_threshold: float | None = None, *, masks: bool = False) -> list[PredictedObject]:
        self.asked.append(f"detect from {score_threshold}")
        if image == self.broken:
            raise PredictionError("this one is broken")
        return list(self.finds)

    def segment(self, image: Any, boxes_xyxy: np.ndarray) -> list[PredictedObject]:
        self.asked.append(f"{len(boxes_xyxy)} boxes")
        return [
            PredictedObject(None, None, tuple(box), Rle(**filled_box(tuple(box), SIZE_HW)), 0.5)
            for box in boxes_xyxy.tolist()
        ]

    def segment_points(self, image: Any, points_xy: np.ndarray) -> list[PredictedObject]:
        self.asked.append(f"{len(points_xy)} points")
        return [PredictedObject(None, None, (x, y, x, y), disc(x, y, 5), 0.5) for x, y in points_xy.tolist()]

    def detect_and_segment(self, image: Any, score_threshold: float | None = None) -> list[PredictedObject]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three pictures: a can and a carton; one that is empty; a can and a <b>script</b> of a class name."""
    contents = (
        (round_thing("can", 20, 20, 10), round_thing("carton", 55, 30, 16)),
        (),
        (round_thing("can", 40, 40, 14), round_thing("<b>&\"'", 10, 10, 6)),
    )
    images = []
    for number, things in enumerate(contents):
        path = tmp_path / f"<i>{number}.png"
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE_HW, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        images.append(LabelledImage(path, SIZE_HW, things))
    return Dataset(("can", "carton", "<b>&\"'"), tuple(images))


def found(label: str, score: float, thing: Annotation) -> PredictedObject:
    return PredictedObject(label, score, thing.box_xyxy)


@pytest.fixture
def box_filler(dataset: Dataset) -> BoxFiller:
    """It finds the first picture's carton and the can of the last one, in every picture."""
    return BoxFiller(
        [
            found("carton", 0.9, dataset.images[0].annotations[1]),
            found("can", 0.6, dataset.images[2].annotations[0]),
            found("can", 0.1, dataset.images[0].annotations[0]),
        ]
    )
