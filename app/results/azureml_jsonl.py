"""AzureML's training data: a JSON line for each image, coordinates in 0..1 of its width and height.

With masks it is the form for instance segmentation (`polygon`), without them that for object detection (`topX`, ...).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TextIO

from app.prediction import PredictedObject
from app.results.image_result import EXACT, Corners, Results, label_of, mask_of


def write(file: TextIO, results: Results, image_url: Callable[[str], str], corners: Corners = EXACT) -> int:
    """Write the lines. image_url: an image's name -> its `image_url`. corners: of the polygons.

    Gives the number of objects left out: those whose mask is empty, which no polygon can say.
    """
    left_out = 0
    for result in results:
        height, width = result.size_hw
        labels = []
        for one in result.objects:
            shape = _shape(one, width, height, corners)
            if shape is None:
                left_out += 1
            else:
                labels.append({"label": label_of(one), "isCrowd": 0, **shape})
        image_format = PurePosixPath(result.name).suffix.removeprefix(".").lower()
        line = {
            "image_url": image_url(result.name),
            "image_details": {"format": image_format, "width": width, "height": height},
            "label": labels,
        }
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return left_out


def _shape(one: PredictedObject, width: int, height: int, corners: Corners) -> dict[str, Any] | None:
    mask = mask_of(one)
    if mask is not None:
        polygons = [one.ravel().tolist() for one in corners.polygons(mask)]
        return {"polygon": polygons} if polygons else None
    x1, y1, x2, y2 = one.box_xyxy
    return {"topX": x1 / width, "topY": y1 / height, "bottomX": x2 / width, "bottomY": y2 / height}
