"""Measures the demo weights on drawn scenes, and on annotated photos: `python -m models.demo.evaluation`.

Scenes are drawn without cut-outs, so that the figures are the same on every machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from models import evaluation
from models.data import DataError, Dataset, LabelledImage, Place, Problem, load
from models.demo.dataset import demo_scene, held_out_numbers, labelled
from models.demo.things import CLASS_NAMES
from models.detector.mmdetection import MMDetector
from models.evaluation import Predicted, Rle
from models.images.decoding import decode_image
from models.segmenter.sam import Sam
from models.types import Prompts
from models.weights import find_places

# What is not a container: the segmenter is to find it, and the detector to leave it alone.
CLUTTER = "clutter"
SURE = 0.3


@dataclass(frozen=True)
class Measured:
    """Annotated pictures. pixels(index): the picture (H, W, 3) uint8 RGB of `dataset.images[index]`."""

    dataset: Dataset
    pixels: Callable[[int], np.ndarray]


def scenes(count: int, longest: int = 480) -> Measured:
    """Scenes that no demo weights were trained on."""
    pictures, images = [], []
    for index, number in enumerate(held_out_numbers(count)):
        scene = demo_scene(number, longest)
        pictures.append(scene.image)
        images.append(labelled(Path(f"scene{index}"), scene, CLUTTER))
    return Measured(Dataset((*CLASS_NAMES, CLUTTER), tuple(images)), pictures.__getitem__)


def photos(folder: Path) -> Measured:
    """A data set in any form that `models.data` reads. Raises DataError, also for objects without a mask."""
    dataset = load(folder)
    boxes = [one for _, one in dataset.annotations() if not one.has_mask]
    if boxes:
        raise DataError([Problem(one.place or Place(folder), "expected a mask, got a box only") for one in boxes])

    def pixels(index: int) -> np.ndarray:
        return decode_image(Path(dataset.images[index].path).read_bytes(), exif_orientation=True)  # as the boxes are

    return Measured(dataset, pixels)


def mask_figures(segmenter: Sam, measured: Measured) -> dict[str, float]:
    """Mean IoU over all objects: with their boxes and with a point in their middle as prompts, and of the filled boxes.

    Single-mask output; a "best of 3" takes, of three masks, the one that SAM itself scores highest.
    """
    dataset = measured.dataset
    truths = evaluation.truth_masks(dataset)
    masks: dict[str, list[dict[int, Rle]]] = {"box": [], "point": [], "point, best of 3": []}
    for number, image in enumerate(dataset.images):
        if not image.annotations:
            for found in masks.values():
                found.append({})
            continue
        (embedding,) = segmenter.embed([segmenter.preprocess(measured.pixels(number))])
        middles = [evaluation.middle_point(coco_mask.decode(dict(rle))) for rle in truths[number] if rle is not None]
        points = Prompts(points_xy=np.array(middles)[:, None])
        boxes = Prompts(boxes_xyxy=image.boxes_xyxy)
        for key, prompts, multimask in (
            ("box", boxes, False),
            ("point", points, False),
            ("point, best of 3", points, True),
        ):
            raw = segmenter.decode(embedding, prompts, multimask=multimask)
            masks[key].append({})
            for index in range(len(raw)):
                best = segmenter.postprocess(raw, index)[int(raw.iou_scores[index].argmax())]
                masks[key][-1][index] = coco_mask.encode(np.asfortranarray(best.view(np.uint8)))
    scored = {key: evaluation.score_prompted(dataset, truths, found) for key, found in masks.items()}
    scored["filled box"] = evaluation.fill_boxes(scored["box"])
    return {
        key: evaluation.mask_figures(objects, dataset.class_names)["average_iou"] for key, objects in scored.items()
    }


def box_figures(detector: MMDetector, measured: Measured) -> dict[str, float]:
    """COCO's mean average precision at IoU 0.5 and over 0.5..0.95, and the recall at 0.5 of detections from 0.3 on."""
    names = detector.class_names
    known = Dataset(
        tuple(names),
        tuple(
            LabelledImage(image.path, image.size_hw, tuple(one for one in image.annotations if one.label in names))
            for image in measured.dataset.images
        ),
    )
    found: list[Sequence[Predicted]] = []
    for number in range(len(known)):
        (ours,) = detector.detect([measured.pixels(number)])
        found.append(
            [
                Predicted(names[label], float(score), tuple(box))
                for box, label, score in zip(ours.boxes_xyxy.tolist(), ours.labels, ours.scores, strict=True)
            ]
        )
    figures = evaluation.box_figures(known, found, SURE)
    return {
        "mAP@50": figures["coco"]["mAP50"],
        "mAP": figures["coco"]["mAP"],
        "recall@50, score > 0.3": figures["recall"],
    }


def main() -> None:
    demo = find_places().shipped / "demo"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", type=Path, default=demo / "yolof", help="detector folder")
    parser.add_argument("--segmenter", type=Path, default=demo / "sam", help="SAM folder")
    parser.add_argument("--scenes", type=int, default=200, help="how many scenes to draw")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="annotated photos, in any form")
    args = parser.parse_args()
    detector, segmenter = MMDetector.load(args.detector), Sam.load(args.segmenter)
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
        # None: photos without a thing that the detector knows
        shown = (f"{key} {'-' if value is None else f'{value:.3f}'}" for key, value in figures.items())
        print(f"{where}: " + ", ".join(shown))


if __name__ == "__main__":
    main()
