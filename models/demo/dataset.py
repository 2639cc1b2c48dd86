"""Demo scenes as a data set: image files with COCO annotations, for whoever has no photos or no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from models.data import Annotation, DataError, Dataset, LabelledImage, Place, Problem, write
from models.demo.scenes import Scene, render_scene
from models.demo.things import CLASS_NAMES, CLUTTER

# Scenes are numbered in blocks of this size: a seed has one for its data sets, and one is kept for measuring.
BLOCK = 1_000_000
HELD_OUT_BLOCK = 9


def draw_dataset(
    folder: Path, count: int, seed: int = 0, longest: int = 480, progress: Callable[[int], None] | None = None
) -> Dataset:
    """Draw `count` scenes into `folder`: images/ and annotations.json, with boxes and masks of the containers.

    count, seed: scene number n of a seed is the same picture in every data set, on every machine. No seed has the
        scenes that the demo weights are measured on.
    longest: pixels of the longer side; the other is five eighths of that or more.
    progress: called with how many are done. Images of an earlier, interrupted call are drawn again.

    Clutter is in the pictures and not in the annotations. Raises DataError where `folder` has annotations already, and
    ValueError for more scenes than a seed has.
    """
    numbers = scene_numbers(count, seed)
    if os.path.lexists(folder / "annotations.json"):
        raise DataError([Problem(Place(folder / "annotations.json"), "is there already: expected a new file")])
    pictures = folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    images = []
    for index, number in enumerate(numbers):
        scene = demo_scene(number, longest)
        path = pictures / f"{index:05d}.jpg"
        Image.fromarray(scene.image).save(path, quality=95)
        images.append(labelled(path, scene))
        if progress is not None:
            progress(index + 1)
    dataset = Dataset(tuple(CLASS_NAMES), tuple(images))
    write(dataset, folder / "annotations.json", "coco", images="reference")
    return dataset


def scene_numbers(count: int, seed: int) -> range:
    """The numbers of a seed's first scenes. Raises ValueError for more than it has."""
    return _numbers(count, seed + (seed >= HELD_OUT_BLOCK))


def held_out_numbers(count: int) -> range:
    """The numbers of the first scenes that no data set has. Raises ValueError for more than there are."""
    return _numbers(count, HELD_OUT_BLOCK)


def _numbers(count: int, block: int) -> range:
    if count > BLOCK:
        raise ValueError(f"scenes: expected {BLOCK} or fewer, found {count}")
    return range(block * BLOCK, block * BLOCK + count)


def demo_scene(number: int, longest: int = 480) -> Scene:
    """The scene of this number, `longest` pixels long, drawn without cut-outs: the same on every machine."""
    rng = np.random.default_rng(number)
    return render_scene(rng, (longest, int(rng.integers(longest * 5 // 8, longest + 1))), clutter=(0, 3))


def labelled(path: Path, scene: Scene, clutter: str | None = None, names: Sequence[str] = CLASS_NAMES) -> LabelledImage:
    """The scene's things, with their boxes and exact masks.

    clutter: the class of what is no container; None: it is left out. names: of the other classes.
    """
    annotations = []
    for mask, box, label in zip(scene.masks, scene.boxes_xyxy.tolist(), scene.labels, strict=True):
        name = clutter if label == CLUTTER else names[label]
        if name is not None:
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            rle["counts"] = rle["counts"].decode("ascii")
            annotations.append(Annotation(name, tuple(box), rle=rle))
    height, width = scene.image.shape[:2]
    return LabelledImage(path, (height, width), tuple(annotations))
