"""CVAT's import file, format "CVAT for images 1.1": XML with a `mask` for each object, or its `box` without one."""

from __future__ import annotations

from dataclasses import dataclass

from app.prediction import PredictedObject
from app.results.image_result import ImageResult, label_of, mask_of
from models.data.formats.cvat.writing import CLOSING, SIDES, image, mask_shape, opening


@dataclass(frozen=True)
class Images:
    """A `Form`; CVAT finds its frames by the images' names. Of an object whose mask is empty there is the box."""

    class_names: tuple[str, ...]
    between: str = ""
    closing: str = CLOSING

    @property
    def opening(self) -> str:
        return opening(self.class_names)

    def text(self, result: ImageResult, number: int, priority: float | None) -> tuple[str, int]:
        shapes = [(kind, label_of(one), shape) for one in result.objects for kind, shape in [_shape(one)]]
        return image(number, result.name, result.size_hw, shapes, "auto"), 0


def _shape(one: PredictedObject) -> tuple[str, dict[str, str]]:
    mask = mask_of(one)
    if mask is None or not mask.any():
        return "box", {name: f"{value:.2f}" for name, value in zip(SIDES, one.box_xyxy, strict=True)}
    return "mask", mask_shape(mask)
