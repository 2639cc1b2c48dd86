"""How near simplified polygons are to their masks: IoU and corners by tolerance, over the objects of drawn scenes.

python -m benchmarks.polygons; with `--data FILE --photos FOLDER` over the true masks of photos
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from benchmarks.cleaning import photos
from models.demo.scenes import render_scene
from models.masks.outlines import one_ring, simplified

TOLERANCES = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
SIZE_HW = (600, 800)


def scene_masks(scenes: int) -> list[np.ndarray]:
    """The visible masks of things in scenes of `SIZE_HW`."""
    drawn = (render_scene(np.random.default_rng(seed), SIZE_HW, containers=(3, 5)) for seed in range(scenes))
    return [mask for scene in drawn for mask in scene.masks if mask.any()]


def iou(mask: np.ndarray, tolerance: float) -> tuple[float, int]:
    """Of the polygons, filled by pixel centres, with the mask; and their corners."""
    rings = [one_ring(part[0], part[1:]) for part in simplified(mask, tolerance)]
    flat = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], *mask.shape)
    found = coco_mask.decode(coco_mask.merge(flat)).astype(bool)
    return float((found & mask).sum() / (found | mask).sum()), sum(map(len, rings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--data", type=Path, help="a data set with masks, in place of scenes")
    parser.add_argument("--photos", type=Path, help="the folder of its photos")
    args = parser.parse_args()
    if args.data:
        masks = [mask for photo in photos(args.data, args.photos) for mask in photo.masks if mask.any()]
    else:
        masks = scene_masks(args.scenes)
    print(f"{len(masks)} masks, the first of {masks[0].shape[1]} x {masks[0].shape[0]} pixels")
    for tolerance in TOLERANCES:
        found = np.array([iou(mask, tolerance) for mask in masks])
        least, middle = found[:, 0].min(), found[:, 0].mean()
        print(f"| {tolerance:g} | {least:.3f} | {middle:.3f} | {np.median(found[:, 1]):.0f} |", flush=True)


if __name__ == "__main__":
    main()
