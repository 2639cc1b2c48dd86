from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as coco_mask

from models.data import Annotation, DataError, Dataset, LabelledImage
from models.evaluation import read_predictions

DATASET = Dataset(
    ("can",),
    (
        LabelledImage(Path("photos/one/a.jpg"), (40, 50), (Annotation("can", (0, 0, 10, 10)),)),
        LabelledImage(Path("photos/two/a.jpg"), (40, 50)),
        LabelledImage("https://example.org/photos/c.jpg?key=1", (40, 50)),
    ),
)


BOX = {"image_id": 2, "category_id": 5, "bbox": [1, 2, 3, 4]}
SIZE = {"height": 40, "width": 50}


def content(**changes: Any) -> dict[str, Any]:
    names = {7: "elsewhere/x.jpg", 1: "two/a.jpg", 2: "one/a.jpg", 3: "c.jpg"}
    boxes = [
        BOX | {"score": 0.5},
        BOX | {"score": 0.5, "image_id": 7},
        {"image_id": 2, "category_id": 6, "bbox": [0, 0, 10, 10], "segmentation": [[0, 0, 10, 0, 10, 10, 0, 10]]},
        BOX | {"score": 1, "image_id": 3},
    ]
    return {
        "images": [{"id": key, "file_name": name, **SIZE} for key, name in names.items()],
        "annotations": [{"id": index, **box} for index, box in enumerate(boxes)],
        "categories": [{"id": 5, "name": "can"}, {"id": 6, "name": "dog"}],
    } | changes


def test_predictions_go_to_the_image_whose_path_ends_so(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content()))
    first, second, third = read_predictions(path, DATASET).found
    assert [(one.label, one.score, one.box_xyxy) for one in first] == [
        ("can", 0.5, (1, 2, 4, 6)),
        ("dog", 1.0, (0, 0, 10, 10)),
    ]
    assert first[0].rle is None and first[1].rle is not None
    assert coco_mask.area(dict(first[1].rle)) == 100
    assert second == [] and [one.score for one in third] == [1.0]


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"images": content()["images"][:2]}, ["annotations[0]", "annotations[2]", "annotations[3]"]),
        ({"images": content()["images"][:3], "annotations": []}, ["c.jpg?key=1 is not among them"]),
        ({"annotations": [BOX | {"score": "high"}]}, ["annotations[0]: score"]),
        ({"annotations": [BOX | {"category_id": 9}]}, ["annotations[0]: category_id"]),
        (
            {"images": [{"id": key, "file_name": "a.jpg", **SIZE} for key in (1, 2)], "annotations": []},
            ["images[0]: a.jpg and other images have one name", "images[1]"],
        ),
        (
            {"images": [content()["images"][1] | {"height": 41}, *content()["images"][2:]], "annotations": []},
            ["images[0]: two/a.jpg: expected height and width [40, 50] as in the data set, got [41, 50]"],
        ),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], reasons: list[str], tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content(**changes)))
    with pytest.raises(DataError) as error:
        read_predictions(path, DATASET)
    lines = str(error.value).splitlines()
    assert len(lines) == len(reasons)
    for line, reason in zip(lines, reasons, strict=True):
        assert line.startswith(str(path)) and reason in line


def test_the_file_may_be_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content()), encoding="utf-16")
    assert [one.score for one in read_predictions(path, DATASET).found[0]] == [0.5, 1.0]


def test_an_empty_box_takes_no_other_boxs_score(tmp_path: Path) -> None:
    boxes = [BOX | {"score": score, "bbox": [1, 2, 3, 4 - score]} for score in (0.5, 0.25, 0.75)]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content(annotations=[boxes[0], BOX | {"bbox": [1, 2, 0, 4]}, *boxes[1:]])))
    assert [one.score for one in read_predictions(path, DATASET).found[0]] == [0.5, 0.25, 0.75]
