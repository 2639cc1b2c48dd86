"""Random data sets whose images are real, small files."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from models.data import Annotation, Dataset, LabelledImage

CLASSES = ("zebra", "can", "Flasche <groß> & 'rund'", "牛乳", "without objects")


class Scatter:
    """Makes data sets in a folder: `scatter(seed)` with whatever a data set can hold, or only with boxes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, seed: int, *, boxes_only: bool = False, count: int = 6) -> Dataset:
        rng = random.Random(seed)
        self.folder.mkdir(exist_ok=True)
        return Dataset(CLASSES, tuple(self._image(rng, index, boxes_only) for index in range(count)))

    def _image(self, rng: random.Random, index: int, boxes_only: bool) -> LabelledImage:
        size_hw = (rng.choice([1, 7, 33, 97, 666]), rng.choice([1, 11, 64, 101, 499]))
        path = self.folder / f"{index + 1}{rng.choice(['.png', '.jpg', ' ü.PNG'])}"
        colour = tuple(rng.randrange(256) for _ in range(3))
        Image.new("RGB", size_hw[::-1], colour).save(path)
        objects = [] if index == 2 else [self._object(rng, size_hw, boxes_only) for _ in range(rng.randrange(1, 6))]
        return LabelledImage(path, size_hw, tuple(objects))

    def _object(self, rng: random.Random, size_hw: tuple[int, int], boxes_only: bool) -> Annotation:
        height, width = size_hw
        digits = rng.choice([0, 1, 3, 6])

        def number(low: float, high: float) -> float:
            return round(rng.uniform(low, high), digits)

        x1, y1 = number(-2, width), number(-2, height)
        box = (x1, y1, round(x1 + number(1, width + 1), 6), round(y1 + number(1, height + 1), 6))
        label, crowd = rng.choice(CLASSES[:-1]), rng.random() < 0.2
        kind = "box" if boxes_only else rng.choice(["box", "polygons", "polygons with another box", "rle"])
        if kind == "box":
            return Annotation(label, box, crowd=crowd)
        if kind == "rle":
            grid = np.random.default_rng(rng.randrange(1 << 30)).random((-(-height // 5), -(-width // 5))) < 0.5
            mask = np.kron(grid, np.ones((5, 5)))[:height, :width].astype(np.uint8)
            rle = coco_mask.encode(np.asfortranarray(mask))
            return Annotation(label, box, rle={"size": [height, width], "counts": rle["counts"].decode()}, crowd=crowd)
        polygons = tuple(
            tuple(value for _ in range(rng.randrange(3, 9)) for value in (number(0, width), number(0, height)))
            for _ in range(rng.randrange(1, 4))
        )
        xs = [x for part in polygons for x in part[::2]]
        ys = [y for part in polygons for y in part[1::2]]
        around = (min(xs), min(ys), max(xs), max(ys))
        if kind == "polygons" and around[0] < around[2] and around[1] < around[3]:
            box = around
        return Annotation(label, box, polygons=polygons, crowd=crowd)


@pytest.fixture
def scatter(tmp_path: Path) -> Callable[..., Dataset]:
    return Scatter(tmp_path / "source")
