"""AzureML's training data: a JSON line for each image, coordinates in 0..1 of its width and height.

With masks it is the form for instance segmentation (`polygon`), without them that for object detection (`topX`, ...).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from app.prediction import PredictedObject
from app.results.image_result import EXACT, Corners, ImageResult, label_of, mask_of


@dataclass(frozen=True)
class Lines:
    """A `Form`. image_url: an image's name -> its `image_url`. corners: of the polygons.

    It cannot say objects whose mask is empty, as no polygon can.
    """

    image_url: Callable[[str], str]
    corners: Corners = EXACT
    opening: str = ""
    between: str = ""
    closing: str = ""

    def text(self, result: ImageResult, number: int, priority: float | None) -> tuple[str, int]:
        height, width = result.size_hw
        shapes = [(one, _shape(one, width, height, self.corners)) for one in result.objects]
        labels = [{"label": label_of(one), "isCrowd": 0, **shape} for one, shape in shapes if shape is not None]
        image_format = PurePosixPath(result.name).suffix.removeprefix(".").lower()
        line = {
            "image_url": self.image_url(result.name),
            "image_details": {"format": image_format, "width": width, "height": height},
            "label": labels,
        }
        return json.dumps(line, ensure_ascii=False) + "\n", len(shapes) - len(labels)


def _shape(one: PredictedObject, width: int, height: int, corners: Corners) -> dict[str, Any] | None:
    mask = mask_of(one)
    if mask is not None:
        polygons = [one.ravel().tolist() for one in corners.polygons(mask)]
        return {"polygon": polygons} if polygons else None
    x1, y1, x2, y2 = one.box_xyxy
    return {"topX": x1 / width, "topY": y1 / height, "bottomX": x2 / width, "bottomY": y2 / height}
