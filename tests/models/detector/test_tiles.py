"""Boxes of tiles become boxes of the photo: each object once, also at seams. The detector is one that cannot err: it
gives the exact box of what it sees of each drawn thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.detector.tiles import MOST_DETECTIONS, merged
from models.rle import decode_rle, encode_rle
from models.tiles import Merge, Part, Tiling
from models.types import Detections

MERGES: tuple[Merge, ...] = ("nms", "fusion")
HEIGHT, WIDTH = SIZE_HW = (300, 400)
THINGS = {  # the value of its pixels: its box
    1: (70, 10, 95, 40),  # cut by a seam
    2: (75, 70, 105, 95),  # cut by four tiles
    3: (20, 150, 380, 290),  # larger than a tile
    4: (100, 100, 120, 103),
    5: (0, 45, 8, 60),  # at the photo's edge
    6: (108, 101, 114, 103),  # within another
}


def drawn(*things: int) -> np.ndarray:
    image = np.zeros(SIZE_HW, np.uint8)
    for thing in things:
        x1, y1, x2, y2 = THINGS[thing]
        image[y1:y2, x1:x2] = thing
    return image


def detections(boxes: Any, scores: Any, labels: Any, size_hw: tuple[int, int], masks: Any = None) -> Detections:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(corners, np.array(scores, np.float32), np.array(labels, np.int64), size_hw, masks)


def seen(image: np.ndarray, part: Part, masks: bool = False, least: int = 1) -> tuple[Part, Detections]:
    """What such a detector finds in a part, with labels by the values' parity; nothing shorter than `least` pixels."""
    pixels = part.of(image)
    found: list[tuple[list[int], float, int, Any]] = []
    for value in np.unique(pixels[pixels > 0]).tolist():
        ys, xs = np.nonzero(pixels == value)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        if max(box[2] - box[0], box[3] - box[1]) >= least:
            found.append((box, 0.5 + value / 100, value % 2, encode_rle(pixels == value)))
    boxes, scores, labels, rles = zip(*found, strict=True) if found else ((), (), (), ())
    return part, detections(boxes, scores, labels, part.size_hw, tuple(rles) if masks else None)


def in_tiles(image: np.ndarray, tiling: Tiling, *, whole: bool = False, **options: Any) -> Detections:
    parts = [Part((0, 0, WIDTH, HEIGHT))] * whole + tiling.tiles(SIZE_HW)
    masks = options.pop("masks", False)
    return merged([seen(image, part, masks) for part in parts], SIZE_HW, merge=tiling.merge, **options)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
@pytest.mark.parametrize("whole", [False, True])
def test_an_object_across_seams_is_one_object(merge: Merge, overlap: float, whole: bool) -> None:
    found = in_tiles(drawn(1, 2, 3, 4, 5), Tiling(100, overlap, merge), whole=whole)
    boxes = {tuple(box): label for box, label in zip(found.boxes_xyxy.tolist(), found.labels.tolist(), strict=True)}
    assert boxes == {THINGS[thing]: thing % 2 for thing in (1, 2, 3, 4, 5)} and len(found) == 5
    assert found.size_hw == SIZE_HW and (np.diff(found.scores) <= 0).all()
    assert found.boxes_xyxy.dtype == np.float32 and found.scores.dtype == np.float32 and found.masks is None


@pytest.mark.parametrize("merge", MERGES)
def test_masks_are_in_the_photo_and_those_of_pieces_together(merge: Merge) -> None:
    image = drawn(1, 2, 3, 4, 5)
    found = in_tiles(image, Tiling(100, 0.2, merge), masks=True)
    assert found.masks is not None and len(found.masks) == 5
    for box, rle in zip(found.boxes_xyxy.astype(int).tolist(), found.masks, strict=True):
        (thing,) = [thing for thing, corners in THINGS.items() if corners == tuple(box)]
        assert (decode_rle(rle) == (image == thing)).all()


def test_what_no_tile_sees_whole_and_the_photo_does_is_the_photos() -> None:
    """With pieces that cannot be joined, as the middle ones are not found."""
    image = drawn(3)
    views = [seen(image, Part((0, 0, WIDTH, HEIGHT)))]
    views += [seen(image, part) for part in Tiling(100).tiles(SIZE_HW)[::3]]
    found = merged(views, SIZE_HW)
    assert found.boxes_xyxy.tolist() == [list(THINGS[3])]


def test_things_side_by_side_at_a_seam_stay_two() -> None:
    """Both are whole in one tile and cut in the other, and their pieces lie side by side."""
    size_hw, tiling = (100, 180), Tiling(100, 0.2)
    image = np.zeros(size_hw, np.uint8)
    image[20:50, 70:88], image[20:50, 92:120] = 1, 3
    assert [tile.box_xyxy[0] for tile in tiling.tiles(size_hw)] == [0, 80]
    found = merged([seen(image, part) for part in tiling.tiles(size_hw)], size_hw)
    assert sorted(found.boxes_xyxy.tolist()) == [[70, 20, 88, 50], [92, 20, 120, 50]]


def test_a_thing_in_front_of_another_stays() -> None:
    found = in_tiles(drawn(4, 6), Tiling(100), whole=True)
    assert {tuple(box) for box in found.boxes_xyxy.tolist()} == {THINGS[4], THINGS[6]}


def test_boxes_of_one_object_are_the_best_or_their_mean() -> None:
    part, size_hw = Part((0, 0, 100, 100)), (100, 100)
    boxes, scores = [[10, 10, 50, 50], [12, 10, 52, 50]], [0.6, 0.2]
    views = [(part, detections([box], [score], [0], size_hw)) for box, score in zip(boxes, scores, strict=True)]
    assert merged(views, size_hw).boxes_xyxy.tolist() == [boxes[0]]
    fused = merged(views, size_hw, merge="fusion")
    np.testing.assert_allclose(fused.boxes_xyxy, [[10.5, 10, 50.5, 50]])
    np.testing.assert_allclose(fused.scores, [0.6])
    assert len(merged(views, size_hw, iou_threshold=1.0)) == 2
    other = [views[0], (part, detections([boxes[1]], [0.2], [1], size_hw))]
    for merge in MERGES:
        assert len(merged(other, size_hw, merge=merge)) == 2
        assert len(merged(other, size_hw, merge=merge, class_agnostic=True)) == 1


def test_there_are_as_many_as_may_be() -> None:
    """Of nothing found, too."""
    part, size_hw = Part((0, 0, 4000, 10)), (10, 4000)
    boxes = [[2 * place, 0, 2 * place + 1, 1] for place in range(1500)]
    views = [(part, detections(boxes, np.linspace(0.9, 0.1, 1500), [0] * 1500, size_hw))]
    assert len(merged(views, size_hw)) == MOST_DETECTIONS
    assert merged(views, size_hw, max_detections=3).boxes_xyxy.tolist() == boxes[:3]
    for merge in MERGES:
        nothing = merged([(part, detections([], [], [], size_hw))] * 2, size_hw, merge=merge)
        assert nothing.boxes_xyxy.shape == (0, 4) and len(nothing) == 0
