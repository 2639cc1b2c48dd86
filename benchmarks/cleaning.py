"""What cleaning does to the masks of drawn scenes: every param alone, and those of `box2mask run` users together.

`python -m benchmarks.cleaning` writes benchmarks/results/cleaning.md. The demo detector's boxes prompt the demo SAM, as
on /pipeline/score; `--data FILE --photos FOLDER` asks the same of photos with true masks.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from app.prediction import PredictedObject
from app.predictor import LocalPredictor
from app.settings import Settings
from benchmarks.accuracy import DEMO_DETECTOR, DEMO_SEGMENTER
from benchmarks.machine import Machine
from benchmarks.refinement import iou
from benchmarks.report import table
from models.demo.dataset import demo_scene, held_out_numbers
from models.evaluation.matching import box_ious
from models.rle import Rle, decode_rle

RESULT = Path(__file__).parent / "results" / "cleaning.md"
SMALL = 100  # pixels
PARAMS: dict[str, dict[str, Any]] = {
    "none": {},
    f"min_region_area {SMALL}": {"min_region_area": SMALL},
    "fill_holes": {"fill_holes": True},
    "largest_part": {"largest_part": True},
    "no_overlaps": {"no_overlaps": True},
    "class_agnostic_nms": {"class_agnostic_nms": True},
    "tight_boxes": {"tight_boxes": True},
}
PARAMS["all of these"] = {key: value for params in PARAMS.values() for key, value in params.items()}
HEADER = (
    "params", "objects found", "twice", "of nothing", "mask IoU", "box IoU", "masks of several parts", "with holes",
    "islands and holes under 100 px", "pixels in two masks",
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An image as a file, and the truth (N, H, W) bool and (N, 4) of the things in it."""

    encoded: bytes
    masks: np.ndarray
    boxes_xyxy: np.ndarray


@dataclass
class Counted:
    """Over all images. twice: further objects on a thing that is found. ious: of masks and boxes of what is found."""

    things: int = 0
    found: int = 0
    twice: int = 0
    of_nothing: int = 0
    parts: int = 0
    holes: int = 0
    small: int = 0
    shared: int = 0
    covered: int = 0

    def __post_init__(self) -> None:
        self.mask_ious: list[float] = []
        self.box_ious: list[float] = []

    def add(self, picture: Picture, objects: list[PredictedObject]) -> None:
        masks = [decode_rle(one.rle) for one in objects if one.rle is not None]
        self.things += len(picture.masks)
        taken: set[int] = set()
        for one, mask in sorted(zip(objects, masks, strict=True), key=lambda pair: -(pair[0].score or 0)):
            ious = [iou(mask, truth) for truth in picture.masks]
            nearest = int(np.argmax(ious)) if ious else -1
            if nearest < 0 or ious[nearest] < 0.5:
                self.of_nothing += 1
            elif nearest in taken:
                self.twice += 1
            else:
                taken.add(nearest)
                self.mask_ious.append(ious[nearest])
                self.box_ious.append(float(box_ious([one.box_xyxy], [tuple(picture.boxes_xyxy[nearest])])[0, 0]))
            islands, holes = _areas(mask, 4), _areas(np.pad(~mask, 1, constant_values=True), 8)
            holes = np.delete(holes, holes.argmax()) if len(holes) else holes
            self.parts += len(islands) > 1
            self.holes += len(holes) > 0
            self.small += int((islands < SMALL).sum() + (holes < SMALL).sum())
        self.found += len(taken)
        if masks:
            claims = np.sum(masks, axis=0)
            self.shared += int((claims > 1).sum())
            self.covered += int((claims > 0).sum())

    def cells(self) -> tuple[str, ...]:
        return (
            f"{self.found} of {self.things}", str(self.twice), str(self.of_nothing),
            f"{sum(self.mask_ious) / max(1, self.found):.4f}", f"{sum(self.box_ious) / max(1, self.found):.4f}",
            str(self.parts), str(self.holes), str(self.small), f"{self.shared / max(1, self.covered):.2%}",
        )  # fmt: skip


def _areas(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """The areas of the regions of a mask."""
    found = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask).view(np.uint8), connectivity=connectivity)
    return found[2][1:, cv2.CC_STAT_AREA]


def scenes(count: int) -> Iterator[Picture]:
    for number in held_out_numbers(count):
        scene = demo_scene(number, 640)
        file = io.BytesIO()
        Image.fromarray(scene.image).save(file, "PNG")
        yield Picture(file.getvalue(), np.asarray(scene.masks, bool), np.asarray(scene.boxes_xyxy, float))


def photos(annotations: Path, folder: Path) -> Iterator[Picture]:
    """Those of a data set that have true masks, crowds left out."""
    from models.data.formats.data_set import read

    dataset, _ = read(annotations, images=folder)
    for image in dataset.images:
        things = [(one.to_rle(image.size_hw), one.box_xyxy) for one in image.annotations if not one.crowd]
        known = [
            (decode_rle(Rle(size=rle["size"], counts=rle["counts"])), box) for rle, box in things if rle is not None
        ]
        if known:
            masks, boxes = zip(*known, strict=True)
            yield Picture(Path(image.path).read_bytes(), np.stack(masks), np.asarray(boxes, float))


def measure(pictures: Iterable[Picture], params: dict[str, Any], settings: Settings) -> Counted:
    counted = Counted()
    with LocalPredictor(settings, mask_params=params) as predictor:
        for picture in pictures:
            counted.add(picture, predictor.detect_and_segment(picture.encoded))
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cleaning", description=__doc__)
    parser.add_argument("--scenes", type=int, default=100, help="how many scenes to draw")
    parser.add_argument("--data", type=Path, help="a data set with masks, in place of scenes")
    parser.add_argument("--photos", type=Path, help="the folder of its photos")
    parser.add_argument("--out", type=Path, default=RESULT, help="file to write")
    args = parser.parse_args()
    environ = {"detector": str(DEMO_DETECTOR), "segmenter": str(DEMO_SEGMENTER), "device": "cpu", "dtype": "float32"}
    settings = Settings.model_validate(environ)
    machine = Machine.this()
    pictures = list(photos(args.data, args.photos) if args.data else scenes(args.scenes))
    rows = []
    for name, params in PARAMS.items():
        rows.append((name, *measure(pictures, params, settings).cells()))
        print(" | ".join(rows[-1]), flush=True)
    lines = [
        "# Clean masks",
        "",
        *machine.lines(),
        f"- `python -m benchmarks.cleaning --scenes {args.scenes}`, demo weights",
        "",
        f"{len(pictures)} drawn scenes of 640 pixels. An object is found where a mask's IoU with it is at least 0.5.",
        "IoU is the mean of what is found.",
        "",
        table(HEADER, rows),
    ]
    args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
