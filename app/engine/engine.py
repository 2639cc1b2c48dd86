"""Runs the models for concurrent requests: on every device, batched across requests, clicks before photos.

Knows nothing of requests; what goes in and comes out are the values of `models`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from app import timings
from app.engine.aside import call_in, guarded
from app.engine.cache import EmbeddingCache, compact
from app.engine.compute import Compute, Work
from app.engine.fairness import FairSemaphore
from app.engine.freed_memory import trim
from app.engine.observer import Observer
from app.errors import NotNumbers, Unavailable
from models.detector.protocol import Detector, RawDetections, Sample
from models.devices import flush_denormals
from models.segmenter.protocol import DecodeRequest, RawMasks, Segmenter
from models.types import Embedding, Prompts

P = ParamSpec("P")
T = TypeVar("T")


# Images that are fetched at once, for all requests together.
FETCHES = 16


@dataclass(frozen=True)
class Batches:
    """How much a device computes at once; see `for_device`.

    pixels: of all images that the detector or SAM's encoder sees, 1024 x 1024 for one at SAM's full size. prompts: that
    the decoder sees, and the most that a click has to wait for. shared: whether prompts may be of several images.
    """

    pixels: int
    prompts: int
    shared: bool = True

    @classmethod
    def for_device(cls, device: torch.device) -> Batches:
        """A GPU wants batches to be busy. A processor is busy with one image, and only waits longer for more."""
        return cls(8 * 2**20, 64) if device.type == "cuda" else cls(2**20, 8)

    def of_one(self) -> Batches:
        """With one image in each, so that an image's numbers are the same to the last digit, whatever else there is."""
        return replace(self, pixels=1, shared=False)


@dataclass(frozen=True, eq=False)
class Models:
    """The models as they lie on one device; at least one of the two."""

    detector: Detector[Any, Any] | None
    segmenter: Segmenter[Any] | None

    @property
    def device(self) -> torch.device:
        model = self.detector or self.segmenter
        assert model is not None
        return model.device

    def input_pixels(self) -> int:
        """The most pixels that one of the networks sees of a square image."""
        pixels = 0 if self.segmenter is None else self.segmenter.image_size**2
        if self.detector is not None:
            image = np.full((64, 64, 3), 127, np.uint8)
            sample = self.detector.preprocess(image, ("object",) if self.detector.takes_texts else ())
            pixels = max(pixels, sample.pixels)
        return pixels


