"""One image of a run, wherever it is in work: which are to do, how objects are found, what results depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from app.folders.journal import Journal, Stamp
from app.folders.outputs import Outputs
from app.folders.prompts import BoxPrompt, BoxPrompts
from app.folders.sources import SourceImage, Sources, beside
from app.prediction import PredictedObject, Predictor
from app.results.image_result import ImageResult
from models import uncertainty
from models.images.decoding import decode_image, image_size_hw, one_page

if TYPE_CHECKING:
    from app.contract.schemas import MaskSource

# The boxes of an image to its objects; the boxes are None where the detector finds them.
Predict = Callable[[bytes, tuple[BoxPrompt, ...] | None], list[PredictedObject]]


def detecting(predictor: Predictor, score_threshold: float, masks: MaskSource) -> Predict:
    """Objects by the detector, with the segmenter's masks, its own or none."""

    def predict(image: bytes, boxes: tuple[BoxPrompt, ...] | None) -> list[PredictedObject]:
        if masks == "segmenter":
            return predictor.detect_and_segment(image, score_threshold)
        return predictor.detect(image, score_threshold, masks=masks == "detector")

    return predict


def prompted(predictor: Predictor) -> Predict:
    """Masks of given boxes, which keep their labels and scores."""

    def predict(image: bytes, boxes: tuple[BoxPrompt, ...] | None) -> list[PredictedObject]:
        if not boxes:
            return []
        found = predictor.segment(image, np.array([one.box_xyxy for one in boxes]))
        return [replace(one, label=box.label, score=box.score) for box, one in zip(boxes, found, strict=True)]

    return predict


def everything(predictor: Predictor, grid: Mapping[str, float]) -> Predict:
    """All masks that the segmenter finds, without labels."""
    return lambda image, boxes: predictor.everything(image, **grid)


def with_agreement(predictor: Predictor, predict: Predict) -> Predict:
    """The same objects, with how far SAM's three masks for each box agree: one more decoding, by the kept embedding."""

    def both(image: bytes, boxes: tuple[BoxPrompt, ...] | None) -> list[PredictedObject]:
        objects = predict(image, boxes)
        places = np.array([one.box_xyxy for one in objects]).reshape(-1, 4)
        masks = predictor.three_masks(image, places)
        return [
            replace(one, mask_agreement=uncertainty.mask_agreement(three))
            for one, three in zip(objects, masks, strict=True)
        ]

    return both


@dataclass(frozen=True)
class Asked:
    """How the objects of a run's images are found: what a `Predict` is made of, wherever the predictor is.

    boxes: whose they are. score_threshold: of the detector's boxes. masks: whose they are. grid: of `everything`.
    agreement: whether SAM's three masks of each box are compared.
    """

    boxes: Literal["detector", "prompts", "everything"]
    score_threshold: float = 0.0
    masks: MaskSource = "segmenter"
    grid: Mapping[str, float] = field(default_factory=dict)
    agreement: bool = False

    def predict(self, predictor: Predictor) -> Predict:
        if self.boxes == "everything":
            predict = everything(predictor, self.grid)
        elif self.boxes == "detector":
            predict = detecting(predictor, self.score_threshold, self.masks)
        else:
            predict = prompted(predictor)
        return with_agreement(predictor, predict) if self.agreement else predict


@dataclass(frozen=True)
class Task:
    """One image that there is something to do of.

    boxes: None where the detector finds them. known: its result, where only files of its own are to be written.
    known_stamp: of that result.
    """

    source: SourceImage
    boxes: tuple[BoxPrompt, ...] | None
    known: ImageResult | None = None
    known_stamp: Stamp | None = None


@dataclass(frozen=True)
class ToDo:
    """What a run has before it, and what it finds done. resumed: images with a result. total: images of all sorts."""

    resumed: int
    total: int
    left: int
    _journal: Journal
    _items: tuple[tuple[SourceImage, tuple[BoxPrompt, ...] | None, bool], ...]

    def __iter__(self) -> Iterator[Task]:
        """In the images' order. A result that is known is read as its turn comes, so that they are never all here."""
        for source, boxes, is_known in self._items:
            if is_known:
                yield Task(source, boxes, self._journal.result(source.name), self._journal.stamp(source.name))
            else:
                yield Task(source, boxes)


def to_do(sources: Sources, journal: Journal, outputs: Outputs, prompts: BoxPrompts | None) -> ToDo:
    """What there is to do. prompts: None where the detector finds the boxes."""
    resumed = 0
    items: list[tuple[SourceImage, tuple[BoxPrompt, ...] | None, bool]] = []
    for source in sources.images:
        boxes = None if prompts is None else prompts.of_image.get(source.name, ())
        before = journal.stamp(source.name)
        if before is None or before != stamp(source, boxes):
            items.append((source, boxes, False))
            continue
        resumed += 1
        if outputs.lacks(journal, source.name):  # a format that was not asked for then
            items.append((source, boxes, True))
    others = [(source, None, True) for source in _of_earlier_runs(sources, journal, outputs)]
    items += others
    return ToDo(resumed, len(sources.images) + len(others), len(items), journal, tuple(items))


def _of_earlier_runs(sources: Sources, journal: Journal, outputs: Outputs) -> Iterator[SourceImage]:
    """Images that are not among these and lack files of their own; those whose files are still as they were."""
    own = {source.name for source in sources.images}
    for name in journal.names():
        if name not in own and outputs.lacks(journal, name):
            source = SourceImage(beside(sources.root, name), name)
            before, now = journal.stamp(name), stamp(source, None)
            if before is not None and now is not None and before | {"boxes": None} == now:
                yield source


def answered(task: Task, image: bytes, predict: Predict, page: int) -> ImageResult:
    """The image's result. image: the content of its file. Raises PredictionError or ImageError, and PredictorError."""
    objects = predict(image if page == 1 else one_page(image, page), task.boxes)
    if objects and objects[0].rle is not None:
        height, width = objects[0].rle["size"]
    elif task.boxes is None:
        height, width = image_size_hw(image, exif_orientation=True, page=page)
    else:  # nothing was asked of the predictor, which would have found out whether the image is whole
        height, width = decode_image(image, exif_orientation=True, page=page).shape[:2]
    return ImageResult(task.source.name, (height, width), tuple(objects))


def stamp(source: SourceImage, boxes: tuple[BoxPrompt, ...] | None) -> Stamp | None:
    """What the image's result depends on, besides the settings of the run; None for a file that is not there."""
    asked = None if boxes is None else hashlib.sha256(json.dumps(list(map(astuple, boxes))).encode()).hexdigest()
    if isinstance(source.path, str):  # an address tells neither
        return {"size_bytes": None, "mtime_ns": None, "boxes": asked}
    try:
        status = source.path.stat()
    except OSError:
        return None
    return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "boxes": asked}
