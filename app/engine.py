"""Runs the models for concurrent requests: one thread computes, a pool decodes and encodes.

Knows nothing of requests; what goes in and comes out are the values of `models`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np

from models import sam, yolof
from models.sam import Segmenter
from models.types import Embedding, Prompts
from models.yolof import Detector

P = ParamSpec("P")
T = TypeVar("T")

# Images that the detector sees at once: enough to keep a processor busy, few enough to bound the memory.
DETECTOR_BATCH = 8


class Engine:
    """A detector, a segmenter, or both, with the threads they run on.

    The networks run on one thread, one call after another, because two at once would only take each
    other's processor and memory. Everything before and after them runs in the pool.
    """

    def __init__(self, detector: Detector | None, segmenter: Segmenter | None, workers: int = 0) -> None:
        """workers: threads in the pool; 0 stands for one per processor."""
        self.detector = detector
        self.segmenter = segmenter
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="worker")

    def warm_up(self) -> None:
        """Run every network once, so that what cannot work fails now and the first request is not the slowest."""
        image = np.full((64, 64, 3), 127, np.uint8)
        if self.detector is not None:
            self.detector.detect([image])
        if self.segmenter is not None:
            self.segmenter.segment(image, Prompts(boxes_xyxy=np.array([[8.0, 8.0, 56.0, 56.0]])))

    async def aside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that takes a while in the pool, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    async def detect(self, samples: Sequence[yolof.Sample]) -> list[yolof.RawDetections]:
        """Run the detector's network; one result per sample, in order."""
        assert self.detector is not None
        raws: list[yolof.RawDetections] = []
        for start in range(0, len(samples), DETECTOR_BATCH):
            raws += await self._run(self.detector.forward, samples[start : start + DETECTOR_BATCH])
        return raws

    async def embed(self, sample: sam.Sample) -> Embedding:
        """Run SAM's image encoder."""
        assert self.segmenter is not None
        (embedding,) = await self._run(self.segmenter.embed, [sample])
        return embedding

    async def decode(self, embedding: Embedding, prompts: Prompts, *, multimask: bool) -> sam.RawMasks:
        """Run SAM's mask decoder for all prompts."""
        assert self.segmenter is not None
        return await self._run(self.segmenter.decode, embedding, prompts, multimask=multimask)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._compute, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Wait for what is running and end the threads."""
        self._compute.shutdown()
        self._pool.shutdown()
