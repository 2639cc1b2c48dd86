"""Supervisely's projects, and its COCO export; each with the reading that it means beside it."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import pytest
from PIL import Image

from models.data import read
from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
SQUARE = [[10, 20], [40, 20], [40, 60], [10, 60]]
META = {
    "classes": [
        {"title": "dog", "shape": "any", "color": "#FF0000", "geometry_config": {}, "id": 7, "hotkey": ""},
        {"title": "cat", "shape": "rectangle", "color": "#00FF00", "geometry_config": {}, "id": 8, "hotkey": ""},
    ],
    "tags": [],
    "projectType": "images",
}


def thing_of(kind: str, **geometry: Any) -> dict[str, Any]:
    plain = {"id": 1, "classId": 8, "description": "", "geometryType": kind, "labelerLogin": "ann", "tags": []}
    return plain | {"classTitle": "cat"} | geometry


def rectangle(**changes: Any) -> dict[str, Any]:
    return thing_of("rectangle", points={"exterior": [[10, 20], [40, 60]], "interior": []}) | changes


def polygon(*interior: Any) -> dict[str, Any]:
    return thing_of("polygon", points={"exterior": SQUARE, "interior": list(interior)})


def picture(raw: bool = False) -> str:
    """The mask of 30 x 40 with a hole of 10 x 20, as the SDK packs it, or as a PNG that is not compressed again."""
    mask = Image.new("P", (30, 40), 1)
    mask.paste(0, (10, 10, 20, 30))
    mask.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    if raw:
        mask.convert("L").point(lambda value: value and 255).convert("RGBA").save(file, format="PNG")
    else:
        mask.save(file, format="PNG", transparency=0, optimize=0)
    return base64.b64encode(file.getvalue() if raw else zlib.compress(file.getvalue())).decode()


def bitmap(data: str, origin: Any = (10, 20)) -> dict[str, Any]:
    return thing_of("bitmap", bitmap={"data": data, "origin": list(origin)})


def annotation(*objects: Any, **changes: Any) -> dict[str, Any]:
    return {"description": "", "tags": [], "size": {"height": 80, "width": 100}, "objects": list(objects)} | changes


def one(*objects: Any, **changes: Any) -> dict[str, Any]:
    return {"meta.json": META, "ds0/ann/a.jpg.json": annotation(*objects, **changes), "ds0/img/a.jpg": Photo()}


CASES = {
    "a project: a rectangle and a polygon": Case(
        one(rectangle(), polygon() | {"classTitle": "dog"}), {"a.jpg": [CAT, thing("dog", 10, 20, 40, 60, 1200)]}
    ),
    "a rectangle, drawn from its lower right corner": Case(
        one(rectangle(points={"exterior": [[40, 60], [10, 20]], "interior": []})), {"a.jpg": [CAT]}
    ),
    "a polygon with a hole": Case(
        one(polygon([[20, 30], [30, 30], [30, 50], [20, 50]])), {"a.jpg": [thing("cat", 10, 20, 40, 60, 1000)]}
    ),
    "a bitmap, as the SDK packs it": Case(one(bitmap(picture())), {"a.jpg": [thing("cat", 10, 20, 40, 60, 1000)]}),
    "a bitmap that reaches out of the photo": Case(
        one(bitmap(picture(), (90, 20)), rectangle()), {"a.jpg": [CAT]}, bad=("bitmap: expected one within the image",)
    ),
    "a bitmap that is no picture": Case(
        one(bitmap("eJwB"), rectangle()), {"a.jpg": [CAT]}, bad=("bitmap.data: expected a picture",)
    ),
    "points, lines, graphs and cuboids": Case(
        one(
            rectangle(),
            thing_of("point", points={"exterior": [[1, 1]], "interior": []}),
            thing_of("line", points={"exterior": [[1, 1], [2, 2]], "interior": []}),
            thing_of("graph", nodes={"a": {"loc": [1, 1]}}),
        ),
        {"a.jpg": [CAT]},
        noted=("type point ", "type line ", "type graph "),
    ),
    "parts of one object, by their key": Case(
        one(polygon() | {"instance": "k"}, rectangle(instance="k")),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]},
        noted=("there again as a mask",),
    ),
    "two datasets, and one in another": Case(
        {
            "meta.json": META,
            "ds0/ann/a.jpg.json": annotation(rectangle()),
            "ds0/img/a.jpg": Photo(),
            "ds0/datasets/ds1/ann/b.jpg.json": annotation(),
            "ds0/datasets/ds1/img/b.jpg": Photo(shade=9),
            "ds2/ann/a.jpg.json": annotation(rectangle()),
            "ds2/img/a.jpg": Photo(shade=30),
        },
        {"a.jpg": [CAT], "b.jpg": []},
        noted=("3 datasets are read as one",),
    ),
    "one dataset without meta.json": Case(
        {"ann/a.png.json": annotation(rectangle()), "img/a.png": Photo()}, {"a.png": [CAT]}, at="."
    ),
    "a class that meta.json lacks, and an object without class": Case(
        one(rectangle(classTitle="bird"), rectangle(classTitle=None), rectangle()),
        {"a.jpg": [CAT]},
        bad=("expected a class of .*meta.json", "classTitle: expected text"),
    ),
    # its exports
    "COCO: runs as a list, boxes short by a pixel": Case(
        {
            "ds0/annotations/coco_instances.json": {
                "info": {"contributor": "Supervisely"},
                "licenses": [{"url": "None", "id": 0, "name": "None"}],
                "images": [
                    {
                        "license": "None",
                        "file_name": "a.jpg",
                        "url": "None",
                        "height": 80,
                        "width": 100,
                        "date_captured": "",
                        "id": 1,
                    }
                ],
                "annotations": [
                    {
                        "id": 1,
                        "segmentation": {"counts": [820, *[40, 40] * 29, 40, 4820], "size": [80, 100]},
                        "area": 1200.0,
                        "iscrowd": 0,
                        "image_id": 1,
                        "bbox": [10, 20, 29, 39],
                        "category_id": 1,
                    },
                ],
                "categories": [{"supercategory": "cat", "id": 1, "name": "cat"}],
            },
            "ds0/images/a.jpg": Photo(),
        },
        {"a.jpg": [thing("cat", 10, 20, 39, 59, 1200)]},
        at="ds0",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_supervisely_s_projects_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)


def test_the_classes_are_in_the_order_of_meta_json(tmp_path):
    dataset, _ = read(CASES["a project: a rectangle and a polygon"].lay(tmp_path))
    assert dataset.class_names == ("dog", "cat")
