"""Models that only take time, of a folder and of the service: what they find follows from a photo.

As a Predictor they find boxes by a photo's bytes, and PyTorch is not imported. As the service's segmenter they answer a
click by the number that stands in a photo's first pixel: a mask of nothing, with `iou_score_of` both.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine.loading import Choice, Chosen
from app.prediction import ImageSource, PredictedObject, PredictionError, read_image
from app.settings import Settings
from models.images.decoding import ImageError, image_size_hw
from models.rle import Rle, encode_rle
from models.types import Embedding

if TYPE_CHECKING:
    from torch import Tensor

    from app.engine.engine import Engine
    from app.serving.own import Source
    from models.segmenter.protocol import DecodeRequest, RawMasks


@dataclass(frozen=True)
class Sleeping:
    """Opens such models, wherever it is called. encode_s: of each photo; decode_s: of each of its objects, or clicks.

    killer: a file that ends so ends the process. fails_once: a file whose presence lets the next click lose the device.
    """

    encode_s: float = 0.05
    decode_s: float = 0.002
    objects: int = 3
    killer: bytes = b""
    fails_once: Path | None = None

    def __call__(self) -> SleepingPredictor:
        return SleepingPredictor(self)

    def source(self) -> Source:
        """What `app.cluster.service.deployment.application` takes in place of models from files."""
        from app.serving.own import Source

        return Source(_choose, partial(_load, self))


class SleepingPredictor:
    """A `Predictor` with one network, which one photo at a time is in."""

    class_names = ("thing",)
    description: Mapping[str, Any] = {
        "detector": {"name": "sleeping", "device": "cpu", "classes": ["thing"]},
        "segmenter": {"name": "sleeping", "device": "cpu"},
    }
    images_apart = False

    def __init__(self, times: Sleeping) -> None:
        self._times = times
        self._turn = threading.Lock()

    def identity(self) -> dict[str, str | None]:
        return {"detector": "sleeping", "segmenter": "sleeping"}

    def close(self) -> None:
        pass

    def detect(
        self, image: ImageSource, score_threshold: float | None = None, *, masks: bool = False
    ) -> list[PredictedObject]:
        return [PredictedObject("thing", 0.5, box) for box in self._found(image)]

    def segment(self, image: ImageSource, boxes_xyxy: np.ndarray) -> list[PredictedObject]:
        size_hw = self._looked_at(image, len(boxes_xyxy))
        return [
            PredictedObject(None, None, (x1, y1, x2, y2), _filled(size_hw, (x1, y1, x2, y2)), 0.9)
            for x1, y1, x2, y2 in boxes_xyxy.tolist()
        ]

    def detect_and_segment(self, image: ImageSource, score_threshold: float | None = None) -> list[PredictedObject]:
        boxes = self._found(image)
        size_hw = self._looked_at(image, len(boxes))
        return [PredictedObject("thing", 0.5, box, _filled(size_hw, box), 0.9) for box in boxes]

    def segment_points(self, image: ImageSource, points_xy: np.ndarray) -> list[PredictedObject]:
        return self.segment(image, np.tile(points_xy, 2) + (0, 0, 1, 1))

    def three_masks(self, image: ImageSource, boxes_xyxy: np.ndarray) -> list[list[Rle]]:
        return [[one.rle] * 3 for one in self.segment(image, boxes_xyxy) if one.rle is not None]

    def everything(self, image: ImageSource, **grid: float) -> list[PredictedObject]:
        return self.detect_and_segment(image)

    def _found(self, image: ImageSource) -> list[tuple[float, float, float, float]]:
        data = read_image(image)
        if self._times.killer and data.endswith(self._times.killer):
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            height, width = image_size_hw(data, exif_orientation=True)
        except ImageError as error:
            raise PredictionError(str(error)) from error
        numbers = hashlib.sha256(data).digest()
        corners = [
            (width * numbers[2 * i] // 512, height * numbers[2 * i + 1] // 512) for i in range(self._times.objects)
        ]
        return [(float(x), float(y), float(x + width // 4 + 1), float(y + height // 4 + 1)) for x, y in corners]

    def _looked_at(self, image: ImageSource, objects: int) -> tuple[int, int]:
        with self._turn:
            time.sleep(self._times.encode_s + self._times.decode_s * objects)
        return image_size_hw(read_image(image), exif_orientation=True)


def _filled(size_hw: tuple[int, int], box: tuple[float, float, float, float]) -> Rle:
    mask = np.zeros(size_hw, np.uint8)
    x1, y1, x2, y2 = map(int, box)
    mask[y1:y2, x1:x2] = 1
    return encode_rle(mask)


class DeviceLost(BaseException):
    """Passes by all that handles a job's own failure, as the loss of a device does."""


class SleepingSegmenter:
    """Satisfies `models.segmenter.protocol.Segmenter` as far as the service needs it."""

    # One photo at a time, as SAM's encoder on a processor.
    image_size, mask_side, fast = 1024, 16, False

    def __init__(self, times: Sleeping) -> None:
        import torch

        self.device, self.dtype = torch.device("cpu"), torch.float32
        self._times = times

    def preprocess(self, image: np.ndarray) -> tuple[int, tuple[int, int]]:
        """(H, W, 3) uint8 -> the photo's number, and its size."""
        return number_of(image), (image.shape[0], image.shape[1])

    def embed(self, samples: Sequence[Any], between: Callable[[], None] | None = None) -> list[Embedding]:
        """Features (1, 1, 1): the photo's number."""
        import torch

        time.sleep(self._times.encode_s * len(samples))
        return [Embedding(torch.full((1, 1, 1), float(number)), size, size) for number, size in samples]

    def decode_batch(
        self, requests: Sequence[DecodeRequest], between: Callable[[], None] | None = None
    ) -> list[RawMasks]:
        """Scores (N, M) of each, by the prompt's first point."""
        if self._times.fails_once is not None:
            try:
                os.unlink(self._times.fails_once)
            except FileNotFoundError:
                pass
            else:
                raise DeviceLost()
        time.sleep(self._times.decode_s * len(requests))
        return [self._answered(one) for one in requests]

    def _answered(self, request: DecodeRequest) -> RawMasks:
        import torch

        from models.segmenter.protocol import RawMasks

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


def _choose(settings: Settings) -> Choice:
    return _Choice(None, Chosen(Path("."), "sleeping", demo=False))


def _load(times: Sleeping, settings: Settings, choice: Choice) -> Engine:
    from app.engine.cache import EmbeddingCache
    from app.engine.engine import Engine, Models

    cache = EmbeddingCache(int(settings.embedding_cache_mb * 2**20))
    return Engine([Models(None, SleepingSegmenter(times))], cache, workers=2)  # type: ignore[arg-type]


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
