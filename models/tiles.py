"""Parts of an image, and the grid of overlapping square tiles in which networks see small objects larger.

Coordinates are whole pixels of the image, with x2 and y2 just outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

Merge = Literal["nms", "fusion"]


@dataclass(frozen=True)
class Part:
    """A part of an image: x1, y1, x2, y2."""

    box_xyxy: tuple[int, int, int, int]

    @property
    def size_hw(self) -> tuple[int, int]:
        x1, y1, x2, y2 = self.box_xyxy
        return y2 - y1, x2 - x1

    def of(self, image: np.ndarray) -> np.ndarray:
        """Its pixels of an image (H, W, ...)."""
        x1, y1, x2, y2 = self.box_xyxy
        return np.ascontiguousarray(image[y1:y2, x1:x2])

    def in_image(self, pixels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        """Masks of the part, (..., h, w) bool, as masks of the whole image (..., H, W)."""
        x1, y1, x2, y2 = self.box_xyxy
        whole = np.zeros((*pixels.shape[:-2], *size_hw), np.bool_)
        whole[..., y1:y2, x1:x2] = pixels
        return whole

    def inner_edges(self, size_hw: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
        """Which of its left, upper, right and lower edges are none of the image's."""
        x1, y1, x2, y2 = self.box_xyxy
        return x1 > 0, y1 > 0, x2 < size_hw[1], y2 < size_hw[0]


@dataclass(frozen=True)
class Tiling:
    """Square tiles over an image. side: in pixels. overlap: the fraction of it that neighbours share at least.

    merge: how a detector's boxes of several tiles become one; see `models.detector.tiles`.
    """

    side: int
    overlap: float = 0.2
    merge: Merge = "nms"

    def count(self, size_hw: tuple[int, int]) -> int:
        """How many tiles an image of this size has; 1 is the image itself."""
        return self._along(size_hw[0]) * self._along(size_hw[1])

    def tiles(self, size_hw: tuple[int, int]) -> list[Part]:
        """Row by row; together they have every pixel.

        The first ones begin and the last ones end with the image, and the others are spread evenly between them, so
        that all are of one size. Where the image is shorter than a tile, they are as short.
        """
        height, width = size_hw
        ys, xs = self.starts(height), self.starts(width)
        return [Part((x, y, min(x + self.side, width), min(y + self.side, height))) for y, x in product(ys, xs)]

    def _along(self, length: int) -> int:
        step = max(1, int(self.side * (1 - self.overlap)))
        return 1 if length <= self.side else -(-(length - self.side) // step) + 1

    def starts(self, length: int) -> Sequence[int]:
        """Where tiles begin along a side of the image."""
        count, last = self._along(length), length - self.side
        return [0] if count == 1 else [round(number * last / (count - 1)) for number in range(count)]
