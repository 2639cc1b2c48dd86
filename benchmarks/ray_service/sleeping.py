"""A segmenter that takes as long as it is told, and whose answers anybody can say.

A photo's number stands in its first pixel; a click's answer is a mask of nothing, with `iou_score_of` both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.engine.cache import EmbeddingCache
from app.engine.engine import Engine, Models
from app.engine.loading import Choice, Chosen
from app.serving.own import Source
from app.settings import Settings
from models.segmenter.protocol import DecodeRequest, RawMasks
from models.types import Embedding


@dataclass(frozen=True)
class Costs:
    """Seconds of a photo and of a click. fails_once: a file whose presence lets the next click lose the device."""

    encode_s: float = 0.05
    decode_s: float = 0.002
    fails_once: Path | None = None


class DeviceLost(BaseException):
    """Passes by all that handles a job's own failure, as the loss of a device does."""


class Sleeping:
    """Satisfies `models.segmenter.protocol.Segmenter` as far as the service needs it."""

    # One photo at a time, as SAM's encoder on a processor.
    image_size, mask_side, fast = 1024, 16, False
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def preprocess(self, image: np.ndarray) -> tuple[int, tuple[int, int]]:
        """(H, W, 3) uint8 -> the photo's number, and its size."""
        return number_of(image), (image.shape[0], image.shape[1])

    def embed(self, samples: Sequence[Any], between: Callable[[], None] | None = None) -> list[Embedding]:
        """Features (1, 1, 1): the photo's number."""
        time.sleep(self._costs.encode_s * len(samples))
        return [Embedding(torch.full((1, 1, 1), float(number)), size, size) for number, size in samples]

    def decode_batch(
        self, requests: Sequence[DecodeRequest], between: Callable[[], None] | None = None
    ) -> list[RawMasks]:
        """Scores (N, M) of each, by the prompt's first point."""
        if self._costs.fails_once is not None:
            try:
                os.unlink(self._costs.fails_once)
            except FileNotFoundError:
                pass
            else:
                raise DeviceLost()
        time.sleep(self._costs.decode_s * len(requests))
        return [self._answered(one) for one in requests]

    def _answered(self, request: DecodeRequest) -> RawMasks:
        photo, points = int(request.embedding.features.item()), request.prompts.points_xy
        masks = 3 if request.multimask else 1
        xy = np.zeros((len(request.prompts), 2)) if points is None else points[:, 0]
        scores = np.array([[iou_score_of(photo, x, y)] * masks for x, y in xy], np.float32)
        logits = torch.zeros((len(scores), masks, self.mask_side, self.mask_side))
        return RawMasks(logits, scores, request.embedding.size_hw, request.embedding.resized_hw)

    def postprocess(self, raw: RawMasks, index: int) -> np.ndarray:
        """(M, H, W) bool, all of them false."""
        return np.zeros((raw.iou_scores.shape[1], *raw.size_hw), np.bool_)

    def named_features(self, features: Tensor) -> dict[str, Tensor]:
        """As they are."""
        return {"image_embeddings": features}

    def capture_encoder(self) -> None:
        """Nothing to get ready."""

    def capture_decoder(self, embedding: Embedding) -> None:
        """Nothing to get ready."""


class _Choice(Choice):
    @property
    def hashes(self) -> dict[str, str]:
        return {"segmenter": "0" * 64}


def source(costs: Costs) -> Source:
    """What `app.cluster.service.deployment.application` takes in place of models from files."""
    return Source(_choose, partial(_load, costs))


def _choose(settings: Settings) -> Choice:
    return _Choice(None, Chosen(Path("."), "sleeping", demo=False))


def _load(costs: Costs, settings: Settings, choice: Choice) -> Engine:
    cache = EmbeddingCache(int(settings.embedding_cache_mb * 2**20))
    return Engine([Models(None, Sleeping(costs))], cache, workers=2)  # type: ignore[arg-type]


def iou_score_of(photo: int, x: float, y: float) -> float:
    """In 0..1, to three digits."""
    return (photo * 7 + int(x) * 31 + int(y) * 101) % 997 / 1000


def number_of(image: np.ndarray) -> int:
    """What stands in the first pixel of a photo (H, W, 3)."""
    red, green, blue = map(int, image[0, 0])
    return red + 256 * green + 65536 * blue


def photo(number: int, size_hw: tuple[int, int]) -> np.ndarray:
    """A photo (H, W, 3) uint8 of this number; the rest is noise, of which a PNG file has three bytes a pixel."""
    image = np.random.default_rng(number).integers(0, 256, (*size_hw, 3), np.uint8)
    image[0, 0] = number % 256, number // 256 % 256, number // 65536
    return image
