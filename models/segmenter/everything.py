"""All masks of an image, without prompts: SAM is asked at a grid of points, and the good masks are kept, each once.

What is kept is what transformers' `MaskGenerationPipeline` keeps with `SamModel` and `SamImageProcessor` on the same
weights: the same masks and scores, best first. Where that fails without torchvision, in its non-maximum suppression,
this project's own does the same. Candidates are kept as run lengths, so that memory hardly grows with the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.detector.mmcv_ops.suppression import nms
from models.rle import Rle, encode_rle
from models.segmenter.crops import Crop
from models.segmenter.grid import Grid
from models.segmenter.protocol import DecodeRequest, RawMasks, Segmenter
from models.segmenter.stability import plain_stable_mask, stable_mask
from models.types import Prompts

# All candidates of an image together, before the better ones suppress the others.
MAX_CANDIDATE_BYTES = 384 * 2**20
_NEAR = 20  # pixels from the edge of a crop, within which a mask is taken as cut off there


class TooManyMasksError(ValueError):
    """The masks that pass the thresholds do not fit into memory; says so."""


@dataclass(frozen=True, eq=False)
class FoundMask:
    """A mask of the image's size. box_xyxy: the columns and rows of its first and last pixels, both within it.

    score: SAM's guess of its quality. stability: see `Grid`.
    """

    rle: Rle
    score: float
    stability: float
    box_xyxy: tuple[int, int, int, int]


def batches(crop: Crop, grid: Grid) -> Iterator[Prompts]:
    """The points of a crop, in pixels of it, a batch at a time."""
    for start in range(0, len(crop.points_xy), grid.points_per_batch):
        yield Prompts(crop.points_xy[start : start + grid.points_per_batch, None])


def candidates(
    segmenter: Segmenter[Any], raw: RawMasks, crop: Crop, size_hw: tuple[int, int], grid: Grid
) -> list[FoundMask]:
    """What passes the thresholds of the masks of some points of a crop, in their order, in pixels of the image.

    raw: with logits. size_hw: of the whole image.
    """
    logits, scores = raw.logits.flatten(0, 1).numpy(), raw.iou_scores.reshape(-1)
    wanted = scores > grid.pred_iou_thresh if grid.pred_iou_thresh > 0 else np.ones(len(scores), np.bool_)
    measure = stable_mask if segmenter.fast else plain_stable_mask
    left, top = crop.box_xyxy[:2]
    found = []
    for number in np.flatnonzero(wanted).tolist():
        one = measure(
            logits[number],
            *segmenter.mask_frame(raw),
            raw.size_hw,
            grid.mask_threshold,
            grid.stability_score_offset,
        )
        if grid.stability_score_thresh > 0 and not np.float32(one.stability) > np.float32(grid.stability_score_thresh):
            continue
        x1, y1, x2, y2 = one.box_xyxy
        box = (x1 + left, y1 + top, x2 + left, y2 + top)
        if _is_cut_off(box, crop.box_xyxy, size_hw):
            continue
        whole = np.zeros(size_hw, np.bool_)
        height, width = one.mask.shape
        whole[top + one.top : top + one.top + height, left + one.left : left + one.left + width] = one.mask
        rle = encode_rle(whole, fast=segmenter.fast)
        found.append(FoundMask(rle, float(scores[number]), one.stability, box))
    return found


class Candidates:
    """The candidates of all crops of an image, in order, within MAX_CANDIDATE_BYTES."""

    def __init__(self) -> None:
        self._found: list[FoundMask] = []
        self._bytes = 0

    def add(self, found: Sequence[FoundMask]) -> None:
        """Raises TooManyMasksError where they are too many or too ragged to be kept."""
        self._found += found
        self._bytes += sum(len(one.rle["counts"]) for one in found)
        if self._bytes > MAX_CANDIDATE_BYTES:
            raise TooManyMasksError(
                f"expected masks that take at most {MAX_CANDIDATE_BYTES} bytes before the best are chosen, got more: "
                "raise pred_iou_thresh or stability_score_thresh, or ask at fewer points_per_side"
            )

    def best(self, grid: Grid) -> list[FoundMask]:
        """Those that no better one suppresses, best first."""
        if not self._found:
            return []
        boxes = torch.tensor([one.box_xyxy for one in self._found], dtype=torch.float32)
        scores = torch.tensor([one.score for one in self._found])
        return [self._found[index] for index in nms(boxes, scores, grid.crops_nms_thresh).tolist()]


def everything(segmenter: Segmenter[Any], image: np.ndarray, grid: Grid | None = None) -> list[FoundMask]:
    """All masks of an image (H, W, 3) uint8 RGB, best first. Raises TooManyMasksError."""
    grid = grid or Grid()
    size_hw = (image.shape[0], image.shape[1])
    found = Candidates()
    for crop in grid.crops(size_hw):
        (embedding,) = segmenter.embed([segmenter.preprocess(crop.of(image))])
        for prompts in batches(crop, grid):
            (raw,) = segmenter.decode_batch([DecodeRequest(embedding, prompts, multimask=True, keep_logits=True)])
            found.add(candidates(segmenter, raw, crop, size_hw, grid))
    return found.best(grid)


def _is_cut_off(box: tuple[int, ...], crop: tuple[int, ...], size_hw: tuple[int, int]) -> bool:
    """Whether a box reaches an edge of its crop that is none of the image."""
    image = (0, 0, size_hw[1], size_hw[0])
    return any(
        abs(side - edge) <= _NEAR < abs(side - outer) for side, edge, outer in zip(box, crop, image, strict=True)
    )
