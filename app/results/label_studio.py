"""Label Studio's import file: a JSON list of tasks, what was found as the prediction of each.

Every object is a rectangle (`rectanglelabels`, in percent of the image) and, with a mask, a brush stroke
(`brushlabels`) or, with few corners, a polygon for each part (`polygonlabels`). `labeling_config` makes the labelling
interface that the names in the file go with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.prediction import PredictedObject
from app.results.image_result import EXACT, Corners, ImageResult, label_of, mask_of
from models.data.formats.label_studio.writing import (
    BOX,
    MASK,
    POLYGON,
    brush,
    labeling_config,
    prediction,
    rectangle,
    region,
)

__all__ = ["Tasks", "labeling_config"]


@dataclass(frozen=True)
class Tasks:
    """A `Form`. image_url: an image's name -> where Label Studio gets it. A priority stands in `data.priority`, and in
    the prediction's score. Of an object whose mask is empty there is the rectangle.
    """

    image_url: Callable[[str], str]
    model_version: str
    corners: Corners = EXACT
    opening: str = "["
    between: str = ","
    closing: str = "\n]\n"

    def text(self, result: ImageResult, number: int, priority: float | None) -> tuple[str, int]:
        data: dict[str, Any] = {"image": self.image_url(result.name)}
        if priority is not None:
            data["priority"] = priority
        of_objects = (_regions(result, place, one, self.corners) for place, one in enumerate(result.objects))
        regions = [one for its in of_objects for one in its]
        task = {"data": data, "predictions": [prediction(regions, self.model_version, priority)]}
        return "\n" + json.dumps(task, ensure_ascii=False), 0


def _regions(result: ImageResult, number: int, one: PredictedObject, corners: Corners) -> list[dict[str, Any]]:
    shapes = [(BOX, "rectanglelabels", rectangle(one.box_xyxy, result.size_hw))]
    mask = mask_of(one)
    parts = corners.polygons(mask) if corners and mask is not None else []
    for place, part in enumerate(parts):  # the first is the mask of the same number as the box, as data sets read it
        value = {"points": (100 * part).tolist(), "closed": True}
        shapes.append((MASK if not place else f"{MASK}{place}_", "polygonlabels", value))
    if mask is not None and mask.any() and not corners:
        shapes.append((MASK, "brushlabels", brush(mask)))
    more = {} if one.score is None else {"score": one.score}
    # By its parent it is known that a mask is of the same object as a box, whatever becomes of their ids.
    found = [
        region(name, number, kind, result.size_hw, {**value, kind: [label_of(one)]}, **more)
        | ({} if name == BOX else {"parentID": f"{BOX}{number}"})
        for name, kind, value in shapes
    ]
    return [entry | {"from_name": POLYGON} if entry["type"] == "polygonlabels" else entry for entry in found]
