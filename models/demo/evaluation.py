"""Measures the demo weights on drawn scenes, and on photos with COCO annotations: `python -m models.demo.evaluation`.

Scenes are drawn without cut-outs, so that the figures are the same on every machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.demo.scenes import render_scene
from models.demo.things import CLASS_NAMES
from models.sam import Segmenter
from models.types import Prompts
from models.weights import WEIGHTS_ROOT
from models.yolof import Detector

# Far from the seeds that training starts from; a scene is drawn from its number alone.
FIRST_SCENE = 9_000_000


@dataclass(frozen=True)
class Truth:
    """A picture (H, W, 3) uint8 RGB, with masks (N, H, W) bool, boxes_xyxy (N, 4) and class names of what is in it."""

    image: np.ndarray
    masks: np.ndarray
    boxes_xyxy: np.ndarray
    names: list[str | None]


def scenes(count: int, longest: int = 480) -> list[Truth]:
    """Scenes that no demo weights were trained on. Names are None for clutter."""
    found = []
    for number in range(count):
        rng = np.random.default_rng(FIRST_SCENE + number)
        scene = render_scene(rng, (longest, int(rng.integers(longest * 5 // 8, longest + 1))), clutter=(0, 3))
        names = [CLASS_NAMES[label] if label >= 0 else None for label in scene.labels]
        found.append(Truth(scene.image, scene.masks, scene.boxes_xyxy, names))
    return found


def photos(folder: Path) -> list[Truth]:
    """The photos of `folder` that its annotations_coco.json describes by polygons."""
    content = json.loads((folder / "annotations_coco.json").read_bytes())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = []
    for entry in content["images"]:
        height, width = entry["height"], entry["width"]
        with Image.open(folder / entry["file_name"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        mine = [one for one in content["annotations"] if one["image_id"] == entry["id"]]
        masks = [
            coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(one["segmentation"], height, width))) for one in mine
        ]
        boxes = np.array([one["bbox"] for one in mine], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        found.append(Truth(pixels, np.array(masks, bool), boxes, [names[one["category_id"]] for one in mine]))
    return found


def mask_figures(segmenter: Segmenter, truths: Sequence[Truth]) -> dict[str, float]:
    """Mean IoU over all objects: with their boxes and with a point in their middle as prompts, and of the filled boxes.

    Single-mask output; a "best of 3" takes, of three masks, the one that SAM itself scores highest.
    """
    ious: dict[str, list[float]] = {"box": [], "point": [], "point, best of 3": [], "filled box": []}
    for truth in truths:
        if not len(truth.masks):
            continue
        (embedding,) = segmenter.embed([segmenter.preprocess(truth.image)])
        points = Prompts(points_xy=np.array([[_middle(mask)] for mask in truth.masks], np.float64))
        boxes = Prompts(boxes_xyxy=truth.boxes_xyxy.astype(np.float64))
        for key, prompts, multimask in (
            ("box", boxes, False),
            ("point", points, False),
            ("point, best of 3", points, True),
        ):
            raw = segmenter.decode(embedding, prompts, multimask=multimask)
            for index, mask in enumerate(truth.masks):
                ours = segmenter.postprocess(raw, index)[int(raw.iou_scores[index].argmax())]
                ious[key].append(iou(ours, mask))
        for (x1, y1, x2, y2), mask in zip(np.round(truth.boxes_xyxy).astype(int), truth.masks, strict=True):
            filled = np.zeros_like(mask)
            filled[y1:y2, x1:x2] = True
            ious["filled box"].append(iou(filled, mask))
    return {key: float(np.mean(values)) for key, values in ious.items()}


def iou(ours: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks (H, W) bool; 1 where both are empty."""
    union = (ours | truth).sum()
    return float((ours & truth).sum() / union) if union else 1.0


def _middle(mask: np.ndarray) -> tuple[float, float]:
    """The (x, y) of the mask that is farthest from its edge."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x), float(y)


def box_figures(detector: Detector, truths: Sequence[Truth]) -> dict[str, float]:
    """COCO's mean average precision at IoU 0.5 and over 0.5..0.95, and the recall at 0.5 of detections above 0.3."""
    categories = {name: index + 1 for index, name in enumerate(detector.class_names)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    found, total = 0, 0
    for number, truth in enumerate(truths, start=1):
        height, width = truth.image.shape[:2]
        images.append({"id": number, "height": height, "width": width})
        known = [(box, name) for box, name in zip(truth.boxes_xyxy, truth.names, strict=True) if name in categories]
        for (x1, y1, x2, y2), name in known:
            side_x, side_y = float(x2 - x1), float(y2 - y1)
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": categories[name or ""], "iscrowd": 0}
            annotations.append(one | {"bbox": [float(x1), float(y1), side_x, side_y], "area": side_x * side_y})
        (ours,) = detector.detect([truth.image])
        for (x1, y1, x2, y2), label, score in zip(ours.boxes_xyxy.tolist(), ours.labels, ours.scores, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": number, "category_id": int(label) + 1, "bbox": box, "score": float(score)})
        sure = [
            (box, detector.class_names[label])
            for box, label, score in zip(ours.boxes_xyxy, ours.labels, ours.scores, strict=True)
            if score > 0.3
        ]
        total += len(known)
        found += sum(any(name == other and _box_iou(box, one) >= 0.5 for one, other in sure) for box, name in known)
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        truth_set.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": index, "name": name} for name, index in categories.items()],
        }
        truth_set.createIndex()
        evaluation = COCOeval(truth_set, truth_set.loadRes(results) if results else COCO(), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"mAP@50": evaluation.stats[1], "mAP": evaluation.stats[0], "recall@50, score > 0.3": found / max(total, 1)}


def _box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes x1, y1, x2, y2."""
    sides = (np.array([[*box[:2], *(box[2:] - box[:2])]], np.float64) for box in (a, b))
    return float(coco_mask.iou(*sides, [0])[0, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", type=Path, default=WEIGHTS_ROOT / "demo" / "yolof", help="detector folder")
    parser.add_argument("--segmenter", type=Path, default=WEIGHTS_ROOT / "demo" / "sam", help="SAM folder")
    parser.add_argument("--scenes", type=int, default=200, help="how many scenes to draw")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="folders with an annotations_coco.json")
    args = parser.parse_args()
    detector, segmenter = Detector.load(args.detector), Segmenter.load(args.segmenter)
    drawn = scenes(args.scenes)
    rows = [
        (f"{args.scenes} scenes, all things", mask_figures(segmenter, drawn)),
        (f"{args.scenes} scenes, containers", box_figures(detector, drawn)),
    ]
    for folder in args.photos:
        shot = photos(folder)
        rows.append((folder.name, mask_figures(segmenter, shot)))
        rows.append((folder.name, box_figures(detector, shot)))
    for where, figures in rows:
        print(f"{where}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
