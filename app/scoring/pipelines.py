"""Requests in Hugging Face's form, `{"inputs", "parameters"}`: which model answers them, and how."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.contract.hugging_face import THRESHOLD, Inputs, found_masks
from app.errors import BadRequest

if TYPE_CHECKING:
    from app.contract.schemas import Request
    from app.scoring.scorer import Scorer


async def answer(scorer: Scorer, request: Request, inputs: Inputs) -> Any:
    """What a pipeline gives for the images, or for the only one: all masks, or without a segmenter the boxes.

    Raises what the scorer raises, of images by their place in `inputs`.
    """
    try:
        answers = await (_boxes if scorer.engine.segmenter is None else _masks)(scorer, request, inputs)
    except BadRequest as error:
        if error.row is None:
            raise
        place = f"inputs[{error.row}]" if inputs.is_list else "inputs"
        raise BadRequest(re.sub(r"^row \d+(, \w+)?", place, error.message)) from error
    return answers if inputs.is_list else answers[0]


async def _masks(scorer: Scorer, request: Request, inputs: Inputs) -> list[Any]:
    for name, value in (("threshold", inputs.threshold), ("candidate_labels", inputs.labels)):
        if value is not None and scorer.engine.detector is not None:
            raise BadRequest(
                f"parameters.{name}: this service's segmenter answers inputs with masks, and takes no {name}; "
                "for boxes send input_data to /yolof/score"
            )
    return [found_masks(row) for row in await scorer.segment(request)]


async def _boxes(scorer: Scorer, request: Request, inputs: Inputs) -> list[Any]:
    params = request.params
    if params.score_threshold is None:
        params = replace(params, score_threshold=THRESHOLD)
    rows = await scorer.detect(replace(request, params=replace(params, masks="none")))
    return [row["boxes"] for row in rows]
