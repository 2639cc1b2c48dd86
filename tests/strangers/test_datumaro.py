"""Datumaro's own JSON, and what it exports as COCO, YOLO and CVAT, as its release 1.13 and CVAT write them; each with
the reading that it means beside it.
"""

from __future__ import annotations

from typing import Any

import pytest
from pycocotools import mask as coco_mask

from models.data import read
from tests.strangers.data_cases import Case, Photo, thing
from tests.strangers.test_cvat import xml

CAT = thing("cat", 10, 20, 40, 60)
CAT_MASK = thing("cat", 10, 20, 40, 60, 1200)
HOLE = thing("dog", 10, 20, 40, 60, 1000)
SQUARE = [10.0, 20.0, 40.0, 20.0, 40.0, 60.0, 10.0, 60.0]
# Column by column: 30 columns of 40 pixels, of which 10 have a hole of 20.
HOLE_RUNS = [820, *[40, 40] * 10, *[10, 20, 10, 40] * 10, *[40, 40] * 9, 40, 4820]
LINE = "0 0.25 0.5 0.3 0.5\n"


def bbox(**changes: Any) -> dict[str, Any]:
    plain = {"id": 1, "type": "bbox", "attributes": {}, "group": 1, "label_id": 0, "z_order": 0}
    return plain | {"bbox": [10.0, 20.0, 30.0, 40.0]} | changes


def outline(points: list[float], **changes: Any) -> dict[str, Any]:
    plain = {"id": 2, "type": "polygon", "attributes": {}, "group": 2, "label_id": 0, "points": points, "z_order": 0}
    return plain | changes


def item(*annotations: Any, name: str = "a", **changes: Any) -> dict[str, Any]:
    plain = {"id": name, "annotations": list(annotations), "image": {"path": f"{name}.jpg", "size": [80, 100]}}
    return plain | changes


def datumaro(*items: Any, **changes: Any) -> dict[str, Any]:
    labels = [{"name": name, "parent": "", "attributes": []} for name in ("cat", "dog")]
    top = {"dm_format_version": "1.0", "media_type": 2, "infos": {}}
    categories = {"label": {"labels": labels, "label_groups": [], "attributes": []}}
    return top | {"categories": categories, "items": list(items)} | changes


def one(*annotations: Any, **changes: Any) -> dict[str, Any]:
    return {"annotations/train.json": datumaro(item(*annotations, **changes)), "images/train/a.jpg": Photo()}


CATEGORIES = {"label": {"labels": [{"name": name} for name in ("dog", "cat", "bird")]}}
MASK = {"id": 3, "type": "mask", "attributes": {}, "group": 3, "label_id": 1, "z_order": 0}
LEFT, RIGHT = [10, 20, 20, 20, 20, 60, 10, 60], [30, 20, 40, 20, 40, 60, 30, 60]


def str_counts() -> str:
    """The runs as COCO's text."""
    return coco_mask.frPyObjects({"counts": HOLE_RUNS, "size": [80, 100]}, 80, 100)["counts"].decode("ascii")


def coco(annotations: list[Any]) -> dict[str, Any]:
    categories = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog", "supercategory": ""}]
    images = [{"id": 1, "width": 100, "height": 80, "file_name": "a.jpg"}]
    return {"images": images, "annotations": annotations, "categories": categories}


