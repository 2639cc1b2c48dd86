"""FiftyOne's exports as its release 1.22 writes them; each with the reading that it means beside it."""

from __future__ import annotations

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
DOG_CROWD = thing("dog", 50, 10, 70, 30, 400, True)
LINES = "0 0.250000 0.500000 0.300000 0.500000\n"


def voc(more: str = "") -> str:
    box = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    return (
        "<annotation><folder></folder><filename>a.jpg</filename><path>/home/ann/export/data/a.jpg</path><source><database>"
        "</database></source><size><width>100</width><height>80</height><depth>3</depth></size><segmented></segmented>"
        f"<object><name>cat</name>{box.format(10, 20, 40, 60)}</object>{more}</annotation>"
    )


CROWD = (
    "<object><name>dog</name><iscrowd>True</iscrowd><bndbox><xmin>50</xmin><ymin>10</ymin><xmax>70</xmax><ymax>30</ymax>"
    "</bndbox></object>"
)

CASES = {
    "COCO: runs of a crowd as a list, objects without segmentation": Case(
        {
            "labels.json": {
                "info": {"year": "", "version": "", "url": "https://voxel51.com/fiftyone"},
                "licenses": [],
                "categories": [
                    {"id": 1, "name": "cat", "supercategory": None},
                    {"id": 2, "name": "dog", "supercategory": None},
                ],
                "images": [
                    {"id": 1, "file_name": "a.jpg", "height": 80, "width": 100, "license": None, "coco_url": None}
                ],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 1,
                        "category_id": 1,
                        "bbox": [10.0, 20.0, 30.0, 40.0],
                        "area": 1200.0,
                        "iscrowd": 0,
                    },
                    {
                        "id": 3,
                        "image_id": 1,
                        "category_id": 2,
                        "bbox": [50.0, 10.0, 20.0, 20.0],
                        "area": 400.0,
                        "iscrowd": 1,
                        "segmentation": {"counts": [4010, *[20, 60] * 19, 20, 2450], "size": [80, 100]},
                    },
                    {
                        "id": 4,
                        "image_id": 1,
                        "category_id": 1,
                        "bbox": [50.0, 10.0, 20.0, 20.0],
                        "iscrowd": 0,
                        "occluded": True,
                    },
                ],
            },
            "data/a.jpg": Photo(),
        },
        {"a.jpg": [CAT, DOG_CROWD, thing("cat", 50, 10, 70, 30)]},
        noted=("--crowds as-objects",),
    ),
    "VOC: labels/ beside data/": Case({"labels/a.xml": voc(), "data/a.jpg": Photo()}, {"a.jpg": [CAT]}),
    "VOC: a crowd": Case(
        {"labels/a.xml": voc(CROWD), "data/a.jpg": Photo()},
        {"a.jpg": [CAT, thing("dog", 50, 10, 70, 30, crowd=True)]},
    ),
    "CVAT: labels.xml beside data/": Case(
        {
            "labels.xml": '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task>'
            "<labels><label><name>cat</name></label></labels></task></meta>"
            '<image id="0" name="a.jpg" width="100" height="80"><box label="cat" xtl="10" ytl="20" xbr="40" ybr="60" '
            'occluded="0"></box></image></annotations>',
            "data/a.jpg": Photo(),
        },
        {"a.jpg": [CAT]},
        noted=("found by name",),
    ),
    "YOLOv5: dataset.yaml with a path of another machine": Case(
        {
            "dataset.yaml": "names:\n  0: cat\n  1: dog\npath: /home/ann/export\nval: ./images/val/\n",
            "images/val/a.jpg": Photo(),
            "labels/val/a.txt": LINES,
            "images/val/b.jpg": Photo(shade=9),
        },
        {"a.jpg": [CAT], "b.jpg": []},
        noted=("1 images have no label file",),
    ),
    "YOLOv4: data/, obj.names and images.txt": Case(
        {
            "obj.names": "cat\ndog\n",
            "images.txt": "data/a.jpg\ndata/b.jpg\n",
            "data/a.jpg": Photo(),
            "data/a.txt": LINES,
            "data/b.jpg": Photo(shade=9),
        },
        {"a.jpg": [CAT], "b.jpg": []},
        noted=("1 images have no label file",),
    ),
    "FiftyOneImageDetectionDataset": Case(
        {
            "labels.json": {
                "classes": None,
                "labels": {"a": [{"label": "cat", "bounding_box": [0.1, 0.25, 0.3, 0.5]}], "b": None},
            },
            "data/a.jpg": Photo(),
        },
        bad=("FiftyOne's.*COCODetectionDataset",),
    ),
    "FiftyOneDataset: metadata.json and samples.json": Case(
        {
            "metadata.json": {
                "name": "pets",
                "version": "1.22",
                "media_type": "image",
                "sample_fields": {},
                "info": {},
            },
            "samples.json": {
                "samples": [{"filepath": "data/a.jpg", "ground_truth": {"_cls": "Detections", "detections": []}}]
            },
            "data/a.jpg": Photo(),
        },
        bad=("FiftyOne's.*COCODetectionDataset",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fiftyone_s_exports_are_read_as_they_are_meant(tmp_path, name):
    CASES[name].check(tmp_path)
