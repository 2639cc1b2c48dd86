"""Models that only take time: what they find follows from a photo's bytes. PyTorch is not imported."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.prediction import ImageSource, PredictedObject, PredictionError, read_image
from models.images.decoding import ImageError, image_size_hw
from models.rle import Rle, encode_rle


@dataclass(frozen=True)
class Sleeping:
    """Opens such models, wherever it is called. encode_s: of each photo; decode_s: of each of its objects.

    killer: a file that ends so ends the process.
    """

    encode_s: float = 0.05
    decode_s: float = 0.002
    objects: int = 3
    killer: bytes = b""

    def __call__(self) -> SleepingPredictor:
        return SleepingPredictor(self)


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