ALL_KINDS = Case(
    one(
        bbox(attributes={"rotation": 30.0}),
        outline(LEFT),
        outline(RIGHT, id=5),
        MASK | {"rle": {"counts": HOLE_RUNS, "size": [80, 100]}},
        {"id": 8, "type": "ellipse", "label_id": 1, "group": 0, "points": [40.0, 32.0, 60.0, 48.0]},
        {"id": 9, "type": "points", "label_id": 0, "points": [1.0, 1.0], "group": 9},
    )
)
CASES = {
    "its JSON: a box, a polygon, and photos without objects": Case(
        {
            "annotations/train.json": datumaro(item(bbox(label_id=1), outline(SQUARE)), item(name="b")),
            "images/train/a.jpg": Photo(),
            "images/train/b.jpg": Photo(shade=9),
        },
        {"a.jpg": [thing("dog", 10, 20, 40, 60), CAT_MASK], "b.jpg": []},
    ),
    "its JSON: a mask with a hole": Case(
        one(MASK | {"rle": {"counts": HOLE_RUNS, "size": [80, 100]}}), {"a.jpg": [HOLE]}
    ),
    "its JSON: the box and the mask of an object, as it reads them from COCO": Case(
        one(
            bbox(bbox=[9.0, 18.0, 33.0, 44.0], group=3, label_id=1),
            MASK | {"rle": {"counts": HOLE_RUNS, "size": [80, 100]}},
            bbox(bbox=[9.0, 18.0, 33.0, 44.0], group=3),  # of the other class
        ),
        {"a.jpg": [thing("dog", 9, 18, 42, 62, 1000), thing("cat", 9, 18, 42, 62)]},
        noted=("1 boxes are those of the masks in their groups",),
    ),
    "its JSON: two polygons of a group are one object": Case(
        one(outline(LEFT), outline(RIGHT, id=5), outline([50, 10, 70, 10, 70, 30, 50, 30], group=0, label_id=1)),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 800), thing("dog", 50, 10, 70, 30, 400)]},
    ),
    "its JSON: a crowd": Case(
        one(outline(SQUARE, attributes={"is_crowd": True})), {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200, True)]}
    ),
    "its JSON: points, lines, captions and labels of images": Case(
        one(
            bbox(),
            {"id": 8, "type": "points", "label_id": 0, "points": [1.0, 1.0], "visibility": [2], "group": 8},
            {"id": 9, "type": "polyline", "label_id": 0, "points": [1.0, 1.0, 2.0, 2.0], "group": 9},
            {"id": 0, "type": "label", "label_id": 1, "group": 0},
            {"id": 0, "type": "caption", "caption": "A cat.", "group": 0},
        ),
        {"a.jpg": [CAT]},
        noted=("type points ", "type polyline ", "type label ", "type caption "),
    ),
    "its JSON: a turned box and an ellipse": Case(
        one(
            {
                "id": 1,
                "type": "rotated_bbox",
                "label_id": 0,
                "group": 0,
                "rotated_bbox": [25.0, 40.0, 40.0, 30.0, 90.0],
            },
            {"id": 2, "type": "ellipse", "label_id": 1, "group": 0, "points": [40.0, 32.0, 60.0, 48.0]},
        ),
        {"a.jpg": [CAT_MASK, thing("dog", 40, 32, 60, 48, 254)]},
        noted=("turned boxes", "ellipses"),
    ),
    "its JSON: an item of a label that is not there, and a bad box": Case(
        one(bbox(label_id=7), bbox(bbox=[1, 2, 3]), bbox()),
        {"a.jpg": [CAT]},
        bad=("label_id: expected one of the 2 labels, found 7", r"bbox: expected \[x, y, width, height\]"),
    ),
    "CVAT's Datumaro 1.0: annotations/default.json": Case(
        {
            "annotations/default.json": datumaro(
                item(
                    bbox(attributes={"occluded": False, "rotation": 0.0, "keyframe": False}, group=0),
                    MASK | {"rle": {"counts": str_counts(), "size": [80, 100]}, "group": 0},
                    name="day 1/a",
                    attr={"frame": 0},
                    point_cloud={"path": ""},
                ),
                info={},
            ),
            "images/default/day 1/a.jpg": Photo(),
        },
        {"a.jpg": [CAT, HOLE]},
    ),
    "its JSON: photos of one name, whose folders are in the ids": Case(
        {
            "annotations/train.json": datumaro(
                item(bbox(), name="day 2/a", image={"path": "a.jpg", "size": [80, 100]}),
            ),
            "images/train/day 1/a.jpg": Photo(9, 9),
            "images/train/day 2/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "its JSON: two subsets, and no word which": Case(
        {f"annotations/{part}.json": datumaro(item(bbox())) for part in ("train", "val")},
        bad=("several.*name one of them",),
    ),
    # what it exports
    "COCO: ids of annotations begin anew in each image, masks are crowds": Case(
        {
            "annotations/instances_train.json": {
                "licenses": [{"name": "", "id": 0, "url": ""}],
                "categories": [
                    {"id": 1, "name": "cat", "supercategory": ""},
                    {"id": 2, "name": "dog", "supercategory": ""},
                ],
                "images": [
                    {"id": 2, "width": 100, "height": 80, "file_name": "a.jpg", "license": 0, "date_captured": 0},
                    {"id": 3, "width": 100, "height": 80, "file_name": "sub/c d.jpg", "license": 0, "date_captured": 0},
                ],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 2,
                        "category_id": 1,
                        "segmentation": [],
                        "bbox": [10.0, 20.0, 30.0, 40.0],
                        "iscrowd": 0,
                    },
                    {
                        "id": 3,
                        "image_id": 2,
                        "category_id": 2,
                        "bbox": [10.0, 20.0, 30.0, 40.0],
                        "iscrowd": 1,
                        "segmentation": {"counts": HOLE_RUNS, "size": [80, 100]},
                    },
                    {
                        "id": 1,
                        "image_id": 3,
                        "category_id": 1,
                        "segmentation": [SQUARE],
                        "bbox": [10.0, 20.0, 30.0, 40.0],
                        "iscrowd": 0,
                    },
                ],
            },
            "images/train/a.jpg": Photo(),
            "images/train/sub/c d.jpg": Photo(shade=9),
        },
        {"a.jpg": [CAT, thing("dog", 10, 20, 40, 60, 1000, True)], "c d.jpg": [CAT_MASK]},
        noted=("--crowds as-objects", "id: expected each id once"),
    ),
    "COCO: image_info, labels, stuff and panoptic beside the instances": Case(
        {
            "annotations/instances_default.json": coco(
                [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}]
            ),
            "annotations/image_info_default.json": coco([]) | {"categories": []},
            "annotations/labels_default.json": coco([{"id": 1, "image_id": 1, "category_id": 2}]),
            "annotations/stuff_default.json": coco([{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 1, 2, 2]}]),
            "annotations/panoptic_default.json": coco([]),
            "annotations/panoptic_default/a.png": Photo(),
            "images/default/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=(
            "image_info_default.json.*not read",
            "labels_default.json.*not read",
            "stuff_default.json.*not read",
            "panoptic_default.json.*not read",
        ),
    ),
    "YOLO: a folder for each subset, data/ in the lists": Case(
        {
            "obj.data": "classes = 2\nval = data/val.txt\ntrain = data/train.txt\nnames = data/obj.names\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/sub/c d.jpg\ndata/obj_train_data/x.y.jpg\n",
            "val.txt": "data/obj_val_data/b.jpg\n",
            "obj_train_data/sub/c d.jpg": Photo(),
            "obj_train_data/sub/c d.txt": LINE,
            "obj_train_data/x.y.jpg": Photo(),
            "obj_train_data/x.y.txt": "",
            "obj_val_data/b.jpg": Photo(),
            "obj_val_data/b.txt": LINE,
        },
        {"x.y.jpg": [], "c d.jpg": [CAT], "b.jpg": [CAT]},
    ),
    "CVAT: masks of the whole image, a file for the subset": Case(
        {
            "train.xml": xml(
                '<mask label="dog" occluded="0" rle="'
                + ", ".join(map(str, [2010, *[30, 70] * 10, *[10, 10, 10, 70] * 20, *[30, 70] * 9, 30, 2060]))
                + '" left="0" top="0" width="100" height="80" z_order="0" group_id="3"></mask>',
                image='id="1" name="sub/c d.jpg" width="100" height="80"',
            ).replace("</labels>", "<label><name>dog</name></label></labels>"),
            "images/sub/c d.jpg": Photo(),
        },
        {"c d.jpg": [HOLE]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_datumaro_s_files_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)


def test_the_classes_are_in_the_order_of_the_labels(tmp_path):
    dataset, _ = read(
        Case({"train.json": datumaro(item(bbox()), categories=CATEGORIES), "a.jpg": Photo()}).lay(tmp_path)
    )
    assert dataset.class_names == ("dog", "cat", "bird")
