"""What becomes of an image's masks on their way to the answer: cleaned, kept apart, encoded, and boxed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from app import timings
from app.contract import masks, schemas
from app.contract.masks import MaskFormat
from app.contract.schemas import Params
from app.engine.engine import Engine
from app.scoring.cost import AnswerCost
from app.scoring.waiting import together
from models.masks.boxes import box_around, rotated_box_around
from models.masks.cleaning import owners
from models.rle import Rle, decode_rle, encode_rle


@dataclass(frozen=True, eq=False)
class MaskAnswers:
    """How a request wants its masks, for those of any image.

    form: of the masks in the answer. fast: whether by the fast encoders. may_grow: whether cleaning may add pixels.
    """

    engine: Engine
    params: Params
    form: MaskFormat
    fast: bool
    cost: AnswerCost
    may_grow: bool = True

    def entry(
        self, mask: np.ndarray | Rle, iou_score: float | None = None, logits: np.ndarray | None = None
    ) -> dict[str, Any]:
        """A mask, (H, W) bool or run-length encoded, as it stands in the answer. logits: what is to be with it."""
        params = self.params
        key, encode = masks.encoder(
            self.form, fast=self.fast, polygon_tolerance=params.polygon_tolerance, max_vertices=params.max_vertices
        )
        if isinstance(mask, dict) and key == "rle" and not (params.cleaning or params.has_boxes_of_masks):
            found: dict[str, Any] = {key: mask}
        else:
            pixels = params.cleaning(decode_rle(mask) if isinstance(mask, dict) else mask, fill=self.may_grow)
            found = {key: encode(pixels)}
            if params.has_boxes_of_masks:
                found |= _boxes(pixels, params)
        if logits is not None:
            found["logits"] = masks.encode_logits(logits)
        return found if iou_score is None else {key: found.pop(key), "iou_score": iou_score, **found}

    def to_be_parted(self) -> MaskAnswers:
        """The first step of `parted`: masks that are cleaned, and small in memory."""
        return replace(self, params=replace(self.params, tight_boxes=False, rotated_boxes=False), form="rle")

    async def entries(
        self, found: Sequence[Rle], scores: Sequence[float], *, are_told: bool = False
    ) -> list[dict[str, Any]]:
        """Masks as they stand in the answer. scores: of them or of their boxes; are_told: as the masks' iou_score."""

        async def one(mask: Rle, score: float) -> dict[str, Any]:
            encoded = await self.engine.aside(timings.stage("post")(answers.entry), mask, score if are_told else None)
            self.cost.add([encoded])
            return encoded

        answers = self.to_be_parted() if self.params.no_overlaps else self
        encoded = await together(one(*pair) for pair in zip(found, scores, strict=True))
        return await self.parted(encoded, scores) if self.params.no_overlaps else encoded

    async def parted(self, encoded: list[dict[str, Any]], scores: Sequence[float]) -> list[dict[str, Any]]:
        """The masks that `to_be_parted` made, as they stand in the answer: each pixel is of the best-scored one alone.

        A mask that loses pixels is cleaned again, but gets none back.
        """
        if not encoded:
            return []

        @timings.stage("post")
        def alone() -> list[Rle]:
            rles: list[Rle] = [one["rle"] for one in encoded]
            height, width = rles[0]["size"]
            owner = owners(lambda number: decode_rle(rles[number]), scores, (height, width))
            return [_owned(owner, number, rle) for number, rle in enumerate(rles)]

        async def one(mask: Rle, before: dict[str, Any]) -> dict[str, Any]:
            found = await self.engine.aside(timings.stage("post")(answers.entry), mask, before.get("iou_score"))
            if "logits" in before:
                found["logits"] = before["logits"]
            self.cost.add([found])
            return found

        answers = replace(self, may_grow=False)
        self.cost.take_back(encoded)
        return await together(one(*pair) for pair in zip(await self.engine.aside(alone), encoded, strict=True))


def to_box(box: dict[str, Any], encoded: list[dict[str, Any]]) -> None:
    """Let a box have what belongs to it of its best mask's entry: the box around the mask, and the turned one."""
    best = max(encoded, key=lambda mask: mask.get("iou_score", 0.0))
    box |= {key: best[key] for key in ("box", "rotated_box") if key in best}
    for mask in encoded:
        mask.pop("box", None)
        mask.pop("rotated_box", None)


def _boxes(mask: np.ndarray, params: Params) -> dict[str, Any]:
    """The boxes around a mask that are wanted, in 0..1; none around an empty one."""
    height, width = mask.shape
    found: dict[str, Any] = {}
    if params.tight_boxes and (box := box_around(mask)) is not None:
        found["box"] = schemas.normalized_box(box, (height, width))
    if params.rotated_boxes and (corners := rotated_box_around(mask)) is not None:
        found["rotated_box"] = (corners / (width, height)).ravel().tolist()
    return found


def _owned(owner: np.ndarray, number: int, before: Rle) -> Rle:
    """What a mask still has."""
    x, y, width, height = map(int, coco_mask.toBbox(before))
    part = slice(y, y + height), slice(x, x + width)
    mask = np.zeros(owner.shape, np.bool_)
    mask[part] = owner[part] == number
    return encode_rle(mask)
