"""The masks of an image's prompts: decoded in the whole of it, or in tiles where a request asks for them."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np

from app import timings
from app.contract.schemas import Params
from app.engine.engine import Engine
from app.scoring.cost import AnswerCost
from app.scoring.mask_answers import MaskAnswers
from app.scoring.prepared_image import Parts, PreparedImage
from app.scoring.waiting import together
from models.segmenter.protocol import RawMasks
from models.segmenter.tiles import in_part, of, parts_of, reaches_on
from models.tiles import Part
from models.types import Embedding, Prompts

# A prompt's masks as they stand in the answer.
Entries = list[dict[str, Any]]


@dataclass(frozen=True)
class Prompting:
    """How a request wants the masks of prompts on one of its images. best_alone: of three masks, only the best one."""

    engine: Engine
    params: Params
    cost: AnswerCost
    image: PreparedImage
    parts: Parts
    best_alone: bool = False

    async def masks(self, prompts: Prompts, multimask: bool, scores: np.ndarray | float = 1.0) -> list[Entries]:
        """For each prompt its masks, as they stand in the answer. scores: of the boxes that prompt them."""
        assert self.engine.segmenter is not None
        fast = self.engine.segmenter.fast
        wanted = MaskAnswers(self.engine, self.params, self.params.mask_format or "png", fast, self.cost)
        if not self.params.no_overlaps:
            return await self._all(prompts, multimask, wanted)
        found = await self._all(prompts, multimask, wanted.to_be_parted())
        ranks = scores * np.array([one["iou_score"] for (one,) in found])
        return [[one] for one in await wanted.parted([one for (one,) in found], ranks.tolist())]

    async def _all(self, prompts: Prompts, multimask: bool, wanted: MaskAnswers) -> list[Entries]:
        tiling = self.params.tiling
        if tiling is None:
            return await self._whole(prompts, multimask, wanted)
        groups = parts_of(prompts, self.image.size_hw, tiling)
        left = groups.pop(None, [])
        found: dict[int, Entries] = {}
        for part, places in groups.items():
            assert part is not None
            embedding = await self.parts.embedding(self.image, part)
            moved = in_part(prompts, places, part)
            masks = await self._decoded(embedding, moved, multimask, wanted, part)
            for place, entries in zip(places, masks, strict=True):
                if entries is None:
                    left.append(place)
                else:
                    found[place] = entries
        if left:
            left.sort()
            found |= zip(left, await self._whole(of(prompts, left), multimask, wanted), strict=True)
        return [found[place] for place in range(len(prompts))]

    async def _whole(self, prompts: Prompts, multimask: bool, wanted: MaskAnswers) -> list[Entries]:
        embedding = await self.parts.embedding(self.image, None)
        found = await self._decoded(embedding, prompts, multimask, wanted)
        return [entries for entries in found if entries is not None]  # all of them

    async def _decoded(
        self, embedding: Embedding, prompts: Prompts, multimask: bool, wanted: MaskAnswers, part: Part | None = None
    ) -> list[Entries | None]:
        """For each prompt its masks, encoded; while one portion of them is encoded, the next is decoded.

        part: of which the embedding is. None for a click whose object goes on outside of it.
        """
        encoded: list[Entries | None] = []
        last: asyncio.Task[list[Entries | None]] | None = None
        clicks = prompts.boxes_xyxy is None
        try:
            decoded = self.engine.decode(
                embedding, prompts, multimask=multimask, keep_logits=wanted.params.return_logits
            )
            async with aclosing(decoded) as portions:
                async for raw in portions:
                    if len(raw) == len(prompts):  # the only portion
                        return await self._encode(raw, wanted, part, clicks)
                    if last is not None:
                        encoded += await last
                    last = asyncio.create_task(self._encode(raw, wanted, part, clicks))
            assert last is not None  # there is always a prompt
            return encoded + await last
        finally:
            if last is not None:
                last.cancel()
                await asyncio.gather(last, return_exceptions=True)

    async def _encode(
        self, raw: RawMasks, wanted: MaskAnswers, part: Part | None, clicks: bool
    ) -> list[Entries | None]:
        """For each prompt its masks, in the form that was asked for, each with its iou_score."""
        segmenter, size_hw = self.engine.segmenter, self.image.size_hw
        assert segmenter is not None
        raw = raw.best() if self.best_alone else raw

        @timings.stage("post")
        def encode(index: int) -> Entries | None:
            found, scores = segmenter.postprocess(raw, index), raw.iou_scores[index].astype(float).tolist()
            if part is not None:
                if clicks and reaches_on(found[int(raw.iou_scores[index].argmax())], part, size_hw):
                    return None
                found = part.in_image(found, size_hw)
            logits = raw.logits[index].numpy() if wanted.params.return_logits else [None] * len(scores)
            return [wanted.entry(*one) for one in zip(found, scores, logits, strict=True)]

        async def one(index: int) -> Entries | None:
            encoded = await self.engine.aside(encode, index)
            wanted.cost.add(encoded or [])
            return encoded

        return await together(one(index) for index in range(len(raw)))
