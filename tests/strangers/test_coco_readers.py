"""The COCO files that we write, read by other people's readers: of `box2mask run` and of `box2mask data convert`."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from app.prediction import PredictedObject
from app.results import coco
from app.results.image_result import ImageResult
from models.data import Annotation, Dataset, LabelledImage, write
from models.rle import encode_rle

SIZE_HW = (30, 40)
CLASSES = ("can", "carton")
# A box alone, a polygon with a box of its own, a mask with a hole, a crowd of several parts, a carton by its box.
BOXES = ((1.5, 2, 11.5, 12), (10, 10, 20, 20), (20, 5, 35, 25), (0, 20, 9, 30), (3, 3, 5, 5))


def hole() -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[5:25, 20:35] = True
    mask[10:15, 25:30] = False
    return mask


def crowd() -> np.ndarray:
    mask = np.zeros(SIZE_HW, bool)
    mask[20:25, 0:4] = mask[26:30, 5:9] = True
    return mask


def converted(folder: Path) -> Path:
    Image.new("RGB", SIZE_HW[::-1]).save(folder / "a.png")
    Image.new("RGB", SIZE_HW[::-1]).save(folder / "b.png")
    objects = (
        Annotation("can", BOXES[0]),
        Annotation("can", BOXES[1], polygons=((10.0, 10.0, 20.0, 10.0, 20.0, 20.0, 10.0, 20.0),)),
        Annotation("carton", BOXES[2], rle=encode_rle(hole())),
        Annotation("can", BOXES[3], rle=encode_rle(crowd()), crowd=True),
        Annotation("carton", BOXES[4]),
    )
    images = (LabelledImage(folder / "a.png", SIZE_HW, objects), LabelledImage(folder / "b.png", SIZE_HW))
    write(Dataset(CLASSES, images), folder / "set", "coco")
    return folder / "set" / "annotations.json"


def of_a_run(folder: Path) -> Path:
    """The same objects; a run has no crowds and no polygons."""
    square = np.zeros(SIZE_HW, bool)
    square[10:20, 10:20] = True
    masks = (None, square, hole(), crowd(), None)
    objects = tuple(
        PredictedObject(label, 0.9, box, None if mask is None else encode_rle(mask), None if mask is None else 0.8)
        for label, box, mask in zip(("can", "can", "carton", "can", "carton"), BOXES, masks, strict=True)
    )
    path = folder / "coco.json"
    with path.open("w", encoding="utf-8") as file:
        coco.write(file, [ImageResult("a.png", SIZE_HW, objects), ImageResult("b.png", SIZE_HW, ())], CLASSES)
    return path


@pytest.fixture(params=[converted, of_a_run])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path)


AREAS = [100, 100, 275, 36, 4]


def test_every_section_and_field_of_the_format_is_there(written: Path) -> None:
    content = json.loads(written.read_text())
    assert list(content) == ["info", "licenses", "images", "annotations", "categories"]
    assert isinstance(content["info"], dict) and content["licenses"] == []
    assert [(one["id"], one["name"], one["supercategory"]) for one in content["categories"]] == [
        (1, "can", ""),
        (2, "carton", ""),
    ]
    asked = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"}
    assert all(asked <= one.keys() for one in content["annotations"])
    assert [one["area"] for one in content["annotations"]] == AREAS
    assert [one["segmentation"] for one in content["annotations"] if one["id"] in (1, 5)] == [[], []]
    assert all(
        isinstance(one["segmentation"]["counts"], str)
        for one in content["annotations"]
        if isinstance(one["segmentation"], dict)
    )


def test_pycocotools_reads_boxes_masks_and_takes_them_as_results(written: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO(str(written))
        data.info()  # goes through `info`
    annotations = data.loadAnns(data.getAnnIds(imgIds=[1]))
    assert [one["area"] for one in annotations] == AREAS
    assert (data.annToMask(annotations[2]) == hole()).all() and (data.annToMask(annotations[3]) == crowd()).all()
    assert data.annToMask(annotations[1])[10:20, 10:20].all()
    assert data.getCatIds(supNms=[""]) == [1, 2] and data.getCatIds(catNms=["carton"]) == [2]
    assert data.getAnnIds(areaRng=[30, 101]) == [1, 2, 4]
    with contextlib.redirect_stdout(io.StringIO()):
        results = data.loadRes([dict(one, score=0.5) for one in annotations])
    assert [one["area"] for one in results.loadAnns(results.getAnnIds())] == [100, 100, 300, 90, 4]  # of the boxes


def test_mmdetection_reads_every_object(written: Path) -> None:
    from models.detector import mmcv_ops

    mmcv_ops.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and MMDetection, as they are imported
        from mmdet.datasets import CocoDataset

    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDataset(
            ann_file=str(written), data_prefix={"img": ""}, metainfo={"classes": CLASSES}, serialize_data=False
        )
    first, second = (data.get_data_info(index) for index in range(2))
    assert [one["bbox"] for one in first["instances"]] == [list(box) for box in BOXES]
    assert [one["bbox_label"] for one in first["instances"]] == [0, 0, 1, 0, 1]
    assert ["mask" in one for one in first["instances"]] == [False, True, True, True, False]
    assert second["instances"] == []


def test_pandas_reads_it_section_by_section(written: Path) -> None:
    pandas = pytest.importorskip("pandas")
    sections: Any = pandas.read_json(written, typ="series")
    table = pandas.DataFrame(sections["annotations"])
    assert table["area"].tolist() == AREAS and table["image_id"].tolist() == [1] * 5
    assert not table[["segmentation", "area", "iscrowd", "bbox"]].isna().any().any()
    by_class = table.merge(pandas.DataFrame(sections["categories"]), left_on="category_id", right_on="id")
    assert by_class.groupby("name").size().to_dict() == {"can": 3, "carton": 2}
