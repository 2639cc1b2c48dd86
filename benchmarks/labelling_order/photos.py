"""Demo scenes as photos to label: most of a kind that the demo detector knows, some blurred or dark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from models.data import LabelledImage
from models.demo.dataset import labelled
from models.demo.scenes import render_scene

SIDE = 256


@dataclass(frozen=True, eq=False)
class Photo:
    """A drawn photo, in a file, with its truth. hard: of the kind that the detector does badly."""

    labelled: LabelledImage
    pixels: np.ndarray
    hard: bool


def draw(folder: Path, first: int, count: int, hard_share: float) -> list[Photo]:
    """Photos in PNG files; as if a camera were out of focus, or the light off, in a share of them."""
    folder.mkdir(parents=True)
    photos = []
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        scene = render_scene(rng, (SIDE, SIDE), clutter=(0, 3))
        hard = bool(rng.random() < hard_share)
        pixels = spoilt(scene.image, rng) if hard else scene.image
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        photos.append(Photo(labelled(path, scene), pixels, hard))
    return photos


def spoilt(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8, blurred or dark by turns."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), 3))
    dark = 255 * (image / 255.0) ** 1.3 * np.array([0.16, 0.20, 0.34])
    return np.clip(dark + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
