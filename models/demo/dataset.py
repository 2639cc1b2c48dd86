"""Demo scenes as a data set: image files with COCO annotations, for whoever has no photos or no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from models.data import Annotation, Dataset, LabelledImage, write
from models.demo.scenes import Scene, render_scene
from models.demo.things import CLASS_NAMES, CLUTTER

# Scenes of a data set lie this far from those of the next seed.
SEED_STRIDE = 1_000_000


def draw_dataset(
    folder: Path, count: int, seed: int = 0, longest: int = 480, progress: Callable[[int], None] | None = None
) -> Dataset:
    """Draw `count` scenes into `folder`: images/ and annotations.json, with boxes and masks of the containers.

    count, seed: scene number n of a seed is the same picture in every data set, on every machine.
    longest: pixels of the longer side; the other is five eighths of that or more.
    progress: called with how many are done. Images of an earlier, interrupted call are drawn again.

    Clutter is in the pictures and not in the annotations. Raises DataError where `folder` has annotations already.
    """
    pictures = folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    images = []
    for number in range(count):
        scene = demo_scene(seed * SEED_STRIDE + number, longest)
        path = pictures / f"{number:05d}.jpg"
        Image.fromarray(scene.image).save(path, quality=95)
        images.append(_labelled(path, scene))
        if progress is not None:
            progress(number + 1)
    dataset = Dataset(tuple(CLASS_NAMES), tuple(images))
    write(dataset, folder / "annotations.json", "coco", images="reference")
    return dataset


def demo_scene(number: int, longest: int = 480) -> Scene:
    """The scene of this number, `longest` pixels long, drawn without cut-outs: the same on every machine."""
    rng = np.random.default_rng(number)
    return render_scene(rng, (longest, int(rng.integers(longest * 5 // 8, longest + 1))), clutter=(0, 3))


def _labelled(path: Path, scene: Scene) -> LabelledImage:
    annotations = []
    for mask, box, label in zip(scene.masks, scene.boxes_xyxy.tolist(), scene.labels, strict=True):
        if label != CLUTTER:
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            rle["counts"] = rle["counts"].decode("ascii")
            annotations.append(Annotation(CLASS_NAMES[label], tuple(box), rle=rle))
    height, width = scene.image.shape[:2]
    return LabelledImage(path, (height, width), tuple(annotations))
