"""Files of the VGG Image Annotator (VIA), versions 1 to 3, and its exports; each with the reading that it means beside
it.
"""

from __future__ import annotations

from typing import Any

import pytest

from models.data import read
from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
RECT = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 40}
POLYGON = {"name": "polygon", "all_points_x": [50, 70, 70, 50], "all_points_y": [10, 10, 30, 30]}
DOG = thing("dog", 50, 10, 70, 30, 400)


def region(shape: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def images(*regions: Any, name: str = "a.jpg", **changes: Any) -> dict[str, Any]:
    its = {"filename": name, "size": 1234, "regions": list(regions), "file_attributes": {}}
    return {f"{name}1234": its | changes}


def project(metadata: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {
        "_via_settings": {"ui": {}, "core": {"default_filepath": ""}, "project": {"name": "pets"}},
        "_via_img_metadata": metadata,
        "_via_attributes": {"region": attributes, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(metadata),
    }


KINDS = {"type": "dropdown", "description": "", "options": {"cat": "a cat", "dog": "a dog"}, "default_options": {}}
TWO = images(region(RECT, animal="cat"), region(POLYGON, animal="dog"))

CASES = {
    "VIA 2: a project": Case({"via_project.json": project(TWO, animal=KINDS), "a.jpg": Photo()}, {"a.jpg": [CAT, DOG]}),
    "VIA 2: a project with other options": Case(
        {
            "via_project.json": project(
                images(region(RECT, animal="cat"), region(POLYGON, animal="bird")),
                animal={"type": "radio", "options": {"dog": "", "cat": ""}, "default_options": {}},
            ),
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT, thing("bird", 50, 10, 70, 30, 400)]},
    ),
    "VIA 2: annotations as JSON": Case({"via_export_json.json": TWO, "images/a.jpg": Photo()}, {"a.jpg": [CAT, DOG]}),
    "VIA 2: a project with a path of another machine": Case(
        {
            "via_project.json": project(
                images(region(RECT, animal="cat"), name="C:\\Users\\Ann\\pets\\a.jpg"), animal=KINDS
            ),
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=("found by name",),
    ),
    "VIA 2: circles, turned ellipses, points and lines": Case(
        {
            "via.json": images(
                region({"name": "circle", "cx": 50, "cy": 40, "r": 10}, animal="cat"),
                region(
                    {"name": "ellipse", "cx": 50, "cy": 40, "rx": 10, "ry": 8, "theta": 1.5707963267948966},
                    animal="cat",
                ),
                region({"name": "point", "cx": 5, "cy": 6}, animal="cat"),
                region({"name": "polyline", "all_points_x": [1, 2], "all_points_y": [1, 2]}, animal="cat"),
                region(RECT, animal="cat"),
            ),
            "a.jpg": Photo(),
        },
        {"a.jpg": [thing("cat", 40, 30, 60, 50, 317), thing("cat", 42, 30, 58, 50, 253), CAT]},
        noted=("circles are read as polygons", "ellipses are read as polygons", "type point ", "type polyline "),
    ),
    "VIA 2: classes that are numbers": Case(
        {"via.json": images(region(RECT, track=320)), "a.jpg": Photo()}, {"a.jpg": [thing("320", 10, 20, 40, 60)]}
    ),
    "VIA 2: a checkbox": Case(
        {"via.json": images(region(RECT, animal={"cat": True, "dog": False})), "a.jpg": Photo()}, {"a.jpg": [CAT]}
    ),
    "VIA 2: photos without regions": Case(
        {
            "via.json": images() | images(region(RECT, animal="cat"), name="b.jpg"),
            "a.jpg": Photo(),
            "b.jpg": Photo(shade=9),
        },
        {"a.jpg": [], "b.jpg": [CAT]},
    ),
    "VIA 2: several attributes, of which one is called class": Case(
        {"via.json": images(region(RECT, color="red", **{"class": "cat"})), "a.jpg": Photo()},
        {"a.jpg": [CAT]},
        noted=("attributes color, class: .*'class' is read",),
    ),
    "VIA 2: several attributes, and no word which is the class": Case(
        {"via.json": images(region(RECT, color="red", size="big")), "a.jpg": Photo()},
        bad=("color, size.*call the one that is the class `class`",),
    ),
    "VIA 2: a region without class among others, and a shape that is cut off": Case(
        {
            "via.json": images(
                region(RECT, animal="cat"),
                region(POLYGON, animal=""),
                region({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, animal="cat"),
            ),
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        bad=(r"regions\[1\].*animal: expected text", r"regions\[2\].*all_points_y: expected 3"),
    ),
    "VIA 1: regions by number, no attributes (the balloons)": Case(
        {
            "train/via_region_data.json": {
                "a.jpg1234": {
                    "fileref": "",
                    "size": 1234,
                    "filename": "a.jpg",
                    "base64_img_data": "",
                    "file_attributes": {},
                    "regions": {"0": region(POLYGON), "1": region(RECT)},
                }
            },
            "train/a.jpg": Photo(),
        },
        {"a.jpg": [thing("object", 50, 10, 70, 30, 400), thing("object", 10, 20, 40, 60)]},
        noted=("no region has a class.*'object'",),
    ),
    # its exports
    "COCO: corners of a rectangle, and a point without box": Case(
        {
            "via_coco.json": {
                "info": {"description": "VIA project exported to COCO format"},
                "images": [
                    {
                        "id": 1,
                        "width": 100,
                        "height": 80,
                        "file_name": "a.jpg",
                        "license": 0,
                        "flickr_url": "a.jpg",
                        "coco_url": "a.jpg",
                    }
                ],
                "annotations": [
                    {
                        "segmentation": [[10, 20, 40, 20, 40, 60, 10, 60]],
                        "area": 1200,
                        "bbox": [10, 20, 30, 40],
                        "iscrowd": 0,
                        "id": 1,
                        "image_id": 1,
                        "category_id": 1,
                    },
                    {
                        "segmentation": [[]],
                        "area": [],
                        "bbox": [],
                        "iscrowd": 0,
                        "keypoints": [5, 6, 2],
                        "num_keypoints": 1,
                        "id": 5,
                        "image_id": 1,
                        "category_id": 1,
                    },
                ],
                "licenses": [{"id": 0, "name": "Unknown License", "url": ""}],
                "categories": [{"supercategory": "animal", "id": 1, "name": "cat"}],
            },
            "a.jpg": Photo(),
        },
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]},
        noted=("1 annotations have keypoints, and no box or mask: left out",),
    ),
    "CSV": Case(
        {
            "via_export.csv": "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes\n",
            "a.jpg": Photo(),
        },
        bad=("via_export.csv.*table.*export COCO",),
    ),
    "VIA 3: a project": Case(
        {
            "via_project.json": {
                "project": {"pid": "__VIA_PROJECT_ID__", "rev": "__VIA_PROJECT_REV_ID__", "pname": "pets"},
                "config": {"file": {"loc_prefix": {"1": ""}}, "ui": {}},
                "attribute": {"1": {"aname": "animal", "type": 4, "options": {"cat": ""}}},
                "file": {"1": {"fid": "1", "fname": "a.jpg", "type": 2, "loc": 1, "src": ""}},
                "metadata": {"1_x": {"vid": "1", "flg": 0, "z": [], "xy": [2, 10, 20, 30, 40], "av": {"1": "cat"}}},
                "view": {"1": {"fid_list": ["1"]}},
            },
            "a.jpg": Photo(),
        },
        bad=("VIA 3.*COCO",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_via_s_files_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)


def test_the_classes_are_in_the_order_of_the_options(tmp_path):
    dataset, _ = read(CASES["VIA 2: a project with other options"].lay(tmp_path))
    assert dataset.class_names == ("dog", "cat", "bird")
