"""Masks come back from each of their three forms exactly as they went in."""

from __future__ import annotations

import base64
import json
from functools import partial
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from app.contract.masks import encode_png, encode_polygons
from models.rle import _column_major_runs, encode_rle

# pycocotools' decode() has not learnt numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def drawn(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def blobs(seed: int, size_hw: tuple[int, int], sigma: float) -> np.ndarray:
    """Random blobs with holes and islands; the smaller sigma, the more of them. About half is object."""
    noise = np.random.default_rng(seed).normal(size=size_hw)
    return cv2.GaussianBlur(noise, (0, 0), sigma) > 0 if sigma else noise > 0


SHAPES = {
    "empty": drawn("....", "....", "...."),
    "full": drawn("####", "####", "####"),
    "one pixel image": drawn("#"),
    "no pixel image": drawn("."),
    "one pixel": drawn(".....", "..#..", "....."),
    "corner pixels": drawn("#...#", ".....", "#...#"),
    "one row": drawn("##.#.###"),
    "one column": drawn("#", "#", ".", "#"),
    "diagonal": drawn("#...", ".#..", "..#.", "...#"),
    "antidiagonal": drawn("...#", "..#.", ".#..", "#..."),
    "checkerboard": drawn("#.#.#", ".#.#.", "#.#.#", ".#.#."),
    "hole": drawn("####", "#..#", "####"),
    "diagonal holes": drawn("#####", "#.###", "##.##", "###.#", "#####"),
    "antidiagonal holes": drawn("#####", "###.#", "##.##", "#.###", "#####"),
    "holes below one edge": drawn("########", "#.##.#.#", "########", "##.#####", "########"),
    "hole below hole": drawn("####", "#.##", "####", "#.##", "####"),
    "hole at the inner end of a step": drawn("..####", "..####", "####.#", "##.###", "######"),
    "hole under a left side": drawn("...####", "...####", "###.###", "#######"),
    "island in a hole": drawn("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"),
    "ring closed by a corner": drawn("###.", "#.#.", ".##.", "...."),
}
RANDOM = {
    f"blobs {height}x{width} sigma {sigma}": blobs(seed, (height, width), sigma)
    for seed, (height, width, sigma) in enumerate(
        [(1, 97, 1), (97, 1, 1), (31, 17, 0), (64, 48, 0), (120, 161, 1.5), (333, 250, 4), (480, 641, 12)]
    )
}
MASKS = SHAPES | RANDOM
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
every_encoder = pytest.mark.parametrize(
    "encode",
    [encode_png, partial(encode_png, fast=False), encode_rle, partial(encode_rle, fast=False), encode_polygons],
)
fast_or_plain = pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])


def corners(polygon: list[float], size_hw: tuple[int, int]) -> np.ndarray:
    """(P, 2) float64 corners in pixels."""
    height, width = size_hw
    return np.array(polygon).reshape(-1, 2) * (width, height)


def filled_by_coco(polygons: list[list[float]], size_hw: tuple[int, int]) -> np.ndarray:
    if not polygons:
        return np.zeros(size_hw, dtype=bool)
    flat = [corners(polygon, size_hw).ravel().tolist() for polygon in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, *size_hw))).astype(bool)


def filled_by_opencv(polygons: list[list[float]], size_hw: tuple[int, int]) -> np.ndarray:
    """fillPoly (even-odd) at eight times the size, read at the pixels' centres, which no outline comes near."""
    canvas = np.zeros((size_hw[0] * 8 + 1, size_hw[1] * 8 + 1), dtype=np.uint8)
    for polygon in polygons:
        region = np.zeros_like(canvas)
        cv2.fillPoly(region, [np.rint(corners(polygon, size_hw) * 8).astype(np.int32)], 1)
        canvas |= region
    return canvas[4::8, 4::8] == 1


def winding_numbers(polygons: list[list[float]], size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) int: how many times the outlines together wind around each pixel's centre."""
    crossings = np.zeros((size_hw[0], size_hw[1] + 1), dtype=int)
    for polygon in polygons:
        points = np.rint(corners(polygon, size_hw)).astype(int)
        for (x, y), (next_x, next_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
            assert (x == next_x) != (y == next_y), "edges are horizontal or vertical, and none is empty"
            crossings[min(y, next_y) : max(y, next_y), x] += np.sign(y - next_y)
    return crossings.cumsum(axis=1)[:, :-1]


@every_mask
@fast_or_plain
def test_png_round_trip(mask, fast):
    png = base64.b64decode(encode_png(mask, fast=fast), validate=True)
    with Image.open(BytesIO(png), formats=["PNG"]) as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), mask * np.uint8(255))
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, mask * np.uint8(255))


