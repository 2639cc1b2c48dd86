"""What models say of annotated images: their boxes, and their masks for every kind of prompt.

Everything is asked of a `Predictor`, so that what is measured is what the service answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask

from app.prediction import PredictedObject, PredictionError, Predictor, read_image
from models.data import Annotation, Dataset, LabelledImage
from models.evaluation import Found, Rle, middle_point, truth_masks
from models.images.decoding import ImageError, image_size_hw, one_page

Prompts = Literal["ground-truth", "detected", "points"]
PROMPTS: tuple[Prompts, ...] = ("ground-truth", "detected", "points")

# Average precision is made of detections of low scores too; this is YOLOF's own threshold on COCO.
CANDIDATE_SCORE = 0.05
# Images in work at once, so that one is decoded while another is computed.
IMAGES_AT_ONCE = 3


@dataclass(frozen=True)
class MaskAnswers:
    """One segmenter's masks for one kind of prompts; or a detector's own, as "detected".

    found: for each image what was found. "detected": the detections, each with its mask; otherwise an
        entry for each of the image's `prompted` annotations, with its label, and SAM's own score of the mask.
    """

    segmenter: str
    prompts: Prompts
    found: Sequence[Sequence[Found]]


@dataclass(frozen=True)
class Answers:
    """What was said of the images of `dataset`, with `truths`, their true masks.

    detector: its name, or None. class_names: what it knows; None where that is not known. detections: for each image,
    from `CANDIDATE_SCORE` on; None without a detector. failures: images that could not be answered, which are not in
    `dataset`, and why.
    """

    dataset: Dataset
    truths: Sequence[Sequence[Rle | None]]
    detector: str | None
    class_names: tuple[str, ...] | None
    detections: Sequence[Sequence[Found]] | None
    masks: Sequence[MaskAnswers]
    failures: Sequence[tuple[str, str]] = ()


def ask(
    dataset: Dataset,
    predictors: Sequence[Callable[[], Predictor]],
    prompts: Sequence[Prompts] = PROMPTS,
    progress: Callable[[], None] = lambda: None,
    *,
    own_masks: bool = False,
) -> Answers:
    """Ask one predictor after the other; each is opened when its turn comes, and closed after it.

    The first one's detector is the one that is measured and gives the detected boxes; of the others only the segmenters
    are. Without a true mask in the data set no masks are asked for. progress: called after every image of every
    predictor. own_masks: the detector's own masks are measured too, before the segmenters'. Raises what opening one
    raises, and PredictorError.
    """
    truths = truth_masks(dataset)
    if not any(truth is not None for of_image in truths for truth in of_image):
        prompts, own_masks = (), False
    detector: str | None = None
    class_names: tuple[str, ...] | None = None
    detections: list[Sequence[Found]] | None = None
    masks: list[MaskAnswers] = []
    failures: dict[int, str] = {}
    for turn, open_one in enumerate(predictors):
        predictor = open_one()
        try:
            models = predictor.description
            detect = turn == 0 and models["detector"] is not None
            if detect:
                detector, class_names = models["detector"]["name"], predictor.class_names
            kinds = [kind for kind in prompts if detector is not None or kind != "detected"]
            question = _Question(predictor, detect, kinds if models["segmenter"] is not None else [], own_masks)
            answers = []
            for index, answer in enumerate(question.answers(dataset, truths, detections)):
                if isinstance(answer, str):
                    failures.setdefault(index, answer)
                    answer = _Answer([], {kind: [] for kind in question.prompts})
                answers.append(answer)
                progress()
            if detect:
                detections = [one.detections for one in answers]
                if own_masks and detector is not None:
                    masks.append(MaskAnswers(detector, "detected", detections))
            if question.prompts:
                name = _unlike(models["segmenter"]["name"], {one.segmenter for one in masks})
                masks += [MaskAnswers(name, kind, [one.masks[kind] for one in answers]) for kind in kinds]
        finally:
            predictor.close()

    kept = [index for index in range(len(dataset)) if index not in failures]
    return Answers(
        dataset.subset(kept),
        [truths[index] for index in kept],
        detector,
        class_names,
        None if detections is None else [detections[index] for index in kept],
        [replace(one, found=[one.found[index] for index in kept]) for one in masks],
        [(str(dataset.images[index].path), reason) for index, reason in sorted(failures.items())],
    )


def prompted(image: LabelledImage, truths: Sequence[Rle | None]) -> list[int]:
    """The annotations that are prompts: single objects in the image that have a true mask to compare with."""
    return [
        i for i, one in enumerate(image.annotations) if truths[i] is not None and not one.crowd and inside(one, image)
    ]


def inside(annotation: Annotation, image: LabelledImage) -> bool:
    """Whether any of the annotated box is in the image; a box that is not would be no prompt."""
    height, width = image.size_hw
    x1, y1, x2, y2 = annotation.box_xyxy
    return x1 < width and y1 < height and x2 > 0 and y2 > 0


@dataclass(frozen=True)
class _Answer:
    detections: Sequence[Found]
    masks: dict[Prompts, Sequence[Found]]


@dataclass(frozen=True)
class _Question:
    """What one predictor is asked about every image."""

    predictor: Predictor
    detect: bool
    prompts: Sequence[Prompts]
    own_masks: bool

    def answers(
        self,
        dataset: Dataset,
        truths: Sequence[Sequence[Rle | None]],
        detections: Sequence[Sequence[Found]] | None,
    ) -> Iterator[_Answer | str]:
        """For each image the answer, or the reason why there is none. Raises PredictorError."""

        def answer(index: int) -> _Answer | str:
            try:
                known = None if detections is None else detections[index]
                return self.answer(dataset.images[index], truths[index], known)
            except (PredictionError, ImageError) as error:
                return str(error)

        with ThreadPoolExecutor(IMAGES_AT_ONCE) as pool:
            try:
                yield from pool.map(answer, range(len(dataset)))
            finally:
                pool.shutdown(cancel_futures=True)

    def answer(self, image: LabelledImage, truths: Sequence[Rle | None], detections: Sequence[Found] | None) -> _Answer:
        """detections: those of an earlier predictor, or None. Raises PredictionError."""
        data = read_image(image.path)
        if image.page != 1:
            data = one_page(data, image.page)
        size_hw = image_size_hw(data, exif_orientation=True)
        if size_hw != image.size_hw:
            raise PredictionError(
                f"expected an image of width {image.size_hw[1]} and height {image.size_hw[0]}, as in the annotations, "
                f"got {size_hw[1]} and {size_hw[0]}"
            )
        if self.detect:
            detections = self.predictor.detect(data, CANDIDATE_SCORE, masks=self.own_masks)
        detections = detections or []
        indices = prompted(image, truths)
        masks: dict[Prompts, Sequence[Found]] = {}
        # All boxes in one request, which encodes the image once, whatever is cached.
        annotated = image.boxes_xyxy[indices] if "ground-truth" in self.prompts else np.zeros((0, 4))
        detected = [one.box_xyxy for one in detections] if "detected" in self.prompts else []
        boxes = np.concatenate((annotated, np.array(detected, np.float64).reshape(-1, 4)))
        found = self.predictor.segment(data, boxes) if len(boxes) else []
        if "ground-truth" in self.prompts:
            masks["ground-truth"] = self._labelled(image, indices, found[: len(annotated)])
        if "detected" in self.prompts:
            masks["detected"] = [
                PredictedObject(one.label, one.score, one.box_xyxy, mask.rle, mask.iou_score)
                for one, mask in zip(detections, found[len(annotated) :], strict=True)
            ]
        if "points" in self.prompts:
            points = np.array([_middle(image, index, truths[index]) for index in indices]).reshape(-1, 2)
            masks["points"] = self._labelled(image, indices, self.predictor.segment_points(data, points))
        return _Answer(detections, masks)

    @staticmethod
    def _labelled(image: LabelledImage, indices: list[int], found: list[PredictedObject]) -> list[PredictedObject]:
        """Each with the label and the box of its annotation, and SAM's own score."""
        return [
            replace(one, label=image.annotations[i].label, box_xyxy=image.annotations[i].box_xyxy, score=one.iou_score)
            for i, one in zip(indices, found, strict=True)
        ]


def _middle(image: LabelledImage, index: int, truth: Rle | None) -> tuple[float, float]:
    """The point that stands for an annotation: the mask's innermost pixel; of a mask of no pixels, its box's middle."""
    mask = coco_mask.decode(dict(truth or {}))
    if mask.any():
        return middle_point(mask)
    x1, y1, x2, y2 = image.annotations[index].box_xyxy
    return (x1 + x2) / 2, (y1 + y2) / 2


def _unlike(name: str, taken: set[str]) -> str:
    """The name, with a number if another segmenter has it."""
    number = 2
    unlike = name
    while unlike in taken:
        unlike = f"{name} ({number})"
        number += 1
    return unlike
