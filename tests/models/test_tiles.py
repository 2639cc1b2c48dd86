"""The grid of tiles: every pixel is in one, all are of one size, and neighbours share as much as was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from models.tiles import Part, Tiling

SIZES = [(1, 1), (1, 500), (100, 100), (100, 101), (101, 100), (37, 1000), (333, 251), (64, 99), (300, 400)]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("side", [16, 37, 100])
def test_tiles_cover_the_image(size_hw: tuple[int, int], overlap: float, side: int) -> None:
    tiling = Tiling(side, overlap)
    tiles = tiling.tiles(size_hw)
    height, width = size_hw
    assert len(tiles) == tiling.count(size_hw) == len(set(tiles))
    covered = np.zeros(size_hw, bool)
    for tile in tiles:
        x1, y1, x2, y2 = tile.box_xyxy
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert tile.size_hw == (min(side, height), min(side, width)) == tile.of(covered).shape
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert tiles[0].box_xyxy[:2] == (0, 0) and tiles[-1].box_xyxy[2:] == (width, height)
    for low, high in ((0, 2), (1, 3)):
        starts, ends = (sorted({tile.box_xyxy[side] for tile in tiles}) for side in (low, high))
        shared = [end - start for start, end in zip(starts[1:], ends, strict=False)]
        assert all(one >= overlap * side - 1e-9 for one in shared)


def test_a_tile_as_large_as_the_image_is_the_image() -> None:
    for size_hw in ((80, 100), (100, 100), (1, 1)):
        assert Tiling(100).tiles(size_hw) == [Part((0, 0, size_hw[1], size_hw[0]))]
    assert Tiling(100).count((101, 100)) == 2


def test_a_part_goes_back_where_it_was() -> None:
    image = np.random.default_rng(0).random((7, 9, 3))
    part = Part((2, 1, 6, 7))
    assert (part.of(image) == image[1:7, 2:6]).all()
    masks = np.random.default_rng(1).random((2, 6, 4)) > 0.5
    whole = part.in_image(masks, (7, 9))
    assert whole.shape == (2, 7, 9) and (whole[:, 1:7, 2:6] == masks).all() and whole.sum() == masks.sum()
    assert part.inner_edges((7, 9)) == (True, True, True, False)
    assert Part((0, 0, 9, 7)).inner_edges((7, 9)) == (False,) * 4
