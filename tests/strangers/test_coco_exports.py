"""COCO files of LVIS, of COCO's other tasks, and of programs that write COCO's form beside their own; each with the
reading that it means beside it.
"""

from __future__ import annotations

import pytest

from tests.strangers.data_cases import Case, Photo, thing
from tests.strangers.test_coco import CAT, CAT_MASK, CATEGORIES, SQUARE, coco, entry, image

RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]

CASES = {
    "LVIS: an address of COCO's in place of a file's name": Case(
        {
            "lvis_v1_val.json": coco(
                entry(segmentation=[SQUARE]),
                images=[
                    {
                        "id": 1,
                        "width": 100,
                        "height": 80,
                        "coco_url": "http://images.cocodataset.org/val2017/a.jpg",
                        "neg_category_ids": [2],
                        "not_exhaustive_category_ids": [],
                    }
                ],
                categories=[{"id": 1, "name": "cat", "synset": "cat.n.01", "frequency": "f", "def": "a pet"}],
            ),
            "val2017/a.jpg": Photo(),
        },
        {"a.jpg": [CAT_MASK]},
    ),
    "LVIS: an address, and no photo here": Case(
        {
            "lvis_v1_val.json": coco(
                entry(), images=[{"id": 1, "width": 100, "height": 80, "coco_url": "http://example.org/val2017/a.jpg"}]
            )
        },
        {"a.jpg": [CAT]},
    ),
    "COCO: the keypoints of people alone": Case(
        {
            "annotations/person_keypoints_val2017.json": coco(
                entry(segmentation=[SQUARE], num_keypoints=2, keypoints=[1, 2, 2] * 2 + [0] * 45),
                categories=[{"id": 1, "name": "cat", "keypoints": ["nose"] * 17, "skeleton": [[1, 2]]}],
            ),
            "val2017/a.jpg": Photo(),
        },
        {"a.jpg": [CAT_MASK]},
    ),
    "COCO: image_info of the test images": Case(
        {"image_info_test2017.json": {"info": {}, "images": [image()], "licenses": [], "categories": CATEGORIES}},
        bad=("no annotations.*take the instances file",),
    ),
    "COCO: a list of results beside the instances": Case(
        {
            "annotations/instances_val2017.json": coco(entry()),
            "annotations/instances_val2017_results.json": RESULTS,
            "val2017/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
    ),
    "COCO: a category without a name that no object has": Case(
        {
            "coco.json": coco(entry(), categories=[*CATEGORIES, {"id": 3, "name": ""}]),
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=(r"categories\[2\].*has no name and no objects",),
    ),
    "labelme2coco, SAHI: names beside ids, from 0": Case(
        {
            "dataset.json": coco(
                entry(id=0, image_id=0, category_id=0, segmentation=[SQUARE], category_name="cat", ignore=0),
                images=[image(id=0)],
                categories=[{"id": 0, "name": "cat", "supercategory": "cat"}],
            ),
            "a.jpg": Photo(),
        },
        {"a.jpg": [CAT_MASK]},
    ),
    "supervision: a mask with a hole is marked as a crowd": Case(
        {
            "coco.json": coco(
                entry(iscrowd=1, segmentation={"size": [80, 100], "counts": [820, 1, 7179]}, bbox=[10, 20, 1, 1]),
                entry(id=2, segmentation=[SQUARE]),
            ),
            "a.jpg": Photo(),
        },
        {"a.jpg": [thing("cat", 10, 20, 11, 21, 1, True), CAT_MASK]},
        noted=("--crowds as-objects",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_coco_s_form_is_read_as_it_is_meant(tmp_path, name):
    CASES[name].check(tmp_path)
