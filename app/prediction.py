"""What is predicted of an image, and by what: a predictor's methods, what it finds, its errors.

PredictorError            no image can be answered: no such service, or it has stopped
└── PredictionError       this one image cannot be answered; the next one may be
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from app.images.reading import ImageLimits, image_bytes
from models.images.decoding import ImageError
from models.rle import Rle

# A file, the content of one, or an http(s) URL.
ImageSource = Path | bytes | str

# Only keeps what could never be an image out of memory; whoever answers has limits of its own.
ANY_IMAGE = ImageLimits(max_bytes=2**30, urls="any", url_timeout_s=600.0)


class PredictorError(Exception):
    """No image can be answered, this one or the next: says why in a sentence."""


class PredictionError(PredictorError):
    """This image cannot be answered: says what was expected and what was found."""


@dataclass(frozen=True)
class PredictedObject:
    """One object in an image, in the frame of the image as viewers show it, after the turn that its EXIF asks for.

    label, score: the detector's; None where the box came from elsewhere.
    box_xyxy: x1, y1, x2, y2 in absolute pixels, origin at the top left corner of the top left pixel.
    rle: the mask, COCO's compressed {"size": [H, W], "counts": str} of the image's size; None where none was asked for.
    iou_score: SAM's own guess of the mask's quality; None of a mask that is the detector's own, and without one.
    rotated_box: x1, y1, ..., x4, y4 in absolute pixels, where it was asked for and the mask is not empty.
    mask_agreement: of the three masks that SAM has for the box, as `models.uncertainty` defines it, where it was asked
        for.
    """

    label: str | None
    score: float | None
    box_xyxy: tuple[float, float, float, float]
    rle: Rle | None = None
    iou_score: float | None = None
    rotated_box: tuple[float, ...] | None = None
    mask_agreement: float | None = None


class Predictor(Protocol):
    """Answers for one image at a time; any number of threads may call it, and so have as many images in work.

    class_names: the detector's, in the order of its outputs; () without a detector.
    description: what `GET /version` of the service says of versions and models.
    images_apart: whether each image is computed on its own, however many are asked for at once.

    The methods raise PredictionError for an image that cannot be answered and PredictorError where none can be.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def description(self) -> Mapping[str, Any]: ...

    @property
    def images_apart(self) -> bool: ...

    def detect(
        self, image: ImageSource, score_threshold: float | None = None, *, masks: bool = False
    ) -> list[PredictedObject]:
        """The detector's boxes, best first. score_threshold: None is the model's own (YOLOF: 0.05).

        masks: with the detector's own masks; PredictorError where it has none.
        """
        ...

    def segment(self, image: ImageSource, boxes_xyxy: np.ndarray) -> list[PredictedObject]:
        """A mask for each of the boxes (N, 4), absolute pixels, in their order."""
        ...

    def three_masks(self, image: ImageSource, boxes_xyxy: np.ndarray) -> list[list[Rle]]:
        """For each of the boxes (N, 4), absolute pixels, the three masks that SAM has for it, none of them cleaned."""
        ...

    def segment_points(self, image: ImageSource, points_xy: np.ndarray) -> list[PredictedObject]:
        """A mask for each of the points (N, 2), absolute pixels, in their order; as its box, the point twice."""
        ...

    def detect_and_segment(self, image: ImageSource, score_threshold: float | None = ...) -> list[PredictedObject]:
        """The detector's boxes, best first, each with the segmenter's mask. Without a threshold that of the service."""
        ...

    def everything(self, image: ImageSource, **grid: float) -> list[PredictedObject]:
        """All masks that the segmenter finds at a grid of points, best first, each with the box around its pixels.

        grid: values of `models.segmenter.everything.Grid` by name, in place of its own; at least one.
        """
        ...

    def identity(self) -> dict[str, str | None]:
        """For `detector` and `segmenter` a text that another model would not have; None for one that is not there."""
        ...

    def close(self) -> None:
        """Let go of the models, or of the connections."""
        ...


def read_image(image: ImageSource, limits: ImageLimits = ANY_IMAGE) -> bytes:
    """The encoded file. Raises PredictionError."""
    try:
        if isinstance(image, bytes):
            return image
        if isinstance(image, str):
            return image_bytes(image, limits)
        size = image.stat().st_size
        if size > limits.max_bytes:
            raise PredictionError(f"expected an image of at most {limits.max_bytes} bytes, got {size}")
        return image.read_bytes()
    except ImageError as error:
        raise PredictionError(str(error)) from error
    except OSError as error:
        raise PredictionError(f"cannot be read: {error.strerror or error}") from error
