"""The prompts of one row of a request, when the size of its image is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.contract.mask_prompts import mask_logits
from app.contract.prompts import resolve_prompts
from app.contract.schemas import Params, Row
from models.segmenter.protocol import Segmenter
from models.types import Prompts


def count_of(row: Row) -> int:
    """How many prompts it has: predictions that it gets."""
    return max(len(row.prompts or ()), len(row.masks or ()))


def prompts_of(
    row: Row, number: int, size_hw: tuple[int, int], params: Params, segmenter: Segmenter[Any]
) -> Prompts | None:
    """In pixels of the image, masks as logits; None where the row wants no prediction. Raises BadRequest."""
    prompts = resolve_prompts(
        row.prompts,
        size_hw,
        normalized=params.coordinates == "normalized",
        absolute=params.coordinates == "absolute",
        row=number,
    )
    if prompts is None or row.masks is None:
        return prompts
    logits = mask_logits(row.masks, size_hw, segmenter.mask_side, segmenter.logits_of_mask, number)
    return replace(prompts, mask_logits=logits)
