"""COCO's object annotations: one JSON file with `images`, `annotations` and `categories`, masks as compressed RLE.

Beside COCO's own fields an annotation has the detector's `score`, SAM's `iou_score` and the turned box, where there are
such. Its `bbox` is the box that prompted the mask, its `area` the mask's; without a mask the `segmentation` is an empty
list, and the area is the box's. With few corners the `segmentation` is polygons, none of an empty mask. Ids count from
1, categories in the order of the classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np
from pycocotools import mask as coco_mask

from app.prediction import PredictedObject
from app.results.image_result import EXACT, Corners, ImageResult, Results, label_of, mask_of
from models.data.formats.coco.writing import INFO, categories


def write(file: TextIO, results: Results, class_names: Sequence[str], corners: Corners = EXACT) -> int:
    """Write the data set; `file_name` is the image's name. Gives the number of objects left out: none."""
    category = {name: number for number, name in enumerate(class_names, start=1)}
    file.write("{\n" + f'"info": {json.dumps(INFO)},\n"licenses": [],\n')
    _section(file, "images", _images(results), ",\n")
    _section(file, "annotations", _annotations(results, category, corners), ",\n")
    _section(file, "categories", categories(category), "\n}\n")
    return 0


def _section(file: TextIO, name: str, entries: Iterable[dict[str, Any]], end: str) -> None:
    """One entry a line; never the whole file in memory."""
    file.write(f'"{name}": [')
    for number, entry in enumerate(entries):
        file.write(("," if number else "") + "\n" + json.dumps(entry, ensure_ascii=False))
    file.write("\n]" + end)


def _images(results: Iterable[ImageResult]) -> Iterator[dict[str, Any]]:
    for number, result in enumerate(results, start=1):
        height, width = result.size_hw
        yield {"id": number, "file_name": result.name, "width": width, "height": height}


def _annotations(
    results: Iterable[ImageResult], category: dict[str, int], corners: Corners
) -> Iterator[dict[str, Any]]:
    number = 0
    for image_number, result in enumerate(results, start=1):
        for one in result.objects:
            number += 1
            x1, y1, x2, y2 = one.box_xyxy
            area = (x2 - x1) * (y2 - y1) if one.rle is None else int(coco_mask.area(one.rle))
            entry = {
                "id": number,
                "image_id": image_number,
                "category_id": category[label_of(one)],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": area,
                "iscrowd": 0,
                "segmentation": [] if one.rle is None else _segmentation(one, result.size_hw, corners),
                "score": one.score,
                "iou_score": one.iou_score,
                "rotated_box": one.rotated_box,
            }
            yield {key: value for key, value in entry.items() if value is not None}


def _segmentation(one: PredictedObject, size_hw: tuple[int, int], corners: Corners) -> Any:
    mask = mask_of(one) if corners else None
    if mask is None:
        return one.rle
    return [np.round(part * size_hw[::-1], 3).ravel().tolist() for part in corners.polygons(mask)]
