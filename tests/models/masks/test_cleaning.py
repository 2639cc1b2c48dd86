"""Masks are cleaned as is said of them, by scipy's or a plain count of what hangs together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from models.masks.boxes import box_around, rotated_box_around
from models.masks.cleaning import Cleaning, filled, largest_part, owners, without_small_regions

BY_SIDES, BY_CORNERS = ndimage.generate_binary_structure(2, 1), np.ones((3, 3))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def blobs(seed: int, size_hw: tuple[int, int], sigma: float = 1.2, share: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=size_hw)
    found: np.ndarray = cv2.GaussianBlur(noise, (0, 0), sigma) > share
    return found


def in_a_corner(mask: np.ndarray, larger_hw: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(larger_hw, bool)
    canvas[7 : 7 + mask.shape[0], : mask.shape[1]] = mask
    return canvas


MASKS = {
    "blobs": blobs(0, (61, 47)),
    "many islands": blobs(1, (61, 47), share=0.15),
    "many holes": blobs(2, (61, 47), share=-0.15),
    "within a large image": in_a_corner(blobs(3, (30, 40), share=-0.1), (200, 90)),
    "empty": np.zeros((9, 4), bool),
    "full": np.ones((9, 4), bool),
    "a pixel": np.ones((1, 1), bool),
    "a row": drawn("##.#.###"),
    "a column": drawn(*"##.#.###"),
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def regions(mask: np.ndarray, structure: np.ndarray) -> list[np.ndarray]:
    numbers, count = ndimage.label(mask, structure)
    return [numbers == number for number in range(1, count + 1)]


def plainly_without_small_regions(mask: np.ndarray, area: int) -> np.ndarray:
    """One region after the other, as segment-anything says of its `remove_small_regions`: holes first, then islands.

    What is at the edge of the image and larger than the object is no hole here, so that no image becomes all object.
    """
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = True
    whole = mask.copy()
    for hole in regions(~mask, BY_CORNERS):
        if hole.sum() < area and ((hole <= inner).all() or hole.sum() <= mask.sum()):
            whole |= hole
    islands = regions(whole, BY_CORNERS)
    kept = [one for one in islands if one.sum() >= area] or sorted(islands, key=np.sum)[-1:]
    return np.any([np.zeros_like(mask), *kept], axis=0)


@every_mask
@pytest.mark.parametrize("area", [1, 2, 5, 12, 60])
def test_small_regions_go_as_segment_anything_has_it(mask: np.ndarray, area: int) -> None:
    before = mask.copy()
    expected = plainly_without_small_regions(mask, area)
    np.testing.assert_array_equal(without_small_regions(mask, area), expected)
    np.testing.assert_array_equal(Cleaning(area)(mask), expected)
    np.testing.assert_array_equal(mask, before)


def test_a_background_larger_than_the_object_is_no_hole() -> None:
    """Of which segment-anything makes a mask of the whole image."""
    mask = drawn("......", "..##..", "......")
    for area in (1, 3, 100):
        np.testing.assert_array_equal(Cleaning(area)(mask), mask)
    assert not Cleaning(100)(np.zeros((5, 5), bool)).any()
    assert Cleaning(100)(drawn("###", "#.#", "###")).all()


@every_mask
def test_holes_are_what_no_way_leads_out_of(mask: np.ndarray) -> None:
    expected = ndimage.binary_fill_holes(mask, structure=BY_CORNERS)
    np.testing.assert_array_equal(filled(mask), expected)
    np.testing.assert_array_equal(Cleaning(fill_holes=True)(mask), expected)


def test_a_bay_that_opens_at_a_corner_is_no_hole() -> None:
    bay = drawn(".###", "#..#", "#..#", "####")
    np.testing.assert_array_equal(filled(bay), bay)


@every_mask
def test_the_largest_part_is_joined_by_sides(mask: np.ndarray) -> None:
    found = largest_part(mask)
    np.testing.assert_array_equal(Cleaning(largest_part=True)(mask), found)
    parts = regions(mask, BY_SIDES)
    assert found.sum() == max((one.sum() for one in parts), default=0)
    assert any((found == one).all() for one in parts) or not mask.any()


def test_what_is_cleaned_is_cleaned_in_order() -> None:
    mask = drawn("#######...", "#.#####..#", "#######...", "#....##...", "#....##.##", "#######.##")
    only_sides = Cleaning(2, False, True)(mask)
    assert only_sides[1, 1] and not only_sides[1, 9] and not only_sides[4, 8] and not only_sides[3, 1]
    assert Cleaning(2, True, True)(mask)[3, 1]
    taken = Cleaning(2, True, True)(mask, fill=False)
    assert (taken <= mask).all() and not taken[4, 8]
    assert not Cleaning() and Cleaning()(mask) is mask


def test_each_pixel_is_of_the_best_mask_and_of_equal_ones_of_the_first() -> None:
    masks = [drawn("###...", "###..."), drawn(".####.", ".####."), drawn("......", "...###"), np.zeros((2, 6), bool)]
    found = owners(masks.__getitem__, [0.5, 0.9, 0.5, 1.0], (2, 6))
    np.testing.assert_array_equal(found, [[0, 1, 1, 1, 1, -1], [0, 1, 1, 1, 1, 2]])
    found = owners(masks.__getitem__, [0.9, 0.9, 0.9, 1.0], (2, 6))
    np.testing.assert_array_equal(found, [[0, 0, 0, 1, 1, -1], [0, 0, 0, 1, 1, 2]])
    assert (owners(masks.__getitem__, [], (2, 6)) == -1).all()


@every_mask
def test_boxes_are_around_the_pixels(mask: np.ndarray) -> None:
    box, turned = box_around(mask), rotated_box_around(mask)
    ys, xs = np.nonzero(mask)
    if not len(xs):
        assert box is None and turned is None
        return
    assert box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert turned is not None and turned.shape == (4, 2)
    along, across = turned[1] - turned[0], turned[3] - turned[0]
    assert abs(along @ across) < 0.01 * (np.hypot(*along) + np.hypot(*across))
    area = along[0] * across[1] - along[1] * across[0]
    assert 0 < area < (box[2] - box[0]) * (box[3] - box[1]) + 0.1  # clockwise, as y points down
    assert (turned[0] <= turned[:, [1]].min() + 1e-3)[1]
    corners = np.concatenate([np.stack((xs + dx, ys + dy), 1) for dx in (0, 1) for dy in (0, 1)]) - turned[0]
    for side in (along, across):
        share = corners @ side / (side @ side)
        assert share.min() > -0.01 and share.max() < 1.01


def test_a_turned_object_has_a_turned_box() -> None:
    canvas = np.zeros((200, 300), np.uint8)
    corners = np.array([(100, 20), (220, 89), (190, 141), (70, 72)])  # 30 degrees
    cv2.fillPoly(canvas, [corners], 1)
    turned = rotated_box_around(canvas.astype(bool))
    assert turned is not None
    np.testing.assert_allclose(turned, corners, atol=3)  # whose edges are filled too
