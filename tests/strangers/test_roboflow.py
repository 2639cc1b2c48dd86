"""Roboflow's downloads in the formats that are not COCO, VOC and Ultralytics' YOLO, which stand in those files."""

from __future__ import annotations

import json

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
NAME = "train/a_jpg.rf.01"
README = {"README.roboflow.txt": "pets - v1", "README.dataset.txt": "# pets"}
PROMPTS = json.dumps(
    {"image": "a_jpg.rf.01.jpg", "prefix": "detect cat ; dog", "suffix": "<loc0256><loc0102><loc0768><loc0409> cat"}
)

CASES = {
    "YOLO Darknet: _darknet.labels beside the photos": Case(
        {f"{NAME}.jpg": Photo(), f"{NAME}.txt": "0 0.25 0.5 0.3 0.5\n", "train/_darknet.labels": "cat\n", **README},
        {"a_jpg.rf.01.jpg": [CAT]},
    ),
    "YOLOv8: parts that were not downloaded": Case(
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n"
            "nc: 1\nnames: ['cat']\n",
            "train/images/a.jpg": Photo(),
            "train/labels/a.txt": "0 0.25 0.5 0.3 0.5\n",
            **README,
        },
        {"a.jpg": [CAT]},
        noted=("val: there is no", "test: there is no"),
    ),
    "Create ML: _annotations.createml.json": Case(
        {
            "train/_annotations.createml.json": [
                {
                    "image": "a.jpg",
                    "annotations": [{"label": "cat", "coordinates": {"x": 25, "y": 40, "width": 30, "height": 40}}],
                }
            ],
            "train/a.jpg": Photo(),
            **README,
        },
        bad=("Create ML's.*export it as COCO",),
    ),
    "TensorFlow: _annotations.csv": Case(
        {
            "train/_annotations.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,80,cat,10,20,40,60\n",
            "train/a.jpg": Photo(),
            **README,
        },
        bad=("_annotations.csv.*table.*export COCO",),
    ),
    "Multi-label: _classes.csv": Case(
        {"train/_classes.csv": "filename, cat, dog\na.jpg, 1, 0\n", "train/a.jpg": Photo(), **README},
        bad=("_classes.csv.*table.*export COCO",),
    ),
    "TFRecord": Case(
        {"train/pets.tfrecord": b"\0", "train/pets_label_map.pbtxt": "item {}", **README},
        bad=("pets.tfrecord.*records.*export COCO",),
    ),
    "PaliGemma: prompts and answers": Case(
        {"dataset/_annotations.train.jsonl": f"{PROMPTS}\n" * 20, "dataset/a_jpg.rf.01.jpg": Photo(), **README},
        bad=("prompts and answers.*export COCO",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_roboflow_s_other_downloads_are_read_or_named(tmp_path, name):
    CASES[name].check(tmp_path)
