"""What the detector finds in an image: in the whole of it, and in its tiles where a request asks for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from app import timings
from app.contract.schemas import Params
from app.engine.engine import Engine
from app.errors import NotNumbers
from app.scoring.prepared_image import Parts, PreparedImage
from app.scoring.waiting import together
from models.detector.protocol import Sample
from models.detector.tiles import merged
from models.tiles import Part, Tiling
from models.types import Detections

# Tiles of a request that are prepared and wait for the network, at most: enough for a GPU's batch.
_AT_ONCE = 16
# Which of a tile's boxes remain is decided with its neighbours', so their number is not cut below this before.
_LEAST_OF_TILE = 100


@dataclass(frozen=True)
class Finding:
    """How a request wants boxes found. masks: whether the detector's own are wanted too."""

    engine: Engine
    params: Params
    score_threshold: float | None
    masks: bool

    async def boxes(self, image: PreparedImage, parts: Parts) -> Detections:
        """Best first, in pixels of the image."""
        assert image.for_detector is not None
        limit, tiling = self.params.max_detections, self.params.tiling
        if tiling is None or tiling.count(image.size_hw) == 1:
            return await self._found(image.for_detector, limit)
        return await self._in_tiles(image, await parts.pixels(image), tiling)

    async def _in_tiles(self, image: PreparedImage, pixels: np.ndarray, tiling: Tiling) -> Detections:
        detector, params = self.engine.detector, self.params
        assert detector is not None and image.for_detector is not None
        limit = None if params.max_detections is None else max(params.max_detections, _LEAST_OF_TILE)
        texts = image.names if detector.takes_texts else ()
        turns = asyncio.Semaphore(_AT_ONCE)

        async def of_whole(sample: Sample) -> tuple[Part, Detections]:
            return Part((0, 0, image.size_hw[1], image.size_hw[0])), await self._found(sample, limit)

        async def of_tile(tile: Part) -> tuple[Part, Detections]:
            async with turns:
                prepare = timings.stage("decode")(detector.preprocess)
                sample = await self.engine.aside(prepare, tile.of(pixels), texts)
                return tile, await self._found(sample, limit)

        views = await together([of_whole(image.for_detector), *map(of_tile, tiling.tiles(image.size_hw))])
        return await self.engine.aside(
            timings.stage("post")(merged),
            views,
            image.size_hw,
            merge=tiling.merge,
            iou_threshold=params.iou_threshold,
            max_detections=params.max_detections,
            class_agnostic=params.class_agnostic_nms,
        )

    async def _found(self, sample: Sample, max_detections: int | None) -> Detections:
        detector, params = self.engine.detector, self.params
        assert detector is not None
        found = await self.engine.aside(
            timings.stage("post")(detector.postprocess),
            await self.engine.detect(sample),
            score_threshold=self.score_threshold if params.score_threshold is None else params.score_threshold,
            iou_threshold=params.iou_threshold,
            max_detections=max_detections,
            class_agnostic=params.class_agnostic_nms,
            masks=self.masks,
        )
        if not (np.isfinite(found.boxes_xyxy).all() and np.isfinite(found.scores).all()):
            raise NotNumbers()
        return found
