"""What children run: each function loads one side's model and returns the task of a single run.

They run in processes of their own, so each imports what it needs, and nothing of ours gets into the reference's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import workload
from benchmarks.child import Task

# The reference's side


def reference_scorers(device: str, segmenter: Path | None, detector: Path | None, **test_settings: float) -> Task:
    """A run is (kind, body) and gives the answer: "masks", "boxes", or with both models "pipeline".

    test_settings: as ReferenceDetector takes them.
    """
    from benchmarks.reference import ReferenceDetector, ReferencePipeline, ReferenceSegmenter

    scorers: dict[str, Task] = {}
    if segmenter is not None:
        sam = ReferenceSegmenter(segmenter, device)
        scorers["masks"] = sam.score
    if detector is not None:
        yolof = ReferenceDetector(detector, device, **test_settings)
        scorers["boxes"] = yolof.score
    if segmenter is not None and detector is not None:
        scorers["pipeline"] = ReferencePipeline(yolof, sam).score
    return lambda work: scorers[work[0]](work[1])


def reference_scorer(device: str, kind: str, segmenter: Path | None, detector: Path | None, settings: Any) -> Task:
    """A run is a body; kind and settings as for `reference_scorers`."""
    score = reference_scorers(device, segmenter, detector, **settings)
    return lambda body: score((kind, body))


def reference_encoder(device: str, folder: Path) -> Task:
    """A run encodes the picture, which is ready on the device."""
    from benchmarks.reference import ReferenceSegmenter

    loop = ReferenceSegmenter(folder, device)
    pixels = loop.pixels(Image.fromarray(workload.picture()))
    return _finished(device, lambda _: loop.encode(pixels))


def reference_decoder(device: str, folder: Path, count: int) -> Task:
    """A run decodes `count` boxes on the picture's ready embedding."""
    from benchmarks.reference import ReferenceSegmenter

    loop = ReferenceSegmenter(folder, device)
    image = Image.fromarray(workload.picture())
    embedding = loop.encode(loop.pixels(image))
    boxes = loop.resized_boxes(image, workload.boxes(count))
    return lambda _: loop.decode(embedding, boxes)


def reference_png(count: int) -> Task:
    """A run encodes `count` large masks."""
    from benchmarks.reference import encode_mask

    masks = workload.large_masks(count)
    return lambda _: [encode_mask(mask) for mask in masks]


# Our side


def our_encoder(device: str, folder: Path, dtype: str) -> Task:
    segmenter = loaded_segmenter(device, folder, dtype)
    sample = segmenter.preprocess(workload.picture())
    return _finished(device, lambda _: segmenter.embed([sample]))


def our_decoder(device: str, folder: Path, dtype: str, count: int) -> Task:
    from models.types import Prompts

    segmenter = loaded_segmenter(device, folder, dtype)
    (embedding,) = segmenter.embed([segmenter.preprocess(workload.picture())])
    prompts = Prompts(boxes_xyxy=np.array(workload.boxes(count)))
    return _finished(device, lambda _: segmenter.decode(embedding, prompts, multimask=False))


def our_png(count: int) -> Task:
    from app.contract.masks import encode_png

    masks = workload.large_masks(count)
    return lambda _: [encode_png(mask) for mask in masks]


def our_loop(device: str, folder: Path, dtype: str) -> Task:
    """A run is (count, batch): that many images encoded in such batches, with one mask each, to the PNG."""
    from app.contract.masks import encode_png
    from models.types import Prompts

    segmenter = loaded_segmenter(device, folder, dtype)
    sample = segmenter.preprocess(workload.picture())
    prompts = Prompts(points_xy=np.array([[[280.0, 320.0]]]))

    def loop(work: tuple[int, int]) -> None:
        count, batch = work
        for start in range(0, count, batch):
            for embedding in segmenter.embed([sample] * min(batch, count - start)):
                raw = segmenter.decode(embedding, prompts, multimask=False)
                for mask in segmenter.postprocess(raw, 0):
                    encode_png(mask)

    return loop


def networks_alone(detector: Path, segmenter: Path, dtype: str, folder: Path, threshold: float) -> Task:
    """A run is how many photos the networks take at once: each of the folder's photos, ready in memory, through both.

    Each of several has its own networks and one thread; one alone has all of the process's threads.
    """
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from models.detector.mmdetection import MMDetector
    from models.types import Prompts

    numbers = getattr(torch, dtype)
    cores = torch.get_num_threads()
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    both = [(MMDetector.load(detector, dtype=numbers), loaded_segmenter("cpu", segmenter, dtype)) for _ in range(cores)]
    samples = [(both[0][0].preprocess(image), both[0][1].preprocess(image)) for image in images]
    lane = threading.local()

    def networks(number: int) -> None:
        find, segment = both[lane.number]
        seen, resized = samples[number]
        (raw,) = find.forward([seen])
        boxes = find.postprocess(raw, score_threshold=threshold).boxes_xyxy
        (embedding,) = segment.embed([resized])
        if len(boxes):
            segment.decode(embedding, Prompts(boxes_xyxy=boxes.astype(np.float64)), multimask=False)

    def run(lanes: int) -> None:
        free = iter(range(lanes))

        def begin() -> None:
            lane.number = next(free)
            torch.set_num_threads(cores if lanes == 1 else 1)

        with ThreadPoolExecutor(lanes, initializer=begin) as pool:
            list(pool.map(networks, range(len(samples))))

    return run


def loaded_segmenter(device: str, folder: Path, dtype: str) -> Any:
    """As the service's compute threads have it."""
    import torch

    from models.devices import flush_denormals
    from models.segmenter.families import SEGMENTERS

    flush_denormals()
    return SEGMENTERS.of(folder).load(folder, torch.device(device), getattr(torch, dtype), fast=True)


# The machine's limit


def gemms(device: str, folder: Path, dtype: str) -> Task:
    """A run is the four matrix products of one layer of a SAM's encoder, each by the fastest library at hand: times the
    layers, what no encoder can beat. It gives the names of `models.segmenter.products.ways` that were the fastest."""
    import torch
    from transformers import SamConfig

    from models.segmenter.products import Way, ways
    from models.segmenter.trials import least_seconds

    config = SamConfig.from_pretrained(folder).vision_config
    tokens = (config.image_size // config.patch_size) ** 2
    width, inner = config.hidden_size, config.mlp_dim
    chosen: list[tuple[str, Way, torch.Tensor]] = []

    with torch.inference_mode():
        for before, after in ((width, 3 * width), (width, width), (width, inner), (inner, width)):
            linear = torch.nn.Linear(before, after, device=device, dtype=getattr(torch, dtype))
            activations = torch.randn(tokens, before, device=device).to(getattr(torch, dtype))
            made = {name: make() for name, make in ways(linear, tokens, gelu=False).items()}
            times = least_seconds({name: partial(way, activations, None) for name, way in made.items()})
            best = min(times, key=lambda name: times[name])
            chosen.append((best, made[best], activations))

    def products(_: Any) -> list[str]:
        with torch.inference_mode():
            for _, way, activations in chosen:
                way(activations, None)
        return [name for name, _, _ in chosen]

    return _finished(device, products)


def _finished(device: str, task: Callable[[Any], Any]) -> Task:
    """The task, done only when the device is."""
    if not device.startswith("cuda"):
        return task

    def run(work: Any) -> Any:
        import torch

        result = task(work)
        torch.cuda.synchronize(device)
        return result

    return run
