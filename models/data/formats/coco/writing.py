"""Writes COCO's object annotations: one JSON file with all the sections and fields that readers of COCO ask for.

Beside `images`, `annotations` and `categories` there are `info` and `licenses`. Every annotation has a `segmentation`
(an empty list where there is no mask), `area` and `iscrowd`, and every category a `supercategory`. None of it is a
date, so that one data set always gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.data.dataset import Annotation, Dataset
from models.data.parsing.values import plain

INFO = {"description": "written by box2mask", "url": "", "version": "1.0", "contributor": ""}


def write(dataset: Dataset, path: Path, references: Iterable[str]) -> None:
    """Writes the file. references: for each image, the `file_name`. Holds all that a data set has.

    Ids are integers from 1. `area` is that of the mask where there is one, else of the box.
    """
    category = {name: index for index, name in enumerate(dataset.class_names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (image, reference) in enumerate(zip(dataset.images, references, strict=True), start=1):
        height, width = image.size_hw
        images.append({"id": image_id, "file_name": reference, "width": width, "height": height})
        for one in image.annotations:
            x1, y1, x2, y2 = one.box_xyxy
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category[one.label],
                    "bbox": [plain(x1), plain(y1), plain(x2 - x1), plain(y2 - y1)],
                    "area": _area(one, image.size_hw),
                    "iscrowd": int(one.crowd),
                    "segmentation": _segmentation(one),
                }
            )
    content = {"images": images, "annotations": annotations, "categories": categories(category)}
    # One entry a line: a file that people can read, compare and keep under version control.
    sections = [f'"info": {json.dumps(INFO)}', '"licenses": []'] + [
        f'"{name}": [\n' + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"
        for name, entries in content.items()
    ]
    path.write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")


def categories(numbers: dict[str, int]) -> list[dict[str, Any]]:
    """The section `categories`, of classes by their names."""
    return [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]


def _segmentation(one: Annotation) -> list[list[float]] | dict[str, Any]:
    if one.rle is not None:
        return {"size": list(one.rle["size"]), "counts": one.rle["counts"]}
    return [[plain(value) for value in part] for part in one.polygons or ()]


def _area(one: Annotation, size_hw: tuple[int, int]) -> float:
    mask = one.mask(size_hw)
    if mask is not None:
        return int(mask.sum())
    x1, y1, x2, y2 = one.box_xyxy
    return plain((x2 - x1) * (y2 - y1))
