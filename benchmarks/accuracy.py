"""How far the service's answers are from the reference's, on the demo weights and drawn scenes.

Random weights are fine for time and useless for this: a mask of noise tells nothing about masks.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import tasks, workload
from benchmarks.child import Child
from benchmarks.service import Service

DEMO_SEGMENTER = Path(__file__).parents[1] / "weights" / "demo" / "sam"
DEMO_DETECTOR = Path(__file__).parents[1] / "weights" / "demo" / "yolof"
# The reference's boxes above the one are looked for among ours above the other, so that none is lost at an edge.
SCORE_THRESHOLDS = (0.3, 0.05)


@dataclass(frozen=True)
class Accuracy:
    """Over all scenes. ious: of our masks with the reference's. scores_off: of the masks' `iou_score`.

    boxes_px, box_scores_off: for each box of the reference the largest difference of a side, in pixels, and that of
    the score; infinite where there is no box of the same label that overlaps by half.
    """

    dtype: str
    ious: np.ndarray
    scores_off: np.ndarray
    boxes_px: np.ndarray
    box_scores_off: np.ndarray

    @property
    def of_masks(self) -> str:
        return f"mask IoU {self.ious.mean():.4f}"

    @property
    def of_boxes(self) -> str:
        boxes_px, scores = self.boxes_px.max(initial=0), self.box_scores_off.max(initial=0)
        return f"boxes within {boxes_px:.2g} px, scores within {scores:.1g}"


def measure(dtype: str, device: str, scene_count: int) -> Accuracy:
    """Both sides' answers about so many scenes: a mask for every true box, and what the detector finds."""
    settings = {
        "BOX2MASK_DETECTOR": str(DEMO_DETECTOR),
        "BOX2MASK_SEGMENTER": str(DEMO_SEGMENTER),
        "BOX2MASK_DTYPE": dtype,
        "BOX2MASK_DEVICE": device,
    }
    service = Service(settings)
    reference = Child(tasks.reference_scorers, device, DEMO_SEGMENTER, DEMO_DETECTOR)
    try:
        reference.ready()
        service.ready()
        masks: list[tuple[float, float]] = []
        boxes: list[tuple[float, float]] = []
        for scene in workload.scenes(scene_count):
            body = workload.boxes_request(scene.image, scene.boxes_xyxy.tolist())
            masks += compare_masks(
                json.loads(reference.answer(("masks", body))), json.loads(service.post("/score", body))
            )
            (truth,) = json.loads(reference.answer(("boxes", workload.detector_request(scene.image))))
            body = workload.detector_request(scene.image, score_threshold=SCORE_THRESHOLDS[1])
            (ours,) = json.loads(service.post("/score", body))
            boxes += compare_boxes(truth["boxes"], ours["boxes"], scene.image.shape[:2])
    finally:
        reference.close()
        service.close()
    ious, scores_off = np.array(masks).T
    boxes_px, box_scores_off = np.array(boxes).reshape(-1, 2).T
    return Accuracy(dtype, ious, scores_off, boxes_px, box_scores_off)


def compare_masks(reference: Sequence[Any], ours: Sequence[Any]) -> list[tuple[float, float]]:
    """For each mask of two answers in the model card's form: IoU, and the difference of the two `iou_score`s.

    Raises ValueError where one has more rows, predictions or masks than the other.
    """
    found = []
    for row, our_row in zip(reference, ours, strict=True):
        for one, our_one in zip(row["predictions"], our_row["predictions"], strict=True):
            for mask, our_mask in zip(one["mask_per_prediction"], our_one["mask_per_prediction"], strict=True):
                a, b = (decode_png(each["encoded_binary_mask"]) for each in (mask, our_mask))
                either = int((a | b).sum())
                iou = int((a & b).sum()) / either if either else 1.0
                found.append((iou, abs(mask["iou_score"] - our_mask["iou_score"])))
    return found


def decode_png(text: str) -> np.ndarray:
    """(H, W) bool of a mask as answers carry it."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) > 0


def compare_boxes(
    reference: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]], size_hw: tuple[int, ...]
) -> list[tuple[float, float]]:
    """For each box of the reference that counts, the largest difference of a side in pixels, and that of the score."""
    height, width = size_hw
    size = np.array([width, height, width, height])

    def sides(one: dict[str, Any]) -> np.ndarray:
        return np.array([one["box"][name] for name in ("topX", "topY", "bottomX", "bottomY")]) * size

    found = []
    for one in reference:
        if one["score"] > SCORE_THRESHOLDS[0]:
            rivals = [
                (float(np.abs(sides(one) - sides(rival)).max()), abs(one["score"] - rival["score"]))
                for rival in ours
                if rival["label"] == one["label"] and _iou(sides(one), sides(rival)) > 0.5
            ]
            found.append(min(rivals, default=(np.inf, np.inf)))
    return found


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two boxes x1, y1, x2, y2."""
    shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))
