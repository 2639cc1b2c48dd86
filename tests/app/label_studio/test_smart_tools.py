"""What smart tools draw, as prompts: points of one object, boxes, turned ones, and what cannot be one."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import BadRequest
from app.label_studio.smart_tools import Drawn, drawn_objects

SIDES = {"original_width": 200, "original_height": 100, "image_rotation": 0, "to_name": "image"}


def click(x: Any, y: float, label: str | None = "can", **more: Any) -> dict[str, Any]:
    labels = {} if label is None else {"keypointlabels": [label]}
    return {"type": "keypointlabels", "value": {"x": x, "y": y, "width": 0.5, **labels}, **SIDES, **more}


def frame(x: float, y: float, width: float, height: float, **value: Any) -> dict[str, Any]:
    sides = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {"type": "rectanglelabels", "value": sides | {"rectanglelabels": ["can"]} | value, **SIDES}


def drawn(*regions: Any) -> list[Drawn]:
    return drawn_objects({"result": list(regions)})


def test_points_of_one_label_are_one_object() -> None:
    found = drawn(
        click(50, 40, is_positive=True), click(10, 20, is_positive=False), click(5, 5, "carton"), click(1, 2, None)
    )
    assert found == [
        Drawn("image", "can", [[0.5, 0.4], [0.1, 0.2]], [1, 0]),
        Drawn("image", "carton", [[0.05, 0.05]], [1]),  # one that says nothing of itself is of the object
        Drawn("image", None, [[0.01, 0.02]], [1]),
    ]
    assert [one.is_single_click for one in found] == [False, True, True]


def test_rectangles_are_objects_and_points_refine_one() -> None:
    assert drawn(frame(10, 20, 30, 40), frame(0, 0, 5, 5)) == [
        Drawn("image", "can", box_xyxy=[0.1, 0.2, pytest.approx(0.4), pytest.approx(0.6)]),
        Drawn("image", "can", box_xyxy=[0, 0, 0.05, 0.05]),
    ]
    for order in (1, -1):
        regions = [frame(10, 20, 30, 40), click(20, 30, is_positive=False)][::order]
        (both,) = drawn(*regions)
        assert both.point_labels == [0] and both.box_xyxy is not None and not both.is_single_click


def test_a_turned_rectangle_gives_the_box_around_it() -> None:
    # 40 x 20 pixels at (100, 50), a quarter turn about its corner: to the left of it, and below.
    (one,) = drawn(frame(50, 50, 20, 20, rotation=90))
    assert one.box_xyxy == pytest.approx([0.4, 0.5, 0.5, 0.9])


def test_an_ellipse_gives_the_box_around_it() -> None:
    value = {"x": 50, "y": 40, "radiusX": 10, "radiusY": 20, "ellipselabels": ["can"]}
    (one,) = drawn({"type": "ellipselabels", "value": value, **SIDES})
    assert one.box_xyxy == pytest.approx([0.4, 0.2, 0.6, 0.6]) and one.label == "can"


def test_there_is_nothing_to_find_of_what_is_not_of_an_object() -> None:
    assert drawn(click(50, 40, is_positive=False)) == [] and drawn() == []


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ({}, "params.context.result: expected a list of regions, got NoneType"),
        ({"result": [3]}, "region 0: expected an object with a value, got int"),
        (
            {"result": [click(1, 2), click(1, 2) | {"type": "brushlabels"}]},
            "region 1: expected a key point, a rectangle",
        ),
        ({"result": [click("x", 2)]}, "region 0, value.x: expected percent, got 'x'"),
        ({"result": [click(float("nan"), 2)]}, "value.x: expected percent, got 'nan'"),
        ({"result": [click(1e300, 2)]}, "value.x: expected percent, got '1e+300'"),
        ({"result": [frame(1, 2, 0, 4)]}, "expected an area, got none"),
        ({"result": [frame(1, 2, 3, 4, rotation=30) | {"original_width": 0}]}, "original_width: expected a number of"),
        ({"result": [click(1, 2, image_rotation=90)]}, "image_rotation: expected 0, got another"),
    ],
)
def test_what_is_no_prompt_is_told(context: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequest) as refused:
        drawn_objects(context)
    assert told in refused.value.message
