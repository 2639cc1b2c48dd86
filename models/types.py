"""The values that travel between the steps of a request: detections, prompts, embeddings, masks.

Every coordinate is in absolute pixels of the image that was given to the model (x right, y down,
the origin at the top left corner of the top left pixel), and every size is (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.rle import Rle

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, best score first.

    boxes_xyxy: (N, 4) float32, absolute pixels, clipped to the image.
    scores: (N,) float32 in 0..1.
    labels: (N,) int64, indices into the detector's `class_names`, or into the texts that it was asked for.
    size_hw: the image's (height, width).
    masks: of a detector that finds them, N of the image's size; None of another, or where none were asked for.
    """

    boxes_xyxy: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    size_hw: tuple[int, int]
    masks: tuple[Rle, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)


# What stands for the text where exemplars alone show what to find.
EXEMPLARS_ALONE = "visual"


@dataclass(frozen=True)
class Exemplars:
    """Boxes around objects of an image that show a detector what to find in it.

    boxes_xyxy: (x1, y1, x2, y2) of each, absolute pixels. labels: of each 1, like this, or 0, not like this.
    """

    boxes_xyxy: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]


class TextsError(ValueError):
    """Texts that an open-vocabulary detector cannot read: says what was expected and what was found."""


class PromptError(ValueError):
    """A prompt that no segmenter could use. `column` is the request column it came in."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(f"{column}: {message}")
        self.column = column
        self.message = message


@dataclass(frozen=True)
class Prompts:
    """N prompts for one image; each is some points, a box, an earlier mask, or several of these.

    points_xy: (N, P, 2) float64, absolute pixels, or None.
    point_labels: (N, P) int64: 1 object, 0 not the object, -1 background, -10 padding; with points
        and no labels every point is taken as 1.
    boxes_xyxy: (N, 4) float64, absolute pixels, or None.
    mask_logits: of each prompt the logits (S / 4, S / 4) of an earlier mask, over the padded square as
        `RawMasks.logits`, or None; None where no prompt has any.

    Raises PromptError when made with shapes that do not fit each other. With neither points, boxes
    nor masks it stands for the single unprompted prediction that SAM makes of a whole image.
    """

    points_xy: np.ndarray | None = None
    point_labels: np.ndarray | None = None
    boxes_xyxy: np.ndarray | None = None
    mask_logits: tuple[np.ndarray | None, ...] | None = None

    def __post_init__(self) -> None:
        self._check_masks()
        points, labels, boxes = self.points_xy, self.point_labels, self.boxes_xyxy
        if points is not None and (points.ndim != 3 or points.shape[-1] != 2 or 0 in points.shape):
            raise PromptError("input_points", f"expected (point_batch, points_per_prompt, 2), got {points.shape}")
        if boxes is not None and (boxes.ndim != 2 or boxes.shape[-1] != 4 or 0 in boxes.shape):
            raise PromptError("input_boxes", f"expected (num_boxes, 4), got {boxes.shape}")
        if points is not None and boxes is not None and len(points) != len(boxes):
            raise PromptError(
                "input_boxes",
                f"expected one box per point prompt ({len(points)}), got {len(boxes)} boxes",
            )
        if labels is not None:
            if points is None:
                raise PromptError("input_labels", "expected input_points to go with the labels, got none")
            if labels.shape != points.shape[:2]:
                raise PromptError("input_labels", f"expected {points.shape[:2]}, one per point, got {labels.shape}")
            unknown = np.setdiff1d(labels, (1, 0, -1, -10))
            if unknown.size:
                raise PromptError("input_labels", f"expected labels 1, 0, -1 or -10, got {unknown[0]}")
        elif points is not None:
            object.__setattr__(self, "point_labels", np.ones(points.shape[:2], dtype=np.int64))

    def _check_masks(self) -> None:
        masks = self.mask_logits
        if masks is None:
            return
        others = [array for array in (self.points_xy, self.boxes_xyxy) if array is not None]
        if others and len(masks) != len(others[0]):
            raise PromptError("input_masks", f"expected one mask per prompt ({len(others[0])}), got {len(masks)}")
        if not others and (not masks or any(one is None for one in masks)):
            raise PromptError("input_masks", "expected a mask for each prompt that has no points and no box")
        if all(one is None for one in masks):
            object.__setattr__(self, "mask_logits", None)

    @property
    def are_none(self) -> bool:
        """Whether nothing is given."""
        return all(value is None for value in vars(self).values())

    def __len__(self) -> int:
        for array in (self.points_xy, self.boxes_xyxy, self.mask_logits):
            if array is not None:
                return len(array)
        return 1


@dataclass(frozen=True)
class Embedding:
    """One image as a segmenter's decoder wants it.

    features: (C, h, w) tensor on the segmenter's device, in its dtype; with further channels for details of each place
        in families that have such.
    size_hw: the image's own (height, width).
    resized_hw: its (height, width) in the model's input, before padding.
    """

    features: Tensor
    size_hw: tuple[int, int]
    resized_hw: tuple[int, int]


@dataclass(frozen=True)
class Masks:
    """Masks for N prompts on one image, M of each (1, or 3 with multimask output).

    masks: (N, M, H, W) bool, of the image's own size.
    iou_scores: (N, M) float32, the model's own guess of each mask's quality.
    """

    masks: np.ndarray
    iou_scores: np.ndarray


def check_rgb(image: np.ndarray) -> None:
    """Raises ValueError for what is no RGB image (H, W, 3) uint8 with at least a pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
