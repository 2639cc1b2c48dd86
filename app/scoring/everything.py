"""All masks of one image: asks the engine at every point of a grid, in steps between which others' clicks run."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np

from app import timings
from app.contract.schemas import Params
from app.engine.engine import Engine
from app.errors import BadRequest
from app.scoring.cost import AnswerCost
from app.scoring.mask_answers import MaskAnswers
from app.scoring.prepared_image import Parts, PreparedImage
from models.segmenter.crops import Crop
from models.segmenter.everything import Candidates, FoundMask, TooManyMasksError, batches, candidates
from models.segmenter.grid import Grid
from models.segmenter.protocol import RawMasks
from models.types import Embedding

# Parts of the points whose logits are in memory at once, at most: one is decoded while the others become masks.
_AT_ONCE = 4


@dataclass(frozen=True)
class Search:
    """A search for everything in one image. parts: gives its pixels, if the grid has parts of it."""

    engine: Engine
    grid: Grid
    image: PreparedImage
    parts: Parts

    async def answer(
        self, embedding: Embedding, params: Params, cost: AnswerCost, row: int
    ) -> list[list[dict[str, Any]]]:
        """Each mask as a prediction of its own, encoded, best first. embedding: of the whole image.

        Raises BadRequest.
        """
        try:
            found = await self.masks(embedding)
        except TooManyMasksError as error:
            raise BadRequest(str(error), row=row) from error
        cost.plan(len(found), False, embedding.size_hw)
        assert self.engine.segmenter is not None
        fast = self.engine.segmenter.fast
        answers = MaskAnswers(self.engine, params, params.mask_format or "png", fast, cost)
        scores = [one.score for one in found]
        return [[one] for one in await answers.entries([one.rle for one in found], scores, are_told=True)]

    async def masks(self, embedding: Embedding) -> list[FoundMask]:
        """Raises TooManyMasksError."""
        found = Candidates()
        whole, *parts = self.grid.crops(embedding.size_hw)
        await self._look(whole, embedding, embedding.size_hw, found)
        if parts:
            image = await self.parts.pixels(self.image)
            for crop in parts:
                await self._look(crop, await self._embed(crop, image), embedding.size_hw, found)
        return await self.engine.aside(found.best, self.grid)

    async def _look(self, crop: Crop, embedding: Embedding, size_hw: tuple[int, int], found: Candidates) -> None:
        """Add the candidates of a crop, in the order of its points."""
        choose, segmenter = timings.stage("post")(candidates), self.engine.segmenter
        assert segmenter is not None
        waiting: deque[asyncio.Task[list[FoundMask]]] = deque()

        def begin(raw: RawMasks) -> None:
            waiting.append(asyncio.create_task(self.engine.aside(choose, segmenter, raw, crop, size_hw, self.grid)))

        async def take(left: int) -> None:
            while len(waiting) > left:
                found.add(await waiting[0])
                waiting.popleft()

        try:
            for prompts in batches(crop, self.grid):
                decoding = self.engine.decode(embedding, prompts, multimask=True, keep_logits=True)
                async with aclosing(decoding) as parts:
                    async for raw in parts:
                        begin(raw)
                        await take(min(_AT_ONCE, self.engine.workers))
            await take(0)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _embed(self, crop: Crop, image: np.ndarray) -> Embedding:
        """Of a part of the image. It is not kept, as an image has so many that they would push out others' images."""
        assert self.engine.segmenter is not None
        sample = await self.engine.aside(self.engine.segmenter.preprocess, crop.of(image))
        return await self.engine.embed(None, sample)