def test_a_png_is_not_much_larger_than_pillow_makes_it():
    """It is 1.4 times as large; with ISA-L's level 0 it would be 4 times."""
    mask = np.zeros((1080, 1920), dtype=bool)
    mask[300:780, 500:1400] = blobs(11, (480, 900), 60)
    assert len(encode_png(mask)) < 2 * len(encode_png(mask, fast=False))


@fast_or_plain
@pytest.mark.parametrize("size_hw", [(0, 0), (0, 5), (5, 0)])
def test_no_png_is_made_of_no_pixels(size_hw, fast):
    with pytest.raises(ValueError):
        encode_png(np.zeros(size_hw, dtype=bool), fast=fast)


@every_mask
@fast_or_plain
def test_rle_round_trip(mask, fast):
    rle = json.loads(json.dumps(encode_rle(mask, fast=fast)))
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(coco_mask.decode(rle), mask)


@every_mask
def test_rle_is_pycocotools_own(mask):
    assert encode_rle(mask) == encode_rle(mask, fast=False)
    assert encode_rle(~mask) == encode_rle(~mask, fast=False)


@pytest.mark.parametrize("sides", range(16))
def test_rle_is_pycocotools_own_at_any_of_the_borders(sides):
    """Runs go on from the bottom of a column to the top of the next."""
    margins = [(1 - (sides >> bit & 1)) * 3 for bit in range(4)]
    mask = np.pad(blobs(sides, (21, 34), 1.5), (margins[:2], margins[2:]))
    assert _column_major_runs(mask.view(np.uint8)) is not None
    assert encode_rle(mask) == encode_rle(mask, fast=False)


def test_runs_are_sorted_only_where_they_are_few():
    assert _column_major_runs(RANDOM["blobs 480x641 sigma 12"].view(np.uint8)) is not None
    assert _column_major_runs(blobs(3, (480, 641), 0).view(np.uint8)) is None


@every_mask
def test_polygons_fill_to_the_mask_by_either_rule(mask):
    polygons = json.loads(json.dumps(encode_polygons(mask)))
    np.testing.assert_array_equal(filled_by_coco(polygons, mask.shape), mask)
    np.testing.assert_array_equal(winding_numbers(polygons, mask.shape), mask)


@pytest.mark.parametrize("name", [*SHAPES, "blobs 31x17 sigma 0", "blobs 120x161 sigma 1.5"])
def test_polygons_fill_to_the_mask_in_opencv(name):
    mask = MASKS[name]
    np.testing.assert_array_equal(filled_by_opencv(encode_polygons(mask), mask.shape), mask)


@every_mask
def test_one_polygon_for_each_region(mask):
    regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
    assert len(encode_polygons(mask)) == regions


@every_mask
def test_polygons_list_only_corners(mask):
    for polygon in encode_polygons(mask):
        assert len(polygon) >= 8 and len(polygon) % 2 == 0
        assert min(polygon) >= 0 and max(polygon) <= 1
        points = np.rint(corners(polygon, mask.shape)).astype(int)
        horizontal = points[:, 1] == np.roll(points, -1, axis=0)[:, 1]
        assert (horizontal != np.roll(horizontal, 1)).all()


def test_one_pixel_is_a_square_clockwise_from_its_top_left():
    mask = drawn("....", "..#.")
    assert encode_polygons(mask) == [[0.5, 0.5, 0.75, 0.5, 0.75, 1.0, 0.5, 1.0]]


def test_a_hole_hangs_from_the_edge_above_by_a_cut():
    mask = drawn("####", "#.##", "####", "####")
    quarters = np.array(encode_polygons(mask)[0]).reshape(-1, 2) * 4
    cut, hole = [(1, 0), (1, 2), (2, 2), (2, 1), (1, 1), (1, 0)], [(4, 0), (4, 4), (0, 4)]
    assert [tuple(point) for point in quarters] == [(0, 0), *cut, *hole]


def test_very_wide_masks_keep_their_pixels():
    mask = blobs(7, (1, 300_000), 1)
    np.testing.assert_array_equal(filled_by_coco(encode_polygons(mask), mask.shape), mask)


@every_encoder
def test_bool_and_any_nonzero_uint8_in_any_memory_order_mean_the_same(encode):
    mask = MASKS["blobs 31x17 sigma 0"]
    for same in (mask * np.uint8(1), mask * np.uint8(255), np.asfortranarray(mask), mask[::-1][::-1]):
        assert encode(same) == encode(mask)


@every_encoder
@pytest.mark.parametrize("wrong", [np.zeros((2, 2), np.float32), np.zeros((1, 2, 2), bool), np.zeros(4, bool)])
def test_other_arrays_are_refused(encode, wrong):
    with pytest.raises(ValueError, match="expected a mask"):
        encode(wrong)
