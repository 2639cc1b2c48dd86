"""Label Studio's JSON exports, as its releases, its imports and spreadsheets leave them; each with the reading that it
means beside it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from models.data.parsing.brush import pack
from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
CAT_MASK = thing("cat", 10, 20, 40, 60, 1200)
BOX = {"x": 10, "y": 25, "width": 30, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
POINTS = [[10, 25], [40, 25], [40, 75], [10, 75]]


def region(value: dict[str, Any], kind: str = "rectanglelabels", **changes: Any) -> dict[str, Any]:
    sizes = {"original_width": 100, "original_height": 80, "image_rotation": 0}
    return {"id": "r1", "type": kind, "from_name": "label", "to_name": "image", "value": value, **sizes} | changes


def task(*results: Any, image: str = "/data/upload/1/0a1b2c3d-a.jpg", **changes: Any) -> dict[str, Any]:
    its = [{"id": 5, "was_cancelled": False, "ground_truth": False, "result": list(results)}]
    return {"id": 1, "data": {"image": image}, "annotations": its, "predictions": []} | changes


def one(*results: Any, **changes: Any) -> dict[str, Any]:
    return {"project-1.json": [task(*results, **changes)], "images/a.jpg": Photo()}


def polygon(points: Any) -> dict[str, Any]:
    return region({"points": points, "closed": True, "polygonlabels": ["cat"]}, "polygonlabels", id="r2")


FOUND = "found by name"
HOLE = np.zeros((80, 100), bool)
HOLE[20:60, 10:40] = True
HOLE[30:50, 20:30] = False

CASES = {
    "JSON: a rectangle of an upload": Case(one(region(BOX)), {"a.jpg": [CAT]}, noted=(FOUND,)),
    "JSON: local files": Case(one(region(BOX), image="/data/local-files/?d=images%2Fa.jpg"), {"a.jpg": [CAT]}),
    "JSON: local files of Windows": Case(
        one(region(BOX), image="/data/local-files/?d=images\\a.jpg"), {"a.jpg": [CAT]}
    ),
    "JSON: a polygon": Case(one(polygon(POINTS)), {"a.jpg": [CAT_MASK]}),
    "JSON: a polygon of two points beside a box": Case(
        one(region(BOX), polygon(POINTS[:2])), {"a.jpg": [CAT]}, bad=("expected at least 3 points",)
    ),
    "JSON: a rectangle and a polygon of one object": Case(
        one(region(BOX), polygon(POINTS)), {"a.jpg": [CAT_MASK]}, noted=("1 box is there again as a mask",)
    ),
    "JSON: 1e300 beside a box": Case(
        one(region(BOX), polygon([[10, 25], [1e300, 25], [40, 75]])), {"a.jpg": [CAT]}, bad=("at most 1000000",)
    ),
    "JSON: a turned rectangle": Case(
        one(region(BOX | {"rotation": 90})),
        {"a.jpg": [thing("cat", -30, 20, 10, 50, 300)]},
        noted=("turned rectangles are read as polygons",),
    ),
    "JSON: an ellipse": Case(
        one(region({"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "ellipselabels": ["cat"]}, "ellipselabels")),
        {"a.jpg": [thing("cat", 40, 32, 60, 48, 254)]},
        noted=("ellipses are read as polygons",),
    ),
    "JSON: a key point, and a choice": Case(
        one(
            region(BOX),
            region({"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["cat"]}, "keypointlabels", id="k"),
            {"id": "c", "type": "choices", "value": {"choices": ["indoor"]}},
        ),
        {"a.jpg": [CAT]},
        noted=("type keypointlabels.*left out", "type choices.*left out"),
    ),
    "JSON: skipped tasks and tasks of nobody": Case(
        {
            "p.json": [
                task(region(BOX)),
                task(id=2, annotations=[]),
                task(id=3, annotations=[{"was_cancelled": True, "result": []}]),
            ],
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=("1 tasks have no annotation", "1 tasks were skipped"),
    ),
    "JSON: predictions only": Case(
        {
            "p.json": [
                task(annotations=[], predictions=[{"model_version": "1", "score": 0.5, "result": [region(BOX)]}])
            ],
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=("no task has an annotation: the predictions are read",),
    ),
    "JSON: completions, before 1.0": Case(
        {
            "p.json": [{"id": 1, "data": {"image": "a.jpg"}, "completions": [{"id": 1, "result": [region(BOX)]}]}],
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "JSON-MIN": Case(
        {
            "p.json": [
                {
                    "image": "a.jpg",
                    "id": 1,
                    "label": [BOX | {"original_width": 100, "original_height": 80}],
                    "annotator": 1,
                }
            ],
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "JSON: a region without label": Case(
        one(region(BOX), region({**BOX, "rectanglelabels": []}, id="r9", x=1)),
        {"a.jpg": [CAT]},
        bad=("expected a label.*give it one in Label Studio",),
    ),
    "JSON: numbers as text": Case(one(region(BOX | {"x": "10", "rotation": "0"})), {"a.jpg": [CAT]}),
    "JSON: no original size": Case(one(region(BOX, original_width=None, original_height=None)), {"a.jpg": [CAT]}),
    "JSON: sizes of 0": Case(one(region(BOX, original_width=0, original_height=0)), {"a.jpg": [CAT]}),
    "JSON: a box of no height": Case(
        one(region(BOX), region(BOX | {"height": 0}, id="r3")), {"a.jpg": [CAT]}, noted=("empty.*left out",)
    ),
    "JSON: cloud storage": Case(one(region(BOX), image="s3://bucket/my/a.jpg"), bad=("--prefix s3://...=FOLDER",)),
    "JSON: cloud storage with its prefix": Case(
        one(region(BOX), image="s3://bucket/my/a.jpg"),
        {"a.jpg": [CAT]},
        options={"prefixes": {"s3://bucket/my": "images"}},
    ),
    "Windows: UTF-16 of PowerShell": Case(
        {"p.json": json.dumps([task(region(BOX))]).encode("utf-16"), "a.jpg": Photo()}, {"a.jpg": [CAT]}
    ),
    "macOS: companions": Case(one(region(BOX)) | {"._project-1.json": b"\0\5"}, {"a.jpg": [CAT]}),
    # several things in a task
    "JSON: a rectangle and a choice for it": Case(
        one(
            region(BOX),
            {
                "id": "r1",
                "type": "choices",
                "from_name": "pose",
                "to_name": "image",
                "value": {"x": 10, "y": 25, "width": 30, "height": 50, "choices": ["sitting"]},
            },
        ),
        {"a.jpg": [CAT]},
        noted=(FOUND,),
    ),
    "JSON: two images in a task": Case(
        one(region(BOX), region(BOX | {"x": 50}, id="r2", to_name="image2"), data={"image": "a.jpg", "image2": "b.jpg"})
        | {"images/b.jpg": Photo(shade=9)},
        bad=("regions of several images.*image, image2.*one image for each task",),
    ),
    "JSON: the pages of a task": Case(
        one(
            region(BOX, item_index=0),
            region(BOX | {"x": 50}, id="r2", item_index=1),
            data={"pages": ["a.jpg", "b.jpg"]},
        )
        | {"images/b.jpg": Photo(shade=9)},
        bad=("regions of several images.*one image for each task",),
    ),
    "JSON: a brush with a hole, as its SDK packs it": Case(
        one(region({"format": "rle", "rle": list(pack(HOLE)), "brushlabels": ["dog"]}, "brushlabels")),
        {"a.jpg": [thing("dog", 10, 20, 40, 60, 1000)]},
        noted=(FOUND,),
    ),
    # its exports
    "VOC export: Annotations/ of uploads": Case(
        {
            "Annotations/0a1b2c3d-a.xml": '<?xml version="1.0" encoding="utf-8"?>\n<annotation><folder>images</folder>'
            "<filename>0a1b2c3d-a.jpg</filename><owner><flickrid>NULL</flickrid><name>Label Studio</name></owner>"
            "<size><width>100</width><height>80</height><depth>3</depth></size><object><name>cat</name><bndbox>"
            "<xmin>10</xmin><ymin>20</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object></annotation>",
            "images/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=(FOUND,),
    ),
    "COCO export of brushes: contours through the pixels' centres": Case(
        {
            "result_coco.json": {
                "images": [
                    {
                        "id": 0,
                        "file_name": "0a1b2c3d-a.jpg",
                        "path": "/data/upload/1/0a1b2c3d-a.jpg",
                        "width": 100,
                        "height": 80,
                    }
                ],
                "annotations": [
                    {
                        "id": 0,
                        "image_id": 0,
                        "category_id": 1,
                        "area": 1131,
                        "bbox": [10, 20, 30, 40],
                        "segmentation": [[10, 20, 10, 59, 39, 59, 39, 20]],
                        "iscrowd": 0,
                        "annotator": "unknown",
                    }
                ],
                "categories": [{"id": 1, "name": "cat", "supercategory": "", "color": "#86fc52", "metadata": {}}],
                "info": {},
            },
            "images/0a1b2c3d-a.jpg": Photo(),
        },
        {"0a1b2c3d-a.jpg": [thing("cat", 10, 20, 40, 60, 1131)]},
    ),
    "COCO export: photos without the prefix of uploads": Case(
        {
            "result.json": {
                "images": [{"id": 0, "file_name": "images/0a1b2c3d-a.jpg", "width": 100, "height": 80}],
                "annotations": [
                    {"id": 0, "image_id": 0, "category_id": 0, "bbox": [10, 20, 30, 40], "segmentation": []}
                ],
                "categories": [{"id": 0, "name": "cat"}],
            },
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=(FOUND,),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_label_studio_s_exports_are_read_as_they_are_meant(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # where a prefix's folder starts
    CASES[name].check(tmp_path)
