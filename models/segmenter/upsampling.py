"""SAM's low-resolution logits -> binary masks in the image's own size, computed only where a mask can be.

Hugging Face's `post_process_masks` interpolates the logits to the padded square, crops, and interpolates again to
the image, each time over every pixel. Both steps are linear and work on rows and columns apart, so together they
are `weights_of_rows @ logits @ weights_of_columns.T`, where a pixel depends on about three cells a side. No weight
is negative: a pixel none of whose cells is positive is not in the mask, and is never computed.

Runs in whatever thread calls it, on that thread alone. Knows numpy only: nothing of torch, models or images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import NamedTuple

import numpy as np

# A block of weights spans about BLOCK_CELLS cells and at most BLOCK_PIXELS pixels. More cells are more zeros to
# multiply, fewer are more calls.
BLOCK_CELLS, BLOCK_PIXELS = 6, 56
# Columns widened at once, also the pixels of the longest block: bounds the memory of an image of any shape.
STRIP = 8192
# Multiplications in one product: what it makes stays in the processor's cache, and OpenBLAS wakes no threads of its
# own for so few.
PRODUCT = 2**18
# A longer side has longer blocks, so that they do not grow too many; these are made anew for every mask.
KEPT_SIZE = 256 * BLOCK_PIXELS


def binary_masks(logits: np.ndarray, square: int, resized_hw: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """(M, h, w) float32 logits over the padded square -> (M, H, W) bool: where the interpolated logit is above 0.

    square: the side S of the square that the model sees. resized_hw: the image's size in it, before padding.
    size_hw: the image's own (H, W). Equal to bilinear interpolation (without align_corners) to (S, S), cropping
    to resized_hw, and the same to size_hw, but for logits so near to 0 that rounding decides.

    Time grows with the rectangle around each mask, not with the image. Memory: the answer, and below 20 MB.
    """
    rows = Axis(logits.shape[1], square, resized_hw[0], size_hw[0])
    columns = Axis(logits.shape[2], square, resized_hw[1], size_hw[1])
    masks = np.zeros((len(logits), *size_hw), dtype=np.bool_)  # pages that are never written cost nothing
    for mask, cells in zip(masks, logits, strict=True):
        _fill(mask, cells, rows, columns)
    return masks


def _fill(mask: np.ndarray, logits: np.ndarray, rows: Axis, columns: Axis) -> None:
    """Set `mask` (H, W), all False, where the interpolated `logits` (h, w) are above 0."""
    positive = logits > 0
    top, bottom = rows.reach(positive, across=1)
    under = rows.cells_under(top, bottom)
    begin, end = columns.reach(positive[under], across=0)
    for left in range(begin, end, STRIP):
        right = min(left + STRIP, end)
        wide = np.empty((under.stop - under.start, right - left), dtype=np.float32)
        for block in columns.blocks(left, right):
            into = wide[:, block.pixels.start - left : block.pixels.stop - left]
            np.matmul(logits[under, block.cells], block.weights.T, out=into)
        for block in rows.blocks(top, bottom):
            cells = wide[block.cells.start - under.start : block.cells.stop - under.start]
            start, stop = columns.reach(positive[block.cells], across=0)
            start, stop = max(start, left), min(stop, right)
            step = max(1, PRODUCT // block.weights.size)
            for x in range(start, stop, step):
                xs = slice(x, min(x + step, stop))
                values = block.weights @ cells[:, xs.start - left : xs.stop - left]
                np.greater(values, 0, out=mask[block.pixels, xs])


@dataclass(frozen=True, eq=False)
class Block:
    """How some neighbouring pixels are made of cells. weights: (pixels, cells) float32, each row of sum 1."""

    pixels: slice
    cells: slice
    weights: np.ndarray

    def cut(self, start: int, stop: int) -> Block:
        """The part within pixels start to stop."""
        first = self.pixels.start
        if start <= first and self.pixels.stop <= stop:
            return self
        pixels = slice(max(start, first), min(stop, self.pixels.stop))
        return Block(pixels, self.cells, self.weights[pixels.start - first : pixels.stop - first])


class Axis(NamedTuple):
    """One axis, from `cells` logits by way of `square` pixels, of which `resized` are kept, to `size` pixels."""

    cells: int
    square: int
    resized: int
    size: int

    @property
    def cells_per_pixel(self) -> float:
        return self.cells / self.square * self.resized / self.size

    @property
    def cells_away(self) -> float:
        """No cell is further from a pixel that depends on it, centre to centre and in cells.

        A pixel is made of pixels of the square that are less than one of those away, these of cells less than one away.
        """
        return 1 + self.cells / self.square

    def reach(self, positive: np.ndarray, across: int) -> tuple[int, int]:
        """The range of pixels that depend on a cell of this axis with anything `positive` (bool, 2-D) across it.

        It may have a few more; (0, 0) if nothing is.
        """
        where = np.flatnonzero(positive.any(axis=across))
        if not len(where):
            return 0, 0
        scale, half = self.cells_per_pixel, 0.5
        start = floor((int(where[0]) + half - self.cells_away) / scale - half)
        stop = ceil((int(where[-1]) + half + self.cells_away) / scale - half) + 1
        return max(start, 0), min(stop, self.size)

    def cells_under(self, start: int, stop: int) -> slice:
        """The cells that `blocks(start, stop)` are made of, a few more at most."""
        if start >= stop:
            return slice(0, 0)
        scale, half = self.cells_per_pixel, 0.5
        first = floor((start - self.step + half) * scale - half - self.cells_away)
        last = ceil((stop + self.step + half) * scale - half + self.cells_away)
        return slice(max(first, 0), min(last + 1, self.cells))

    @property
    def step(self) -> int:
        """Pixels in a block."""
        if self.size > KEPT_SIZE:
            return min(self.size * BLOCK_PIXELS // KEPT_SIZE, STRIP)
        return max(1, min(BLOCK_PIXELS, int(BLOCK_CELLS / self.cells_per_pixel)))

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """The weights of pixels start to stop, in order."""
        step = self.step
        if self.size > KEPT_SIZE:
            for begin in range(start, stop, step):
                yield from _make_blocks(self, begin, min(begin + step, stop))
        else:
            for block in _kept_blocks(self)[start // step : ceil(stop / step)]:
                yield block.cut(start, stop)


@lru_cache(maxsize=64)  # 0.6 MB at the most, for a side of KEPT_SIZE
def _kept_blocks(axis: Axis) -> tuple[Block, ...]:
    return tuple(_make_blocks(axis, 0, axis.size))


def _make_blocks(axis: Axis, start: int, stop: int) -> Iterator[Block]:
    """Both interpolations in one, for pixels start to stop."""
    pixels = np.arange(start, stop)
    terms = [
        (cells, (middle_share * share).astype(np.float32))
        for middle, middle_share in _neighbours(pixels, axis.resized, axis.size)
        for cells, share in _neighbours(middle, axis.cells, axis.square)
    ]
    begins = np.arange(0, len(pixels), axis.step)
    ends = np.minimum(begins + axis.step, len(pixels))
    firsts, lasts = terms[0][0][begins], terms[-1][0][ends - 1]  # cells only grow
    origins = np.repeat(firsts, ends - begins)
    weights = np.zeros((len(pixels), int((lasts - firsts).max()) + 1), dtype=np.float32)
    for cells, share in terms:
        weights[pixels - start, cells - origins] += share
    for begin, end, first, last in zip(begins.tolist(), ends.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        within = weights[begin:end, : last - first + 1]
        yield Block(slice(start + begin, start + end), slice(first, last + 1), within)


def _neighbours(targets: np.ndarray, source: int, target: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The two places among `source` that bilinear interpolation to `target` makes each of `targets` of, with shares.

    In float32 as torch computes them: in a large image that moves a place by more than rounding moves a logit.
    """
    scale, half = np.float32(source) / np.float32(target), np.float32(0.5)
    places = np.maximum(scale * (targets.astype(np.float32) + half) - half, np.float32(0))
    lower = np.minimum(places.astype(np.int64), source - 1)
    share = np.minimum(places - lower.astype(np.float32), np.float32(1)).astype(np.float64)
    return (lower, 1 - share), (np.minimum(lower + 1, source - 1), share)
