"""The form of Hugging Face's endpoints in Azure's catalog: `{"inputs", "parameters"}`, answered as pipelines answer.

A segmenter answers as transformers' `mask-generation` pipeline does, a detector alone as `object-detection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.contract import causes
from app.contract.grid_params import read_grid
from app.errors import BadRequest
from models.segmenter.grid import Grid
from models.types import Detections

# Of transformers' object-detection pipeline.
THRESHOLD = 0.5
_ONE = '"<base64 or URL of an image>"'


@dataclass(frozen=True)
class Inputs:
    """What such a request has. is_list: whether the images came as a list, so that the answer is one too.

    threshold, labels: of `parameters`, for a detector, as they came; None where they did not.
    """

    images: list[object]
    is_list: bool
    grid: Grid
    threshold: object
    labels: object


def read_inputs(content: dict[str, Any]) -> Inputs:
    """Read `{"inputs", "parameters"}`; unknown parameters are ignored. Raises BadRequest."""
    inputs, parameters = content["inputs"], content.get("parameters")
    if "input_data" in content:
        raise BadRequest("expected inputs or input_data in the body, got both")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"parameters: expected an object, got {causes.kind(parameters)}")
    is_list = isinstance(inputs, list)
    images = inputs if is_list else [inputs]
    for image in images:
        if not isinstance(image, str):
            among = " among them" if is_list else ""
            raise BadRequest(f"inputs: expected {_ONE}, or a list of such, got {causes.kind(image)}{among}")
    grid = read_grid(parameters, "parameters") or Grid()
    return Inputs(images, is_list, grid, parameters.get("threshold"), parameters.get("candidate_labels"))


def found_masks(row: dict[str, Any]) -> dict[str, Any]:
    """The answer for one image. row: what `/sam/score` answers, best mask first."""
    masks = [mask for one in row["predictions"] for mask in one["mask_per_prediction"]]
    return {"results": [{"mask": one["encoded_binary_mask"], "score": one["iou_score"]} for one in masks]}


def found_boxes(found: Detections, names: Sequence[str]) -> list[dict[str, Any]]:
    """A detector's answer for one image, best first, in whole pixels, cut off as the pipeline does. names: by label."""
    return [
        {"score": score, "label": names[label], "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
        for box, label, score in zip(
            found.boxes_xyxy.astype(int).tolist(),
            found.labels.tolist(),
            found.scores.astype(float).tolist(),
            strict=True,
        )
    ]
