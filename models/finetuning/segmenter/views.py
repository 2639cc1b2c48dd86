"""What of an image is encoded: the whole of it, its mirror image, and parts of it, each with the masks in it.

Each is encoded once, so that an augmentation costs one encoding and not one in every epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from models.masks.boxes import box_around
from models.rle import Rle
from models.segmenter.mask_prompts import cell_coverage
from models.square_images import Sample

# A part's sides, as a multiple of those of a thing in it, and the least share of the image's that they have.
LEAST_ZOOM, MOST_ZOOM, LEAST_SIDE = 1.2, 3.5, 0.2
KEPT_PART = 0.5  # of a thing's pixels that a part shows, for the thing to count there


@dataclass(frozen=True)
class Frame:
    """A part of an image (H, W), in its pixels, perhaps mirrored."""

    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool = False

    def of(self, array: np.ndarray) -> np.ndarray:
        """The part of (H, W, ...)."""
        part = array[self.top : self.bottom, self.left : self.right]
        return part[:, ::-1] if self.mirrored else part


@dataclass(frozen=True)
class View:
    """A part of an image on its way to the encoder, with what is to be learnt there.

    truths: (N, side, side) uint8, how much of each cell each thing covers, 0..255. boxes_xyxy: (N, 4) float32, tight
    around them, in pixels of the model's input.
    """

    sample: Sample
    truths: np.ndarray
    boxes_xyxy: np.ndarray


def frames(size_hw: tuple[int, int], boxes_xyxy: np.ndarray, count: int, rng: np.random.Generator) -> list[Frame]:
    """`count` frames of an image with things in these boxes (N, 4): the whole, mirrored, then parts around things."""
    height, width = size_hw
    whole = Frame(0, 0, width, height)
    found = [whole, Frame(0, 0, width, height, mirrored=True)][:count]
    while len(found) < count:
        x1, y1, x2, y2 = boxes_xyxy[int(rng.integers(len(boxes_xyxy)))]
        longest = max(x2 - x1, y2 - y1, LEAST_SIDE * max(size_hw)) * rng.uniform(LEAST_ZOOM, MOST_ZOOM)
        sides = []
        for low, high, length in ((x1, x2, width), (y1, y2, height)):
            side = min(float(length), max(longest, high - low))
            start = rng.uniform(*sorted((min(low, length - side), max(0.0, high - side))))
            start = min(max(start, 0.0), length - side)
            sides.append((int(start), max(int(start) + 1, round(start + side))))
        (left, right), (top, bottom) = sides
        found.append(Frame(left, top, min(right, width), min(bottom, height), bool(rng.random() < 0.5)))
    return found


def views(
    image: np.ndarray,
    rles: Sequence[Rle],
    of_frames: Sequence[Frame],
    preprocess: Callable[[np.ndarray], Sample],
    square: int,
    side: int,
) -> list[View]:
    """An image (H, W, 3) and its things' masks as views; those of no thing are left out.

    preprocess: the segmenter's. square, side: of the model's input, and of the logits' grid.
    """
    samples = [preprocess(np.ascontiguousarray(frame.of(image))) for frame in of_frames]
    truths: list[list[np.ndarray]] = [[] for _ in of_frames]
    boxes: list[list[np.ndarray]] = [[] for _ in of_frames]
    for rle in rles:  # one mask at a time: of a large photo they are large
        mask = coco_mask.decode(dict(rle)).astype(bool)
        area = int(mask.sum())
        for number, (frame, sample) in enumerate(zip(of_frames, samples, strict=True)):
            part = np.ascontiguousarray(frame.of(mask))
            if not area or part.sum() < KEPT_PART * area:
                continue
            cells = np.round(255 * cell_coverage(part, square, sample.resized_hw, side).clip(0, 1)).astype(np.uint8)
            if not cells.any():
                continue
            truths[number].append(cells)
            boxes[number].append(_tight_box(part) * np.tile(_scale(sample), 2))
    return [
        View(sample, np.stack(truths[number]), np.stack(boxes[number]).astype(np.float32))
        for number, sample in enumerate(samples)
        if truths[number]
    ]


def _scale(sample: Sample) -> np.ndarray:
    """(2,) by which (x, y) in pixels of a view become pixels of the model's input."""
    return np.array(sample.resized_hw[::-1]) / np.array(sample.size_hw[::-1])


def _tight_box(mask: np.ndarray) -> np.ndarray:
    return np.array(box_around(mask), np.float64)
