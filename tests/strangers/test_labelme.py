"""LabelMe's files as its releases, and tools that write its format, leave them; each with the reading that it means
beside it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
CAT_MASK = thing("cat", 10, 20, 40, 60, 1200)
POINTS = [[10, 20], [40, 20], [40, 60], [10, 60]]


def shape(points: Any, kind: str = "polygon", **changes: Any) -> dict[str, Any]:
    return {"label": "cat", "points": points, "group_id": None, "shape_type": kind, "flags": {}} | changes


def labelme(*shapes: Any, **changes: Any) -> dict[str, Any]:
    top = {
        "version": "5.4.1",
        "flags": {},
        "imagePath": "a.jpg",
        "imageData": None,
        "imageHeight": 80,
        "imageWidth": 100,
    }
    return top | {"shapes": list(shapes)} | changes


def one(*shapes: Any, **changes: Any) -> dict[str, Any]:
    return {"a.json": labelme(*shapes, **changes), "a.jpg": Photo()}


TURNED = 400  # a rectangle with sides of 28.28 and 14.14

CASES = {
    "a polygon": Case(one(shape(POINTS)), {"a.jpg": [CAT_MASK]}),
    "a rectangle, drawn from its lower right corner": Case(
        one(shape([[40, 60], [10, 20]], "rectangle")), {"a.jpg": [CAT]}
    ),
    "a rectangle of four corners (X-AnyLabeling)": Case(one(shape(POINTS, "rectangle")), {"a.jpg": [CAT]}),
    "a turned rectangle (X-AnyLabeling)": Case(
        one(shape(POINTS, "rotation", direction=0.5)), {"a.jpg": [CAT_MASK]}, noted=("turned rectangles",)
    ),
    "a circle": Case(
        one(shape([[50, 40], [50, 50]], "circle")),
        {"a.jpg": [thing("cat", 40, 30, 60, 50, 317)]},
        noted=("circles are read as polygons",),
    ),
    "points and lines": Case(
        one(shape(POINTS), shape([[1, 1]], "point"), shape([[1, 1], [2, 2]], "line")),
        {"a.jpg": [CAT_MASK]},
        noted=("type point ", "type line "),
    ),
    "two parts of a group": Case(
        one(
            shape([[10, 20], [20, 20], [20, 60], [10, 60]], group_id=1),
            shape([[30, 20], [40, 20], [40, 60], [30, 60]], group_id=1),
        ),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 800)]},
    ),
    "an imagePath of Windows": Case(
        {"labels/a.json": labelme(shape(POINTS), imagePath="..\\photos\\a.jpg"), "photos/a.jpg": Photo()},
        {"a.jpg": [CAT_MASK]},
        at="labels",
    ),
    "an imagePath of another machine": Case(
        one(shape(POINTS), imagePath="C:\\Users\\Ann\\a.jpg"), {"a.jpg": [CAT_MASK]}, noted=("found by name",)
    ),
    "an imagePath that is wrong": Case(
        one(shape(POINTS), imagePath="b.jpg"), {"a.jpg": [CAT_MASK]}, noted=("found by name",)
    ),
    "no size": Case(one(shape(POINTS), imageHeight=None, imageWidth=None), {"a.jpg": [CAT_MASK]}),
    "sizes of 0": Case(one(shape(POINTS), imageHeight=0, imageWidth=0), {"a.jpg": [CAT_MASK]}),
    "version 3: without shape_type and group_id": Case(
        one({"label": "cat", "points": POINTS, "line_color": None, "fill_color": None}), {"a.jpg": [CAT_MASK]}
    ),
    "coordinates as text": Case(
        one(shape([["10", "20"], ["40", "20"], ["40", "60"], ["10", "60"]])), {"a.jpg": [CAT_MASK]}
    ),
    "a polygon of two points": Case(
        one(shape(POINTS), shape(POINTS[:2])), {"a.jpg": [CAT_MASK]}, bad=("at least 3 points",)
    ),
    "a polygon of 1e300": Case(
        one(shape(POINTS), shape([[1, 1], [1e300, 2], [3, 3]])), {"a.jpg": [CAT_MASK]}, bad=("at most 1000000",)
    ),
    "a rectangle of no height": Case(
        one(shape(POINTS), shape([[1, 1], [9, 1]], "rectangle")), {"a.jpg": [CAT_MASK]}, noted=("left out",)
    ),
    "a rectangle and a polygon of one object": Case(
        one(shape(POINTS), shape([[10, 20], [40, 60]], "rectangle")),
        {"a.jpg": [CAT_MASK]},
        noted=("there again as a mask",),
    ),
    "labels.txt with __ignore__ and _background_": Case(
        one(shape(POINTS)) | {"labels.txt": "__ignore__\n_background_\ncat\ndog\n"}, {"a.jpg": [CAT_MASK]}
    ),
    "photos in images/, files in annotations/": Case(
        {"annotations/a.json": labelme(shape(POINTS)), "images/a.jpg": Photo()}, {"a.jpg": [CAT_MASK]}
    ),
    "Windows: UTF-8 with a mark": Case(
        {"a.json": b"\xef\xbb\xbf" + json.dumps(labelme(shape(POINTS))).encode(), "a.jpg": Photo()},
        {"a.jpg": [CAT_MASK]},
    ),
    "macOS: companions": Case(one(shape(POINTS)) | {"._a.json": b"\0\5"}, {"a.jpg": [CAT_MASK]}),
    # releases, and tools around it
    "version 6: a turned rectangle": Case(
        one(shape([[30, 20], [50, 40], [40, 50], [20, 30]], "oriented_rectangle")),
        {"a.jpg": [thing("cat", 20, 20, 50, 50, TURNED)]},
        noted=("turned rectangles",),
    ),
    "version 5: descriptions, flags of the image, no shape": Case(
        one(flags={"indoor": True})
        | {"b.json": labelme(shape(POINTS, description="", mask=None), imagePath="b.jpg"), "b.jpg": Photo(shade=9)},
        {"a.jpg": [], "b.jpg": [CAT_MASK]},
    ),
    "X-AnyLabeling: scores, difficult, attributes and chats": Case(
        one(
            shape(POINTS, score=0.9, difficult=True, attributes={"color": "red"}, kie_linking=[], description=None),
            version="3.2.1",
            description="",
            vqaData={},
            chat_history=[],
        ),
        {"a.jpg": [CAT_MASK]},
    ),
    "X-AnyLabeling: a quadrilateral": Case(one(shape(POINTS, "quadrilateral")), {"a.jpg": [CAT_MASK]}),
    "labelme2coco.py: annotations.json and JPEGImages/": Case(
        {
            "annotations.json": {
                "info": {"description": None, "url": None, "version": None, "year": 2026, "contributor": None},
                "licenses": [{"url": None, "id": 0, "name": None}],
                "images": [
                    {
                        "license": 0,
                        "url": None,
                        "file_name": "JPEGImages/a.jpg",
                        "height": 80,
                        "width": 100,
                        "date_captured": None,
                        "id": 0,
                    }
                ],
                "type": "instances",
                "annotations": [
                    {
                        "id": 0,
                        "image_id": 0,
                        "category_id": 1,
                        "segmentation": [[10, 20, 40, 20, 40, 60, 10, 60]],
                        "area": 1200.0,
                        "bbox": [10.0, 20.0, 30.0, 40.0],
                        "iscrowd": 0,
                    }
                ],
                "categories": [
                    {"supercategory": None, "id": 0, "name": "_background_"},
                    {"supercategory": None, "id": 1, "name": "cat"},
                ],
            },
            "JPEGImages/a.jpg": Photo(),
            "Visualization/a.jpg": Photo(shade=9),
        },
        {"a.jpg": [CAT_MASK]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_labelme_s_files_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)
