"""Outlines with few corners: near the mask, with all parts and holes, and nowhere crossing, as shapely judges it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage
from shapely.geometry import Polygon

from app.contract.masks import encode_polygons
from models.masks.outlines import one_ring, simplified


def blobs(seed: int, size_hw: tuple[int, int], sigma: float) -> np.ndarray:
    found: np.ndarray = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=size_hw), (0, 0), sigma) > 0
    return found


def drawn(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def ring(radius: float, inner: float) -> np.ndarray:
    ys, xs = np.mgrid[:100, :120]
    away = np.hypot(ys - 50, xs - 60)
    found: np.ndarray = (away < radius) & (away >= inner)
    return found


MASKS = {
    "blobs": blobs(0, (60, 47), 1.5),
    "fine blobs": blobs(1, (30, 41), 0.8),
    "large blobs": blobs(2, (90, 120), 6),
    "ring": ring(40, 20),
    "thin ring": ring(40, 38),
    "closed by a corner": drawn("###.", "#.#.", ".##.", "...."),
    "holes at corners": drawn("#####", "#.###", "##.##", "###.#", "#####"),
    "holes below each other": drawn("####", "#.##", "####", "#.##", "####"),
    "island in a hole": drawn("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"),
    "a pixel": drawn("...", ".#.", "..."),
    "diagonal": drawn("#...", ".#..", "..#.", "...#"),
    "full": np.ones((5, 7), bool),
    "empty": np.zeros((5, 7), bool),
}  # fmt: skip
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
CORNERS = {"exact": (0.0, None), "half": (0.5, None), "one": (1.0, None), "three": (3.0, None), "few": (0.0, 8)}


def drawn_again(mask: np.ndarray, rings: list[np.ndarray]) -> np.ndarray:
    height, width = mask.shape
    flat = [one.ravel().tolist() for one in rings]
    if not flat:
        return np.zeros(mask.shape, bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width))).astype(bool)


@every_mask
@pytest.mark.parametrize(("tolerance", "most"), CORNERS.values(), ids=CORNERS)
def test_outlines_are_simple_and_near_the_mask(mask: np.ndarray, tolerance: float, most: int | None) -> None:
    parts = simplified(mask, tolerance, most)
    numbers, count = ndimage.label(mask)
    assert len(parts) == count
    holes = ndimage.label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3)))[1] - 1
    assert sum(len(part) - 1 for part in parts) == holes
    shapes = [Polygon(outline, inner) for outline, *inner in parts]
    flat = [one_ring(outline, inner) for outline, *inner in parts]
    for shape, single in zip(shapes, flat, strict=True):
        assert shape.is_valid and Polygon(np.round(single, 3)).is_valid and shape.exterior.is_ccw  # as y points down
        assert shape.area == pytest.approx(Polygon(single).area, abs=1)
    for number, one in enumerate(shapes):
        assert all(one.disjoint(other) for other in shapes[:number])
    found = drawn_again(mask, flat)
    if (tolerance, most) == (0.0, None):
        np.testing.assert_array_equal(found, mask)
    elif most is None and mask.any():
        assert (found & mask).sum() / (found | mask).sum() > 0.75
        assert all(one.any() for one in (found & (numbers == part) for part in range(1, count + 1)))


def test_the_number_of_corners_is_kept_where_nothing_is_in_the_way() -> None:
    for name, least in (("ring", 14), ("large blobs", 24)):
        counts = [len(one_ring(part[0], part[1:])) for part in simplified(MASKS[name], 0, least)]
        assert max(counts) <= least
    disc = ring(40, 0)
    counts = [len(simplified(disc, 0, most)[0][0]) for most in (4, 8, 20)]
    assert counts == [4, 8, 20]
    assert len(simplified(disc, 1.0)[0][0]) < len(simplified(disc, 0.5)[0][0]) < len(simplified(disc)[0][0])


def test_without_a_wish_polygons_are_as_ever() -> None:
    mask = MASKS["ring"]
    assert encode_polygons(mask) == encode_polygons(mask, None, None) != encode_polygons(mask, 1.0)
    few = np.array(encode_polygons(mask, 1.0)[0]).reshape(-1, 2) * (120, 100)
    assert Polygon(few).is_valid and len(few) < 50
