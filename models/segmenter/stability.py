"""SAM's low-resolution logits -> a binary mask, and how little it depends on where the threshold is.

Only tiles that the mask's edge may run through are computed: a pixel is a mean of its cells, so where all cells are
above a level, or none is, so are the pixels. Runs in whatever thread calls it. Only the plain twin knows torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from models.segmenter.mask_packing import full_size
from models.segmenter.upsampling import Axis, Block


@dataclass(frozen=True, eq=False)
class StableMask:
    """A mask, where it is not empty, and its stability.

    mask: (h, w) bool, the part of the image whose first pixel is `top`, `left`. above, below: pixels of the image whose
    logit is above the threshold plus the offset, and above the threshold minus it.
    """

    mask: np.ndarray
    top: int
    left: int
    above: int
    below: int

    @property
    def stability(self) -> float:
        """The IoU of the masks at the two levels, in float32 as torch divides; NaN where both are empty."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(np.float32(self.above) / np.float32(self.below))

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """The columns and rows of its first and last pixels, both within it; four zeros of an empty mask."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return 0, 0, 0, 0
        return (
            self.left + int(columns[0]),
            self.top + int(rows[0]),
            self.left + int(columns[-1]),
            self.top + int(rows[-1]),
        )


def stable_mask(
    logits: np.ndarray,
    square: int,
    resized_hw: tuple[int, int],
    size_hw: tuple[int, int],
    threshold: float,
    offset: float,
) -> StableMask:
    """(h, w) float32 logits over the padded square -> where the interpolated logit is above `threshold`.

    The sizes and the interpolation are those of `models.segmenter.upsampling.binary_masks`. offset: at least 0.
    """
    low, high = np.float32(threshold - offset), np.float32(threshold + offset)
    rows = Axis(logits.shape[0], square, resized_hw[0], size_hw[0])
    columns = Axis(logits.shape[1], square, resized_hw[1], size_hw[1])
    possible = logits > low
    top, bottom = rows.reach(possible, across=1)
    left, right = columns.reach(possible[rows.cells_under(top, bottom)], across=0)
    mask = np.zeros((bottom - top, right - left), np.bool_)
    if not mask.size:
        return StableMask(mask, top, left, 0, 0)
    above = below = 0
    across = list(columns.blocks(left, right))
    bounds = np.array([bound for tile in across for bound in (tile.cells.start, tile.cells.stop)])
    for block in rows.blocks(top, bottom):
        cells = logits[block.cells]
        height = block.pixels.stop - block.pixels.start
        lines = slice(block.pixels.start - top, block.pixels.stop - top)
        for is_edge, tiles in _runs(across, bounds, cells, low, high):
            start, stop = tiles[0].pixels.start, tiles[-1].pixels.stop
            into = mask[lines, start - left : stop - left]
            if not is_edge:
                into[:] = True
                above, below = above + into.size, below + into.size
                continue
            begin = tiles[0].cells.start
            narrow = block.weights @ cells[:, begin : tiles[-1].cells.stop]
            values = np.empty((height, stop - start), np.float32)
            for tile in tiles:
                its = narrow[:, tile.cells.start - begin : tile.cells.stop - begin]
                np.matmul(its, tile.weights.T, out=values[:, tile.pixels.start - start : tile.pixels.stop - start])
            np.greater(values, np.float32(threshold), out=into)
            above += int(np.count_nonzero(values > high))
            below += int(np.count_nonzero(values > low))
    return StableMask(mask, top, left, above, below)


def plain_stable_mask(
    logits: np.ndarray,
    square: int,
    resized_hw: tuple[int, int],
    size_hw: tuple[int, int],
    threshold: float,
    offset: float,
) -> StableMask:
    """The plain twin of `stable_mask`, over the whole image."""
    values = full_size(torch.from_numpy(logits)[None], square, resized_hw, size_hw)[0]
    above, below = (int((values > level).sum()) for level in (threshold + offset, threshold - offset))
    return StableMask((values > threshold).numpy(), 0, 0, above, below)


def _runs(
    tiles: Sequence[Block], bounds: np.ndarray, cells: np.ndarray, low: np.float32, high: np.float32
) -> Iterator[tuple[bool, list[Block]]]:
    """Neighbouring tiles of a kind: an edge may run through them (True), or all is above; what is below is left out.

    bounds: each tile's first cell and the one after its last, by turns. cells: (rows, w) logits under the tiles.
    """
    # One cell more, as the last tile's end must be one for `reduceat`. Every second reduction is a tile's.
    padded = np.append(cells.max(axis=0), low)
    may_be_above = np.maximum.reduceat(padded, bounds)[::2] > low
    padded[:-1] = cells.min(axis=0)
    may_be_below = np.minimum.reduceat(padded, bounds)[::2] <= high
    kinds = zip(may_be_above.tolist(), may_be_below.tolist(), tiles, strict=True)
    for (is_above, is_edge), run in groupby(kinds, lambda one: (one[0], one[0] and one[1])):
        if is_above:
            yield is_edge, [tile for _, _, tile in run]
