"""An image of a request, prepared for the networks, and its parts where these are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from app import timings
from app.contract.schemas import Params
from app.engine.engine import Engine
from app.engine.keys import part_key
from app.images.reading import ImageLimits
from models.detector.protocol import Sample
from models.images.decoding import decode_image
from models.tiles import Part
from models.types import Embedding


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """What is kept of an image: only what the networks still need of it.

    key: stands for its content. row: the first that has it. embedding: where it was known already; there is no
    for_segmenter then. file: as it came, where parts of the image will be needed too. names: of the labels that the
    detector may find in it.
    """

    key: str
    size_hw: tuple[int, int]
    row: int
    for_detector: Sample | None = None
    for_segmenter: Any | None = None
    embedding: Embedding | None = None
    file: bytes | None = None
    names: Sequence[str] = ()


class Parts:
    """The parts of a request's images, as the networks want them.

    With tiles, images are answered in turn, and so are rows that want everything: the pixels of one image are in memory
    at a time, and what is of one image decodes it once.
    """

    def __init__(self, engine: Engine, limits: ImageLimits, params: Params) -> None:
        self._engine, self._limits, self._params = engine, limits, params
        self._pixels: tuple[PreparedImage, np.ndarray] | None = None
        self._turns = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The only turn with tiles, and else any of many."""
        async with self._turns if self._params.tiling is not None else nullcontext():
            yield

    async def pixels(self, image: PreparedImage) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        if self._pixels is None or self._pixels[0] is not image:
            self._pixels = None
            self._pixels = image, await self._engine.prepare(self._decode, image)
        return self._pixels[1]

    async def embedding(self, image: PreparedImage, part: Part | None) -> Embedding:
        """Of a part, or for None of the whole image; it is kept for the next request."""
        engine = self._engine
        if part is None:
            if image.embedding is not None:
                return image.embedding
            assert image.for_segmenter is not None
            return await engine.embed(image.key, image.for_segmenter)
        key = part_key(image.key, part.box_xyxy)
        known = engine.cache.peek(key)
        if known is not None:
            return known
        assert engine.segmenter is not None
        pixels = await self.pixels(image)
        return await engine.embed(key, await engine.aside(engine.segmenter.preprocess, part.of(pixels)))

    @timings.stage("decode")
    def _decode(self, image: PreparedImage) -> np.ndarray:
        assert image.file is not None
        upright, most = self._params.exif_orientation, self._limits.max_pixels
        return decode_image(image.file, exif_orientation=upright, max_pixels=most)
