"""Label Studio's import file: a JSON list of tasks, what was found as the prediction of each.

Every object is a rectangle (`rectanglelabels`, in percent of the image) and, with a mask, a brush stroke
(`brushlabels`) or, with few corners, a polygon for each part (`polygonlabels`). `labeling_config` makes the labelling
interface that the names in the file go with.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TextIO

from app.prediction import PredictedObject
from app.results.image_result import EXACT, Corners, ImageResult, Results, label_of, mask_of
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

__all__ = ["labeling_config", "write"]


def write(
    file: TextIO,
    results: Results,
    image_url: Callable[[str], str],
    model_version: str,
    corners: Corners = EXACT,
    priority: Callable[[str], float] | None = None,
) -> int:
    """Write the tasks. image_url: an image's name -> where Label Studio gets it. priority: an image's name -> 0..1, the
    higher the sooner a person should look; as `data.priority`, and in the prediction's score.

    Gives the number of objects left out: none; of one whose mask is empty there is the rectangle.
    """
    file.write("[")
    for number, result in enumerate(results):
        data: dict[str, Any] = {"image": image_url(result.name)}
        if priority is not None:
            data["priority"] = priority(result.name)
        regions = [one for number, its in enumerate(result.objects) for one in _regions(result, number, its, corners)]
        task = {"data": data, "predictions": [prediction(regions, model_version, data.get("priority"))]}
        file.write(("," if number else "") + "\n" + json.dumps(task, ensure_ascii=False))
    file.write("\n]\n")
    return 0


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
