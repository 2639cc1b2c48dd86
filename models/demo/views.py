"""Square views of demo scenes for training: the whole scene as a model's input has it, or a close-up of one thing.

Close-ups of half the length cost a quarter, and nearly all they show is worth looking at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from models.demo.scenes import Scene
from models.demo.things import CLUTTER

WHOLE_SIZE = 256
CLOSE_UP_SIZE = 128
LEAST_PIXELS = 30  # of a thing that is counted as being there


@dataclass(frozen=True)
class View:
    """A square part of a scene.

    image: (S, S, 3) uint8 RGB, black where the scene ends.
    cover: (N, S, S) float32, 0..1, how much of each pixel each thing covers; every thing has LEAST_PIXELS or more.
    labels: (N,) int64, as in Scene.
    shown: (N,) float32, 0..1, how much of what the scene shows of each thing is in the view.
    """

    image: np.ndarray
    cover: np.ndarray
    labels: np.ndarray
    shown: np.ndarray


Take = Callable[[np.random.Generator, Scene], View]


def whole(rng: np.random.Generator, scene: Scene) -> View:
    """The scene, which is WHOLE_SIZE long, at the top left of a square."""
    return _view(scene, 0, 0, WHOLE_SIZE, WHOLE_SIZE)


def close_up(rng: np.random.Generator, scene: Scene) -> View:
    """A square around one of the scene's things, resized to CLOSE_UP_SIZE."""
    return _close_up(rng, scene, scene.boxes_xyxy)


def container_close_up(rng: np.random.Generator, scene: Scene) -> View:
    """The same, nearly always of a container where the scene has one."""
    containers = scene.boxes_xyxy[scene.labels != CLUTTER]
    return _close_up(rng, scene, containers if len(containers) and rng.random() < 0.85 else scene.boxes_xyxy)


def batches(
    rng: np.random.Generator, scenes: Iterator[Scene], size: int, near: Take = close_up
) -> Iterator[list[View]]:
    """Views with a thing in them, in batches without end: four times `size` close-ups, then half as many wholes.

    near: takes a close-up.
    """
    while True:
        for number in range(5):
            take = whole if number == 4 else near
            wanted = max(1, size // 2) if number == 4 else size
            views: list[View] = []
            while len(views) < wanted:
                view = take(rng, next(scenes))
                if len(view.labels):
                    views.append(view)
            yield views


def _close_up(rng: np.random.Generator, scene: Scene, boxes_xyxy: np.ndarray) -> View:
    """A square around one of some boxes (N, 4)."""
    height, width = scene.image.shape[:2]
    x1, y1, x2, y2 = boxes_xyxy[int(rng.integers(len(boxes_xyxy)))]
    side = int(np.clip(max(x2 - x1, y2 - y1) * rng.uniform(1.1, 2.2), 100, 230))
    corner: list[int] = []
    for low, high, length in ((x1, x2, width), (y1, y2, height)):
        start = rng.uniform(*sorted((low, high - side)))
        margin = 0.1 * side  # beyond the picture it is black
        corner.append(int(np.clip(start, -margin, max(length - side + margin, -margin))))
    left, top = corner
    return _view(scene, left, top, side, CLOSE_UP_SIZE)


def _view(scene: Scene, left: int, top: int, side: int, size: int) -> View:
    """A square of the scene, `side` pixels long, resized to `size`."""
    height, width = scene.image.shape[:2]
    x, y, right, bottom = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    outside = ((y - top, top + side - bottom), (x - left, left + side - right))
    image = np.pad(scene.image[y:bottom, x:right], (*outside, (0, 0)))
    cover = np.pad(scene.masks[:, y:bottom, x:right].astype(np.float32), ((0, 0), *outside))
    shown = cover.sum((1, 2)) / scene.masks.sum((1, 2)).clip(min=1)
    if side != size:
        how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        image = cv2.resize(image, (size, size), interpolation=how)
        cover = np.stack([cv2.resize(one, (size, size), interpolation=how) for one in cover])
    kept = (cover > 0.5).sum((1, 2)) >= LEAST_PIXELS
    return View(image, cover[kept], scene.labels[kept], shown[kept].astype(np.float32))
