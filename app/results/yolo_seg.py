"""A training set for YOLO's segmentation models, as Ultralytics reads it.

    images/      copies of the images, which whoever trains on the set may change
    labels/      for each image a text file with a line for each object: class x1 y1 x2 y2 ..., in 0..1 of width, height
    train.txt    the images to train on; val.txt: every fifth, to validate on
    data.yaml    names these two, and the classes

A line holds a single ring, so an object of several parts is joined to one by cuts of no width, and so are its holes:
filled by pixel centres, the ring gives the mask's pixels again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from app.prediction import PredictedObject
from app.results.image_result import EXACT, Corners, Results, label_of, mask_of
from models.data.formats.yolo.writing import fraction_text, write_yaml
from models.data.images import copy
from models.data.parsing.shapes import joined

VALIDATION_EVERY = 5
_DECIMALS = 8  # of a fraction


@dataclass(frozen=True)
class LeftOut:
    """What the set does not have: objects whose masks are empty, and images that are no longer where they were."""

    empty_masks: int = 0
    missing_images: int = 0


def write(folder: Path, results: Results, class_names: Sequence[str], root: Path, corners: Corners = EXACT) -> LeftOut:
    """Write the set into the folder, which is empty. root: the folder that the images' names start at.

    Images lie side by side: `shelf/one.jpg` becomes `shelf__one.jpg`, as a folder called `images` in a name would lead
    readers astray. Raises OSError.
    """
    number_of = {name: number for number, name in enumerate(class_names)}
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    names: list[str] = []
    stems: set[str] = set()
    empty_masks = missing_images = 0
    for result in results:
        source = root / result.name
        if not source.is_file():
            missing_images += 1
            continue
        flat = PurePosixPath(result.name.replace("/", "__"))
        stem = flat.stem
        while stem in stems:  # one.jpg and one.png would share a file of labels
            stem += "_"
        stems.add(stem)
        names.append(stem + flat.suffix)
        copy(source, folder / "images" / names[-1])
        lines = []
        for one in result.objects:
            ring = _ring(one, result.size_hw, corners)
            if ring is None:
                empty_masks += 1
            else:
                values = (fraction_text(value, _DECIMALS) for value in ring.ravel().tolist())
                lines.append(f"{number_of[label_of(one)]} {' '.join(values)}\n")
        (folder / "labels" / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")
    validation = names[::VALIDATION_EVERY]
    training = [name for number, name in enumerate(names) if number % VALIDATION_EVERY] or names  # of a single image
    for file, part in (("train.txt", training), ("val.txt", validation)):
        (folder / file).write_text("".join(f"./images/{name}\n" for name in part), encoding="utf-8")
    # Without a `path`, the files are looked for beside this one, wherever the folder is moved to.
    write_yaml(folder / "data.yaml", "train.txt", "val.txt", class_names)
    return LeftOut(empty_masks, missing_images)


def _ring(one: PredictedObject, size_hw: tuple[int, int], corners: Corners) -> np.ndarray | None:
    """The object's outline (N, 2), x and y in 0..1; its box where it has no mask, None where its mask is empty."""
    mask = mask_of(one)
    if mask is None:
        height, width = size_hw
        x1, y1, x2, y2 = np.clip(np.divide(one.box_xyxy, (width, height, width, height)), 0, 1)
        return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    parts = corners.polygons(mask)
    return joined(parts) if parts else None