class Engine:
    """The models on one device or several, with the threads they run on and the embeddings they have made.

    detector, segmenter: for what runs before and after the networks, in the pool; the same for all devices.
    """

    def __init__(
        self,
        models: Sequence[Models],
        cache: EmbeddingCache | None = None,
        workers: int = 0,
        *,
        images_apart: bool = False,
    ) -> None:
        """models: for each device. workers: threads in the pool; 0 stands for one per processor.

        images_apart: whether the networks see one image at a time, however many wait.
        """
        self.detector = models[0].detector
        self.segmenter = models[0].segmenter
        self.cache = cache or EmbeddingCache(0)
        self._on_failure: Callable[[], object] = lambda: None
        self.images_apart = images_apart
        batches = [Batches.for_device(one.device) for one in models]
        self._devices = [
            _Device(one, size.of_one() if images_apart else size, lambda: self._on_failure())
            for one, size in zip(models, batches, strict=True)
        ]
        self.workers = workers or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="worker")
        self._photos = FairSemaphore(self.workers)
        self._fetchers = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")
        self._fetches = FairSemaphore(FETCHES)

    @property
    def devices(self) -> list[torch.device]:
        return [device.models.device for device in self._devices]

    @property
    def healthy(self) -> bool:
        """Whether every device still computes."""
        return not any(device.compute.ended for device in self._devices)

    @property
    def load(self) -> dict[str, int]:
        """For each device by name, the jobs that wait for it or run on it."""
        return {str(device.models.device): device.compute.load for device in self._devices}

    @property
    def lost(self) -> set[str]:
        """The names of the devices that compute no more."""
        return {str(device.models.device) for device in self._devices if device.compute.ended}

    def observe(self, observer: Observer) -> None:
        """From now on, tell `observer` of the work that the devices do: of kind `detect`, `encode` or `prompt`."""
        for device in self._devices:
            device.compute.observer = observer

    def when_failed(self, call: Callable[[], object]) -> None:
        """`call` this as soon as a device computes no more: at once, or from its thread."""
        self._on_failure = call
        if not self.healthy:
            call()

    async def warm_up(self) -> None:
        """Run every network once on every device, so that what cannot work fails now and no first request is slow."""
        await asyncio.gather(*(device.warm_up() for device in self._devices))
        trim()  # what loading and this have left behind, before the first image needs memory

    async def prepare(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`aside`, for photos to be decoded and resized: so many at a time as there are workers, of all requests.

        The others wait here and not in the pool, where the short steps of clicks would wait behind them.
        """
        async with self._photos.place():
            return await self.aside(function, *args, **kwargs)

    async def fetch(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that waits for others' servers, in threads that do nothing else; clients take turns."""
        async with self._fetches.place():
            return await call_in(self._fetchers, function, *args, **kwargs)

    async def aside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that takes a while in the pool, beside the event loop."""
        return await call_in(self._pool, function, *args, **kwargs)

    async def aside_if(self, large: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`aside` where it is much work; what is little takes less time than its way to a thread and back."""
        return await self.aside(function, *args, **kwargs) if large else guarded(function, *args, **kwargs)

    async def detect(self, sample: Sample) -> RawDetections:
        """Run the detector's network, where the queue is shortest."""
        device = _least_busy(self._devices)
        return await device.compute.do(device.detecting, sample)

    async def embed(self, key: str | None, sample: Any) -> Embedding:
        """Run SAM's image encoder, unless the embedding of that `key` is there or on its way.

        key: stands for the image's content, see `app.engine.keys.content_key`; None for what is not to be kept.
        """
        if key is None:
            device = _least_busy(self._devices)
            return await device.compute.do(device.embedding, sample)
        made = False
        began = time.perf_counter()

        async def make() -> Embedding:
            nonlocal made
            made = True  # and what it took is noted where it is computed
            device = _least_busy(self._devices)
            return await device.compute.do(device.embedding, sample)

        try:
            return await self.cache.get(key, make)
        except Unavailable:
            if not self.cache.stats().bytes:
                raise
            self.cache.clear()  # which frees memory where there was too little of it
            return await self.cache.get(key, make)
        finally:
            if not made:  # by another request, or read from the disk
                timings.add("encode", began, time.perf_counter())

    async def decode(
        self, embedding: Embedding, prompts: Prompts, *, multimask: bool, keep_logits: bool = False
    ) -> AsyncGenerator[RawMasks, None]:
        """Run SAM's mask decoder for all prompts, where the embedding is; yields the masks in order, by parts.

        The next part waits behind the others' work, so a request with a thousand prompts keeps nobody waiting.
        """
        here = [one for one in self._devices if one.models.device == embedding.features.device]
        device = _least_busy(here or self._devices)
        if device.compute.ended and self.cache.stats().entries:  # the others may go on, with embeddings of their own
            self.cache.clear()
            raise Unavailable("the device that knew this image has stopped; the next request goes to another")
        for part in _parts(prompts, device.batches.prompts):
            yield await device.compute.do(device.decoding, DecodeRequest(embedding, part, multimask, keep_logits))

    async def aclose(self) -> None:
        """Wait for what is running, and for embeddings on their way to the disk; then end the threads."""
        await self.cache.aclose()
        for device in self._devices:
            await asyncio.to_thread(device.compute.close)
        for pool in (self._pool, self._fetchers):
            await asyncio.to_thread(pool.shutdown)


class _Device:
    """One device: its models, its compute thread, and the three kinds of work that it does."""

    def __init__(self, models: Models, batches: Batches, died: Callable[[], object]) -> None:
        self.models = models
        self.batches = batches
        # A GPU runs two streams at once; on a processor two threads would only take the cores from each other.
        is_cuda = models.device.type == "cuda"
        self.compute = Compute(
            f"compute-{models.device}",
            urgent_thread=is_cuda,
            context=partial(_prepared, models),
            check=partial(torch.cuda.synchronize, models.device) if is_cuda else lambda: None,
            died=died,
        )
        self.detecting: Work[Sample, RawDetections] = Work(
            self._detect, at_once=batches.pixels, cost=lambda sample: sample.pixels, kind="detect"
        )
        side = 1024 if models.segmenter is None else models.segmenter.image_size
        self.embedding: Work[Any, Embedding] = Work(
            self._embed, at_once=max(1, batches.pixels // side**2), kind="encode"
        )
        self.decoding: Work[DecodeRequest, RawMasks] = Work(
            self._decode,
            at_once=batches.prompts if batches.shared else 1,
            cost=lambda request: len(request.prompts),
            urgent=True,
            split=_halves,
            join=RawMasks.concatenate,
            kind="prompt",
            size=lambda request: len(request.prompts),
        )

    async def warm_up(self) -> None:
        image = np.full((64, 64, 3), 127, np.uint8)
        prompts = Prompts(boxes_xyxy=np.array([[8.0, 8.0, 56.0, 56.0]]))
        detector, segmenter = self.models.detector, self.models.segmenter
        if detector is not None:
            sample = detector.preprocess(image, ("object",) if detector.takes_texts else ())
            detector.postprocess(await self.compute.do(self.detecting, sample))
        if segmenter is not None:
            await self.compute.do(_once(segmenter.capture_encoder), None)
            embedding = await self.compute.do(self.embedding, segmenter.preprocess(image))
            await self.compute.do(_once(partial(segmenter.capture_decoder, embedding), urgent=True), None)
            raw = await self.compute.do(self.decoding, DecodeRequest(embedding, prompts, multimask=False))
            segmenter.postprocess(raw, 0)

    def _detect(self, samples: Sequence[Sample], between: Callable[[], None]) -> list[RawDetections]:
        assert self.models.detector is not None
        found = self.models.detector.forward(samples, between)
        _check_numbers(one.is_numbers for one in found)
        return found

    def _embed(self, samples: Sequence[Any], between: Callable[[], None]) -> list[Embedding]:
        assert self.models.segmenter is not None
        # Each on its own, so that the cache can let go of one of them.
        embeddings = [compact(one) for one in self.models.segmenter.embed(samples, between)]
        # Float32, as the sum of a million numbers in half precision may be none.
        _check_numbers(torch.stack([one.features.sum(dtype=torch.float32) for one in embeddings]).isfinite().tolist())
        if self.models.device.type == "cuda":  # the decoder reads them from another stream
            torch.cuda.current_stream().synchronize()
        return embeddings

    def _decode(self, requests: Sequence[DecodeRequest], between: Callable[[], None]) -> list[RawMasks]:
        assert self.models.segmenter is not None
        raws = self.models.segmenter.decode_batch(requests, between)
        _check_numbers(np.isfinite(raw.iou_scores).all() for raw in raws)
        return raws


def _once(call: Callable[[], None], *, urgent: bool = False) -> Work[None, None]:
    """Work that is this call, for whom it has to happen on a compute thread."""

    def run(items: Sequence[None], between: Callable[[], None]) -> list[None]:
        call()
        return [None]

    return Work(run, urgent=urgent)


def _check_numbers(of_items: Iterable[object]) -> None:
    """Raises NotNumbers where one of a batch is none; the compute thread then runs them apart."""
    if not all(of_items):
        raise NotNumbers()


def _halves(request: DecodeRequest) -> list[DecodeRequest]:
    """A request as two or three of about half its prompts; [] for a single prompt, which has no parts."""
    count = len(request.prompts)
    if count == 1:
        return []
    return [replace(request, prompts=half) for half in _parts(request.prompts, count // 2)]


def _least_busy(devices: Sequence[_Device]) -> _Device:
    """Of those that still work, if any does."""
    return min(devices, key=lambda one: (one.compute.ended, one.compute.load))


def _prepared(models: Models, urgent: bool) -> AbstractContextManager[object]:
    """What a compute thread is in for its life: on a GPU a CUDA stream, on which urgent work overtakes the rest."""
    if models.device.type != "cuda":
        torch.get_num_threads()  # a thread that is new takes the process's number over when asked, and not before
        if all(model.fast for model in (models.detector, models.segmenter) if model is not None):
            flush_denormals()
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(models.device, priority=-1 if urgent else 0))


def _parts(prompts: Prompts, at_once: int) -> list[Prompts]:
    """The prompts in order, in parts of at most `at_once`."""
    arrays: tuple[Any, ...] = (prompts.points_xy, prompts.point_labels, prompts.boxes_xyxy, prompts.mask_logits)
    return [
        Prompts(*(None if array is None else array[start : start + at_once] for array in arrays))
        for start in range(0, len(prompts), at_once)
    ]
