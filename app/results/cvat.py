"""CVAT's import file, format "CVAT for images 1.1": XML with a `mask` for each object, or its `box` without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from app.prediction import PredictedObject
from app.results.image_result import Results, label_of, mask_of
from models.data.formats.cvat.writing import SIDES, mask_shape, write_head, write_image


def write(file: TextIO, results: Results, class_names: Sequence[str]) -> int:
    """Write the file; CVAT finds its frames by the images' names.

    Gives the number of objects left out: none; of one whose mask is empty there is the box.
    """
    write_head(file, class_names)
    for number, result in enumerate(results):  # one at a time; never the whole file in memory
        shapes = [(kind, label_of(one), shape) for one in result.objects for kind, shape in [_shape(one)]]
        write_image(file, number, result.name, result.size_hw, shapes, "auto")
    file.write("</annotations>\n")
    return 0


def _shape(one: PredictedObject) -> tuple[str, dict[str, str]]:
    mask = mask_of(one)
    if mask is None or not mask.any():
        return "box", {name: f"{value:.2f}" for name, value in zip(SIDES, one.box_xyxy, strict=True)}
    return "mask", mask_shape(mask)
