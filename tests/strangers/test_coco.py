"""COCO files as COCO itself, CVAT, Label Studio, Roboflow, FiftyOne, Datumaro, pandas, spreadsheets and programs on
Windows write them; by the tool, each with the reading that it means beside it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
SQUARE = [10, 20, 40, 20, 40, 60, 10, 60]
CAT_MASK = thing("cat", 10, 20, 40, 60, 1200)
DOG = thing("dog", 50, 10, 70, 30)
CATEGORIES = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog", "supercategory": ""}]


def entry(**changes: Any) -> dict[str, Any]:
    """A cat's annotation."""
    plain = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0}
    return plain | changes


DOG_ENTRY = entry(id=2, category_id=2, bbox=[50, 10, 20, 20], area=400)


def image(name: str = "a.jpg", **changes: Any) -> dict[str, Any]:
    return {"id": 1, "file_name": name, "width": 100, "height": 80} | changes


def coco(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"images": [image()], "annotations": list(annotations), "categories": CATEGORIES} | changes


def one(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The file and its photo."""
    return {"instances.json": coco(*annotations, **changes), "a.jpg": Photo()}


RLE = {"size": [80, 100], "counts": [820, 40] + [40, 40] * 29 + [8000 - 820 - 40 - 80 * 29]}  # the cat, by columns

CASES = {
    # COCO's own
    "COCO: a box of height 0 among others": Case(
        one(entry(), entry(id=2, bbox=[296.65, 30, 1.13, 0])), {"a.jpg": [CAT]}, noted=("empty.*left out",)
    ),
    "COCO: only boxes without a height": Case(
        one(entry(bbox=[1, 2, 3, 0])),
        {"a.jpg": []},
        noted=("left out",),
        bad=("all 1 boxes have no width or no height",),
    ),
    "COCO: captions and keypoints beside instances": Case(
        {
            "annotations/instances_val2017.json": coco(entry()),
            "annotations/captions_val2017.json": {
                "images": [image()],
                "annotations": [{"id": 1, "image_id": 1, "caption": "A cat."}],
            },
            "annotations/person_keypoints_val2017.json": coco(entry(num_keypoints=0, keypoints=[0] * 51)),
            "val2017/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=("captions_val2017.json.*not read", "person_keypoints_val2017.json.*not read"),
    ),
    "COCO: the captions file alone": Case(
        {
            "captions_val2017.json": {
                "images": [image()],
                "annotations": [{"id": 1, "image_id": 1, "caption": "A cat."}],
            }
        },
        bad=("captions, which have no boxes: take the instances file",),
        at="captions_val2017.json",
    ),
    "COCO: val2017/ beside annotations/": Case(
        {
            "annotations/instances_val2017.json": coco(entry()),
            "val2017/a.jpg": Photo(),
            "train2017/a.jpg": Photo(50, 50),
        },
        {"a.jpg": [CAT]},
    ),
    "COCO: a crowd of runs": Case(
        one(
            *[entry(id=index, bbox=[index, 1, 20, 20]) for index in range(1, 31)],
            entry(id=99, iscrowd=1, segmentation=RLE),
        ),
        {"a.jpg": [*[thing("cat", n, 1, n + 20, 21) for n in range(1, 31)], thing("cat", 10, 20, 40, 60, 1200, True)]},
    ),
    "COCO: photos in images/<subset>/": Case(
        {
            "annotations/instances_Train.json": coco(entry()),
            "images/Train/a.jpg": Photo(),
            "images/Test/a.jpg": Photo(9, 9),
        },
        {"a.jpg": [CAT]},
    ),
    # polygons
    "polygons: 2e8 beside a good object": Case(
        one(entry(segmentation=[[10, 20, 2e8, 20, 40, 60]]), DOG_ENTRY),
        {"a.jpg": [DOG]},
        bad=("segmentation.*at most 1000000 pixels",),
    ),
    "polygons: 1e300 beside a good object": Case(
        one(entry(segmentation=[[10, 20, 1e300, 20, 40, 60]]), DOG_ENTRY),
        {"a.jpg": [DOG]},
        bad=("segmentation.*at most",),
    ),
    "a box of 1e300": Case(one(entry(bbox=[1, 1, 1e300, 4]), DOG_ENTRY), {"a.jpg": [DOG]}, bad=("bbox.*at most",)),
    "polygons: a part of two points": Case(
        one(entry(segmentation=[SQUARE, [1, 1, 5, 5]])), {"a.jpg": [CAT_MASK]}, noted=("2: this part is left out",)
    ),
    "polygons: a part of one point alone": Case(
        one(entry(segmentation=[[1, 1]])), {"a.jpg": [CAT]}, noted=("1: this part is left out",)
    ),
    "polygons: [[]]": Case(one(entry(segmentation=[[]])), {"a.jpg": [CAT]}, noted=("left out",)),
    "polygons: flat": Case(one(entry(segmentation=SQUARE)), {"a.jpg": [CAT_MASK]}),
    "polygons: pairs": Case(one(entry(segmentation=[[10, 20], [40, 20], [40, 60], [10, 60]])), {"a.jpg": [CAT_MASK]}),
    "polygons: parts of pairs": Case(
        one(entry(segmentation=[[[10, 20], [40, 20], [40, 60], [10, 60]]])), {"a.jpg": [CAT_MASK]}
    ),
    "polygons: {}": Case(one(entry(segmentation={})), {"a.jpg": [CAT]}),
    "polygons: an empty text": Case(one(entry(segmentation="")), {"a.jpg": [CAT]}),
    "polygons: null": Case(one(entry(segmentation=None)), {"a.jpg": [CAT]}),
    "polygons without a box": Case(one(entry(segmentation=[SQUARE], bbox=[])), {"a.jpg": [CAT_MASK]}),
    # fractions
    "fractions of the size": Case(
        one(entry(bbox=[0.1, 0.25, 0.3, 0.5])), {"a.jpg": []}, bad=("are these fractions.*--normalized",)
    ),
    "fractions, where they are asked for": Case(
        one(entry(bbox=[0.1, 0.25, 0.3, 0.5])), {"a.jpg": [CAT]}, options={"normalized": True}
    ),
    "a thousand fractions are said once": Case(
        one(*[entry(id=n, bbox=[0.1, 0.25, 0.3, n / 2000]) for n in range(1, 1001)]),
        {"a.jpg": []},
        bad=("every bbox.*--normalized",),
    ),
    # CVAT
    "CVAT: every brush mask is a crowd": Case(
        one(entry(iscrowd=1, segmentation=RLE, attributes={"occluded": False})),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200, True)]},
        noted=("--crowds as-objects",),
    ),
    "CVAT: brush masks as objects": Case(
        one(entry(iscrowd=1, segmentation=RLE)), {"a.jpg": [CAT_MASK]}, options={"crowds": "as-objects"}
    ),
    "CVAT: its COCO export, ids from 1 and ten more fields": Case(
        {
            "annotations/instances_default.json": coco(
                entry(segmentation=[SQUARE], attributes={"occluded": False, "rotation": 0.0}),
                licenses=[{"name": "", "id": 0, "url": ""}],
                info={"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
                images=[image(license=0, flickr_url="", coco_url="", date_captured=0)],
            ),
            "images/default/a.jpg": Photo(),
        },
        {"a.jpg": [CAT_MASK]},
    ),
    "CVAT: a turned box, whose bbox is that before its turn": Case(
        one(entry(segmentation=[], attributes={"occluded": False, "rotation": 90.0}), DOG_ENTRY),
        {"a.jpg": [thing("cat", 5, 25, 45, 55, 1200), DOG]},
        noted=("1 turned boxes are read as polygons of four corners",),
    ),
    "an attribute of one's own that is called rotation": Case(
        one(
            entry(attributes={"rotation": "left"}),
            DOG_ENTRY | {"segmentation": [[1, 1, 9, 1, 9, 9]], "attributes": {"rotation": 30.0}},
        ),
        {"a.jpg": [CAT, thing("dog", *DOG[1], 28)]},
    ),
    # Label Studio
    "Label Studio: the same object as a box and as a mask": Case(
        one(entry(), entry(id=2, segmentation=[SQUARE]), DOG_ENTRY | {"id": 3}),
        {"a.jpg": [CAT_MASK, DOG]},
        noted=("1 box is there again as a mask",),
    ),
    "Label Studio: its COCO export, ids from 0 and backslashes": Case(
        {
            "result.json": {
                "images": [image("images\\3f2a-a.jpg", id=0)],
                "categories": [{"id": 0, "name": "cat"}],
                "annotations": [
                    entry(id=0, image_id=0, category_id=0, segmentation=[], ignore=0, bbox=[10.0, 20.0, 30.0, 40.0])
                ],
                "info": {"year": 2026, "version": "1.0", "contributor": "Label Studio"},
            },
            "images/3f2a-a.jpg": Photo(),
        },
        {"3f2a-a.jpg": [CAT]},
    ),
    # Roboflow
    "Roboflow: train/_annotations.coco.json, whose category 0 is everyone's supercategory": Case(
        {
            "train/_annotations.coco.json": coco(
                entry(),
                categories=[
                    {"id": 0, "name": "pets", "supercategory": "none"},
                    {"id": 1, "name": "cat", "supercategory": "pets"},
                ],
                images=[image("a_jpg.rf.0a1b.jpg", extra={"name": "a.jpg"})],
            ),
            "train/a_jpg.rf.0a1b.jpg": Photo(),
            "README.roboflow.txt": "pets - v1",
        },
        {"a_jpg.rf.0a1b.jpg": [CAT]},
        noted=("'pets' is the others' supercategory",),
    ),
    "Roboflow: three parts, and no word which": Case(
        {f"{part}/_annotations.coco.json": coco(entry()) for part in ("train", "valid", "test")},
        bad=("several.*name one of them",),
    ),
    "Roboflow: a category 0 that has objects stays": Case(
        one(
            entry(category_id=0),
            categories=[
                {"id": 0, "name": "cat", "supercategory": "none"},
                {"id": 1, "name": "kitten", "supercategory": "cat"},
            ],
        ),
        {"a.jpg": [CAT]},
    ),
    "Roboflow: a box as text": Case(one(entry(bbox=["10", "20", "30", "40"])), {"a.jpg": [CAT]}),
    # FiftyOne
    "FiftyOne: labels.json beside data/": Case(
        {
            "labels.json": coco(
                entry(segmentation=[SQUARE], supercategory=None, iscrowd=0),
                categories=[{"id": 1, "name": "cat", "supercategory": None}],
                images=[image(license=None, coco_url=None)],
                info={"year": "", "version": "", "contributor": ""},
                licenses=[],
            ),
            "data/a.jpg": Photo(),
        },
        {"a.jpg": [CAT_MASK]},
    ),
    "FiftyOne: absolute paths of another machine": Case(
        {
            "labels.json": coco(entry(), images=[image("/home/ann/fiftyone/quickstart/data/a.jpg")]),
            "data/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=("found by name",),
    ),
    "FiftyOne: without segmentation, area and iscrowd": Case(
        one({"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}), {"a.jpg": [CAT]}
    ),
    # Datumaro
    "Datumaro: annotations/instances_default.json beside images/default/": Case(
        {
            "annotations/instances_default.json": coco(
                entry(segmentation=[SQUARE]), images=[image("sub/a.jpg", license=0, date_captured=0)]
            ),
            "images/default/sub/a.jpg": Photo(),
        },
        {"a.jpg": [CAT_MASK]},
    ),
    "Datumaro: a group of parts as runs that are text": Case(
        one(entry(segmentation={"size": [80, 100], "counts": RLE["counts"]}, bbox=[10.0, 20.0, 30.0, 40.0])),
        {"a.jpg": [CAT_MASK]},
    ),
    # pandas and spreadsheets
    "pandas: ids as text here and numbers there": Case(one(entry(image_id="1", category_id="1")), {"a.jpg": [CAT]}),
    "pandas: ids as text in images and categories": Case(
        one(
            entry(),
            images=[image(id="1")],
            categories=[{"id": "1", "name": "cat"}, {"id": "2", "name": "dog"}],
        ),
        {"a.jpg": [CAT]},
    ),
    "pandas: 1.0 for every whole number": Case(
        one(
            entry(id=1.0, image_id=1.0, category_id=1.0, iscrowd=0.0, bbox=[10.0, 20.0, 30.0, 40.0]),
            images=[image(id=1.0, width=100.0, height=80.0)],
        ),
        {"a.jpg": [CAT]},
    ),
    "pandas: NaN where nothing was": Case(
        one(entry(segmentation=float("nan"), iscrowd=float("nan"), area=float("nan"))), {"a.jpg": [CAT]}
    ),
    "a spreadsheet: lists as their text": Case(
        one(entry(bbox="[10, 20, 30, 40]", segmentation=str([SQUARE]))), {"a.jpg": [CAT_MASK]}
    ),
    "a spreadsheet: decimals after a comma": Case(
        one(entry(bbox=["10,5", "20", "30", "40"]), DOG_ENTRY), {"a.jpg": [DOG]}, bad=("decimals after a point",)
    ),
    'a spreadsheet: "0" and "true" for flags': Case(
        one(entry(iscrowd="0"), DOG_ENTRY | {"iscrowd": "true"}),
        {"a.jpg": [CAT, thing("dog", 50, 10, 70, 30, crowd=True)]},
    ),
    "sizes of 0": Case(one(entry(), images=[image(width=0, height=0)]), {"a.jpg": [CAT]}),
    "sizes that are missing": Case(one(entry(), images=[{"id": 1, "file_name": "a.jpg"}]), {"a.jpg": [CAT]}),
    "sizes as text": Case(one(entry(), images=[image(width="100", height="80")]), {"a.jpg": [CAT]}),
    "an image of a category that is not there": Case(
        one(entry(category_id=7), DOG_ENTRY), {"a.jpg": [DOG]}, bad=("category_id: expected the id of a category",)
    ),
    # Windows
    "Windows: backslashes": Case(
        {"coco.json": coco(entry(), images=[image("images\\sub\\a.jpg")]), "images/sub/a.jpg": Photo()},
        {"a.jpg": [CAT]},
    ),
    "Windows: a drive's path": Case(
        {"coco.json": coco(entry(), images=[image("C:\\Users\\Ann\\data\\a.jpg")]), "images/a.jpg": Photo()},
        {"a.jpg": [CAT]},
        noted=("found by name",),
    ),
    "Windows: another case and suffix": Case(
        {"coco.json": coco(entry(), images=[image("A.JPG")]), "images/a.jpeg": Photo()},
        {"a.jpeg": [CAT]},
        noted=("found by name",),
    ),
    "Windows: UTF-8 with a mark": Case(
        {"coco.json": b"\xef\xbb\xbf" + json.dumps(coco(entry())).encode(), "a.jpg": Photo()},
        {"a.jpg": [CAT]},
    ),
    "Windows: UTF-16 of PowerShell": Case(
        {"coco.json": json.dumps(coco(entry())).encode("utf-16"), "a.jpg": Photo()}, {"a.jpg": [CAT]}
    ),
    # blob stores, archives, photos
    "a blob's percent-encoded name": Case(
        {"coco.json": coco(entry(), images=[image("my%20cat%23.jpg")]), "my cat#.jpg": Photo()}, {"my cat#.jpg": [CAT]}
    ),
    "macOS: companions in an archive": Case(
        {
            "coco.json": coco(entry()),
            "._coco.json": b"\0\5\x16\7",
            "__MACOSX/._a.jpg": b"\0\5\x16\7",
            ".ipynb_checkpoints/coco-checkpoint.json": coco(),
            "images/._a.jpg": b"\0\5\x16\7",
            "images/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "photos called .jfif": Case(
        {"coco.json": coco(entry(), images=[image("a.jpg")]), "images/a.jfif": Photo()}, {"a.jfif": [CAT]}
    ),
    "photos called .jpe": Case(
        {"coco.json": coco(entry(), images=[image("a.jpe", width=0)]), "images/a.jpe": Photo()}, {"a.jpe": [CAT]}
    ),
    "photos that are not there are said once": Case(
        {"coco.json": coco(images=[image(f"{n}.jpg", id=n) for n in range(30)])},
        {f"{n}.jpg": [] for n in range(30)},
        noted=("30 images were not found.*--images-root",),
        lost=True,
    ),
    "photos that are not there, without sizes, are said once": Case(
        {"coco.json": coco(images=[{"id": n, "file_name": f"{n}.jpg"} for n in range(3)])},
        bad=("0.jpg is missing", "1.jpg is missing", "2.jpg is missing"),
        noted=("3 images were not found.*--images-root",),
        lost=True,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_coco_files_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)
