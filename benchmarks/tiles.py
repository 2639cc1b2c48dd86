"""Small objects in large photos, with and without tiles: boxes and masks of drawn scenes of 4000 x 3000.

`python -m benchmarks.tiles` writes benchmarks/results/tiles.md: the demo weights, asked by the requests of the service.
The things are the demo's, 20 to 60 pixels long, on enlarged textures, with boxes and masks as they were drawn.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from app.prediction import PredictedObject
from app.predictor import LocalPredictor
from app.settings import Settings
from benchmarks.machine import Machine
from models.demo.scenes import Scene, tight_boxes
from models.demo.textures import random_texture
from models.demo.things import CLASS_NAMES, container_sprite
from models.evaluation.masks import middle_point
from models.rle import decode_rle

SIZE_HW = (3000, 4000)
LENGTHS = (20, 60)  # pixels of a thing's longer side
SURE = 0.3  # detections from this score on count
RESULT = Path(__file__).parent / "results" / "tiles.md"
# What is asked for. Where only the merging is another, the masks are those of the case before.
CASES: tuple[dict[str, Any], ...] = (
    {},
    {"tiles": 1024},
    {"tiles": 512},
    {"tiles": 256},
    {"tiles": 256, "tile_merge": "fusion"},
    {"tiles": 160},
)


def draw(number: int, things: int, size_hw: tuple[int, int] = SIZE_HW) -> Scene:
    """Things that stand, lean or lie at random places, each by itself, on a texture of large patterns."""
    rng = np.random.default_rng(9_700_000 + number)
    height, width = size_hw
    small = random_texture(rng, height // 4, width // 4)
    canvas = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    taken = np.zeros(size_hw, np.bool_)
    masks: list[np.ndarray] = []
    labels: list[int] = []
    while len(masks) < things:
        sprite = container_sprite(rng)
        side = max(sprite.shape.shape)
        turn, length = rng.normal(0, 6) + 90 * (rng.random() < 0.2), rng.uniform(*LENGTHS)
        reach = 2 * LENGTHS[1]
        sigma = max(0.1, 0.4 * side / length)  # so that shrinking does not alias
        matrix = cv2.getRotationMatrix2D((sprite.shape.shape[1] / 2, sprite.shape.shape[0] / 2), turn, length / side)
        matrix[:, 2] += reach / 2 - np.array(sprite.shape.shape[::-1]) / 2
        rgb, opacity, shape = (
            cv2.warpAffine(cv2.GaussianBlur(one, (0, 0), sigma), matrix, (reach, reach), borderMode=border)
            for one, border in (
                (sprite.rgb, cv2.BORDER_REPLICATE),
                (sprite.opacity, cv2.BORDER_CONSTANT),
                (sprite.shape, cv2.BORDER_CONSTANT),
            )
        )
        x, y = int(rng.integers(0, width - reach)), int(rng.integers(0, height - reach))
        place = np.s_[y : y + reach, x : x + reach]
        if (taken[place] & (cv2.dilate(shape, np.ones((9, 9))) > 0.1)).any():
            continue
        canvas[place] = canvas[place] * (1 - opacity[..., None]) + rgb * opacity[..., None]
        mask = np.zeros(size_hw, np.bool_)
        mask[place] = shape > 0.5
        taken |= mask
        masks.append(mask)
        labels.append(sprite.label)
    canvas += rng.normal(0, 3, (height, width, 1))
    stacked = np.stack(masks)
    return Scene(canvas.clip(0, 255).astype(np.uint8), stacked, tight_boxes(stacked), np.array(labels, np.int64))


@dataclass
class Figures:
    """What one case came to. boxes: of each scene how many are true, found, and both."""

    boxes: list[tuple[int, int, int]] = field(default_factory=list)
    ious: dict[str, list[float]] = field(default_factory=lambda: {"boxes": [], "clicks": []})
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"find": [], "boxes": [], "clicks": []})

    def row(self) -> str:
        true, found, both = np.sum(self.boxes, axis=0)
        cells = [f"{both / true:.3f}", f"{both / max(1, found):.3f}"]
        cells += [f"{np.mean(one):.3f}" if one else "-" for one in self.ious.values()]
        cells += [f"{np.mean(one):.1f}" if one else "-" for one in self.seconds.values()]
        return " | ".join(cells)


def hits(found: list[PredictedObject], scene: Scene) -> int:
    """How many boxes hit a thing of their class with IoU 0.5 or more, each thing once, the best boxes first."""
    left = set(range(len(scene.labels)))
    corners = scene.boxes_xyxy.astype(np.float64)
    truth = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    count = 0
    for one in sorted(found, key=lambda one: -(one.score or 0)):
        x1, y1, x2, y2 = one.box_xyxy
        ious = coco_mask.iou(np.array([[x1, y1, x2 - x1, y2 - y1]]), truth, [0] * len(truth))[0]
        places = [place for place in left if CLASS_NAMES[scene.labels[place]] == one.label and ious[place] >= 0.5]
        if places:
            left.remove(max(places, key=lambda place: ious[place]))
            count += 1
    return count


def mask_ious(found: list[PredictedObject], scene: Scene) -> list[float]:
    truths = [coco_mask.encode(np.asfortranarray(mask.view(np.uint8))) for mask in scene.masks]
    return [float(coco_mask.iou([one.rle], [truth], [0])[0, 0]) for one, truth in zip(found, truths, strict=True)]


def measure(predictor: LocalPredictor, case: dict[str, Any], scene: Scene, file: bytes, figures: Figures) -> None:
    predictor.mask_params = case

    def timed(name: str, call: Callable[[], list[PredictedObject]]) -> list[PredictedObject]:
        began = time.process_time()
        found = call()
        figures.seconds[name].append(time.process_time() - began)
        return found

    found = timed("find", lambda: predictor.detect(file, SURE))
    figures.boxes.append((len(scene.labels), len(found), hits(found, scene)))
    if "tile_merge" in case:
        return
    figures.ious["boxes"] += mask_ious(timed("boxes", lambda: predictor.segment(file, scene.boxes_xyxy)), scene)
    clicks = np.array([middle_point(mask) for mask in scene.masks])
    figures.ious["clicks"] += mask_ious(timed("clicks", lambda: predictor.segment_points(file, clicks)), scene)


def picture(predictor: LocalPredictor, scene: Scene, file: bytes, path: Path) -> None:
    """A part of a scene with the boxes and masks that the pipeline finds with tiles, over the true ones in white."""
    predictor.mask_params = {"tiles": 256}
    drawn = scene.image.copy()
    for box in scene.boxes_xyxy.astype(int).tolist():
        cv2.rectangle(drawn, box[:2], box[2:], (255, 255, 255), 1)
    for one in predictor.detect_and_segment(file, SURE):
        assert one.rle is not None
        mask = decode_rle(one.rle)
        drawn[mask] = drawn[mask] // 2 + np.array((127, 0, 0), np.uint8)
        x1, y1, x2, y2 = map(round, one.box_xyxy)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), (255, 255, 0), 1)
    Image.fromarray(drawn[:1500, :2000]).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=6, help="how many scenes to draw")
    parser.add_argument("--things", type=int, default=60, help="how many things are in each")
    parser.add_argument("--out", type=Path, default=RESULT, help="file to write")
    parser.add_argument("--picture", type=Path, help="also draw a part of the first scene, with what was found, here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    machine = Machine.this()
    settings = Settings(detector="demo-yolof", segmenter="demo-sam", device="cpu", embedding_cache_mb=0)  # type: ignore[call-arg]
    figures = [Figures() for _ in CASES]
    with LocalPredictor(settings) as predictor:
        for number in range(args.scenes):
            scene = draw(number, args.things)
            buffer = io.BytesIO()
            Image.fromarray(scene.image).save(buffer, "JPEG", quality=92)
            for case, its in zip(CASES, figures, strict=True):
                measure(predictor, case, scene, buffer.getvalue(), its)
            if args.picture and not number:
                picture(predictor, scene, buffer.getvalue(), args.picture)
            lines = table(number + 1, args.things, machine, figures)
            args.out.write_text("\n".join(lines) + "\n")  # so that a run that is cut short has said what it saw
            print(f"scene {number + 1} of {args.scenes}", flush=True)
    print("\n".join(lines))


def table(scenes: int, things: int, machine: Machine, figures: list[Figures]) -> list[str]:
    lines = [
        "# Small objects in large photos, with and without tiles",
        "",
        *machine.lines(),
        f"- `python -m benchmarks.tiles --scenes {scenes} --things {things}`, demo weights (networks of 256 x 256)",
        "",
        f"Drawn scenes of {SIZE_HW[1]} x {SIZE_HW[0]}, {scenes} of them, each with {things} things of {LENGTHS[0]} to "
        f"{LENGTHS[1]} pixels.",
        f"Boxes: recall and precision of those that score {SURE} or more, of the right class, at IoU 0.5. Masks: mean",
        "IoU with the drawn truth, one for each true box, and one for a click in each thing's middle. Seconds of one",
        "processor for a photo of which nothing was known before.",
        "",
        "| `params` | recall | precision | boxes' masks | clicks' masks | s: boxes | s: masks | s: clicks' masks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, its in zip(CASES, figures, strict=True):
        asked = ", ".join(f"{name} {value}" for name, value in case.items()) or "no tiles"
        lines.append(f"| {asked} | {its.row()} |")
    return lines


if __name__ == "__main__":
    main()
