"""The parts of an image at which a segmenter is asked for everything, and the points in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np

from models.tiles import Part


@dataclass(frozen=True, eq=False)
class Crop(Part):
    """A part of an image. points_xy: (N, 2), in pixels of the part."""

    points_xy: np.ndarray


def grid_crops(size_hw: tuple[int, int], sides: Sequence[int], overlap_ratio: float) -> list[Crop]:
    """The whole image, then for each further layer n its 2**n x 2**n parts, column by column.

    sides: for each layer, how many points are along each side of a crop's grid. overlap_ratio: how much of the image's
    shorter side neighbours of layer 1 share; later layers share less, by their number.
    """
    height, width = size_hw
    crops = [Crop((0, 0, width, height), _grid(sides[0], size_hw))]
    for layer, side in enumerate(sides[1:], start=1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size_hw) * (2 / count))
        across, down = (int(ceil((overlap * (count - 1) + length) / count)) for length in (width, height))
        starts = [[(length - overlap) * i for i in range(count)] for length in (across, down)]
        for left, top in product(*starts):
            box = (left, top, min(left + across, width), min(top + down, height))
            if box[2] > left and box[3] > top:  # of an image of a few pixels some parts are empty
                crops.append(Crop(box, _grid(side, (box[3] - top, box[2] - left))))
    return crops


def _grid(side: int, size_hw: tuple[int, int]) -> np.ndarray:
    """(side * side, 2) points, evenly spaced over a picture of this size, row by row."""
    places = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    xs, ys = np.meshgrid(places, places)
    return np.stack([xs, ys], axis=-1).reshape(-1, 2) * size_hw[::-1]
