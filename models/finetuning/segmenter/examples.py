"""What a segmenter learns from: the objects of a data set that have masks, checked before a training begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.data import Annotation, Dataset, LabelledImage
from models.finetuning.checkpoint_files import TrainingError
from models.finetuning.photos import check, photo
from models.images.notes import PhotoNotes
from models.model_errors import Say
from models.rle import Rle, decode_rle

WAY = (
    "`box2mask run IMAGES --prompts DATA --formats coco --out masks` makes one by SAM for every box: correct these, "
    "and train on them"
)


@dataclass(frozen=True)
class Example:
    """An image with the objects to learn. rles: their masks, none empty. boxes_xyxy: (N, 4), as annotated."""

    image: LabelledImage
    rles: tuple[Rle, ...]
    boxes_xyxy: np.ndarray

    def photo(self) -> np.ndarray:
        """The image (H, W, 3) uint8 RGB. Raises DataError."""
        return photo(Path(self.image.path), self.image.size_hw, self.image.page)


def examples(training: Dataset, validation: Dataset, say: Say) -> tuple[list[Example], list[Example]]:
    """The images of both data sets that have objects with masks; regions of many objects are none.

    say: is told how photos are read, and what is left out. Raises DataError where a photo cannot be read, and
    TrainingError where no object has a mask.
    """
    notes = PhotoNotes(training.images[0].page if training.images else 1)
    found = []
    for dataset, use in ((training, "training"), (validation, "validation")):
        check(dataset, notes)
        found.append(_of(dataset, use, say))
    for line in notes.lines():
        say(line)
    counts = [f"{len(part)} images with {sum(len(one.rles) for one in part)} objects" for part in found]
    say(f"training on {counts[0]}, validating on {counts[1]}; classes count for nothing")
    return found[0], found[1]


def _of(dataset: Dataset, use: str, say: Say) -> list[Example]:
    found: list[Example] = []
    lacking: list[tuple[LabelledImage, Annotation]] = []
    objects = 0
    for image in dataset.images:
        masks: list[tuple[Rle, tuple[float, ...]]] = []
        for one in image.annotations:
            if one.crowd:
                continue
            objects += 1
            rle = one.to_rle(image.size_hw)
            if rle is None or not decode_rle(rle).any():  # type: ignore[arg-type]
                lacking.append((image, one))
            else:
                masks.append((Rle(size=rle["size"], counts=rle["counts"]), one.box_xyxy))
        if masks:
            rles, boxes = zip(*masks, strict=True)
            found.append(Example(image, rles, np.array(boxes, np.float64)))
    if not found:
        why = f"none of its {objects} objects has a mask" if objects else "it has no object"
        raise TrainingError(
            f"the {use} data teaches no masks, as {why}: expected a polygon or an RLE for each object. {WAY}"
        )
    if lacking:
        image, first = lacking[0]
        say(
            f"{len(lacking)} of {objects} {use} objects have no mask and are left out, the first a {first.label} in "
            f"{image.name}"
        )
    return found
