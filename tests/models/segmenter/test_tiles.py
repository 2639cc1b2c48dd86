"""Which tile a prompt is answered in, and how it looks there."""

from __future__ import annotations

import numpy as np
import pytest

from models.segmenter.tiles import in_part, of, parts_of, reaches_on
from models.tiles import Part, Tiling
from models.types import Prompts

SIZE_HW = (300, 500)
TILING = Tiling(100, 0.2)  # here they overlap by half: tiles begin at 0, 50, 100, ...


def boxes(*corners: tuple[float, ...]) -> Prompts:
    return Prompts(boxes_xyxy=np.array(corners, np.float64))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((30, 20, 50, 40), (0, 0, 100, 100)),
        ((100, 20, 120, 40), (50, 0, 150, 100)),
        ((0, 0, 50, 50), (0, 0, 100, 100)),  # the photo's own edges count for nothing
        ((95, 95, 110, 105), (50, 50, 150, 150)),
        ((482, 282, 500, 300), (400, 200, 500, 300)),
        ((0, 0, 51, 10), None),  # longer than half a tile
        ((60, 60, 110, 110), (50, 50, 150, 150)),
    ],
)
def test_a_small_box_goes_to_the_tile_in_which_it_is_most_central(box: tuple[int, ...], expected: object) -> None:
    prompts = boxes((200, 150, 210, 160), box)
    parts = parts_of(prompts, SIZE_HW, TILING)
    (part,) = [part for part, places in parts.items() if 1 in places]
    assert (None if part is None else part.box_xyxy) == expected
    alone = parts_of(boxes(box), SIZE_HW, TILING)  # and does not depend on the others
    assert alone == {part: [0]}
    if part is not None:
        x1, y1 = part.box_xyxy[:2]
        moved = in_part(prompts, [1], part).boxes_xyxy
        assert moved is not None and moved.tolist() == [[box[0] - x1, box[1] - y1, box[2] - x1, box[3] - y1]]


@pytest.mark.parametrize("length", [1, 20, 50])
def test_every_small_box_is_whole_in_its_tile_wherever_it_lies(length: int) -> None:
    corners = [(x, y, x + length, y + length) for x in range(0, 501 - length, 7) for y in range(0, 301 - length, 7)]
    parts = parts_of(boxes(*corners), SIZE_HW, TILING)
    assert None not in parts and sum(map(len, parts.values())) == len(corners)
    for part, places in parts.items():
        assert part is not None
        x1, y1, x2, y2 = part.box_xyxy
        inner = np.array(part.inner_edges(SIZE_HW))
        margins = (np.array(corners)[places] - (x1, y1, x2, y2)) * (1, 1, -1, -1)
        assert margins[:, inner].min(initial=100) >= 25 - length / 2


def test_every_click_has_a_tile_that_shows_what_is_around_it() -> None:
    xs, ys = np.meshgrid(np.arange(0, 501, 5.0), np.arange(0, 301, 5.0))
    points = np.stack([xs.ravel(), ys.ravel()], axis=1)
    parts = parts_of(Prompts(points[:, None]), SIZE_HW, TILING)
    assert sum(map(len, parts.values())) == len(points) and None not in parts
    for part, places in parts.items():
        assert part is not None
        x1, y1, x2, y2 = part.box_xyxy
        inner = np.array(part.inner_edges(SIZE_HW))
        margins = np.stack(
            [points[places, 0] - x1, points[places, 1] - y1, x2 - points[places, 0], y2 - points[places, 1]]
        )
        assert margins[inner].min(initial=np.inf) >= 25  # half of what neighbours share


def test_points_and_boxes_of_a_prompt_go_together() -> None:
    points = np.array([[[30, 30], [0, 0]], [[30, 30], [90, 30]], [[0, 0], [0, 0]]], np.float64)
    labels = np.array([[1, -10], [1, 0], [-1, -10]])
    first = Part((0, 0, 100, 100))
    assert parts_of(Prompts(points, labels), SIZE_HW, TILING) == {first: [0], None: [1, 2]}
    with_boxes = Prompts(points, labels, np.array([[20, 20, 40, 40]] * 3, np.float64))
    assert parts_of(with_boxes, SIZE_HW, TILING) == {first: [0, 2], None: [1]}
    moved = in_part(with_boxes, [0, 2], Part((10, 5, 110, 105)))
    assert moved.points_xy is not None and moved.boxes_xyxy is not None and moved.point_labels is not None
    assert moved.points_xy.tolist() == [[[20, 25], [0, 0]], [[0, 0], [0, 0]]]
    assert moved.point_labels.tolist() == [[1, -10], [-1, -10]] and moved.boxes_xyxy[0].tolist() == [10, 15, 30, 35]
    chosen = of(with_boxes, [2])
    assert chosen.point_labels is not None and chosen.point_labels.tolist() == [[-1, -10]]


def test_one_tile_and_no_prompt_are_the_whole_photo() -> None:
    assert parts_of(boxes((1, 1, 9, 9), (2, 2, 8, 8)), (100, 90), TILING) == {None: [0, 1]}
    assert parts_of(Prompts(), SIZE_HW, TILING) == {None: [0]}


def test_a_mask_that_ends_at_a_tiles_edge_may_go_on() -> None:
    mask = np.zeros((100, 100), bool)
    mask[10:20, :30] = True
    assert reaches_on(mask, Part((80, 0, 180, 100)), SIZE_HW)
    assert not reaches_on(mask, Part((0, 0, 100, 100)), SIZE_HW)  # it is the photo's edge
    speck = np.zeros((100, 100), bool)
    speck[10, 0] = True
    assert not reaches_on(speck, Part((80, 0, 180, 100)), SIZE_HW)
