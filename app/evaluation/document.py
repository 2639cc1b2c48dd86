"""evaluation.json: every figure about the answers of models, under keys that docs/evaluation.md describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.evaluation.answers import Answers, MaskAnswers, Prompts, inside, prompted
from models.data import Annotation
from models.evaluation import (
    IOU_THRESHOLD,
    ScoredObject,
    box_figures,
    coco_figures,
    fill_boxes,
    mask_figures,
    score_detected,
    score_prompted,
)

FORMAT = 1
# The prompts whose figures stand at the top, as far as there are any: the whole walk's before those of a part of it.
HEADLINE: tuple[Prompts, ...] = ("detected", "ground-truth", "points")
# As published for the walk that this one follows, without a definition; docs/evaluation.md has what is known of them.
PUBLISHED = {
    "what": "YOLOF fine-tuned on odFridgeObjects, its boxes as prompts for SAM ViT-H, as published by Microsoft",
    "average_iou": 0.951422254326566,
    "average_accuracy": 0.9280402048325956,
}


@dataclass(frozen=True)
class MaskRow:
    """The objects behind the figures of one segmenter and one kind of prompts, in the order of the document's masks."""

    segmenter: str
    prompts: str
    objects: Sequence[ScoredObject]


@dataclass(frozen=True)
class Evaluation:
    """document: evaluation.json's content. rows: for each of its `masks` the objects. answers: what it is all about."""

    document: dict[str, Any]
    rows: Sequence[MaskRow]
    answers: Answers


def evaluate(answers: Answers, name: str, score_threshold: float, notes: Sequence[str] = ()) -> Evaluation:
    """Measure the answers. name: the data set's, for people. score_threshold: which detections count as found.

    notes: of how they were asked for; they come before those of the data.
    """
    dataset, truths = answers.dataset, answers.truths
    annotations = [one for _, one in dataset.annotations()]
    boxes = None
    if answers.detections is not None:
        boxes = {"detector": answers.detector, **box_figures(dataset, answers.detections, score_threshold, truths)}

    rows: list[MaskRow] = []
    masks: list[dict[str, Any]] = []
    floors: dict[str, dict[str, Any]] = {}  # the annotated boxes are the same for every segmenter
    has_masks = any(truth is not None for of_image in truths for truth in of_image)
    for given in answers.masks if has_masks else ():
        objects = _scored(answers, given, score_threshold)
        floor = "detected" if given.prompts == "detected" else "ground-truth"
        if floor not in floors:
            floors[floor] = mask_figures(fill_boxes(objects), dataset.class_names)
        rows.append(MaskRow(given.segmenter, given.prompts, objects))
        masks.append(
            {
                "segmenter": given.segmenter,
                "prompts": given.prompts,
                **mask_figures(objects, dataset.class_names),
                "coco": _mask_precision(answers, given),
                "filled_box": floors[floor],
            }
        )
    headline = next((one for kind in HEADLINE for one in masks if one["prompts"] == kind), {})
    single = Counter(one.label for one in annotations if not one.crowd)
    document = {
        "format": FORMAT,
        **{
            key: headline.get(key)
            for key in (
                "average_iou",
                "average_accuracy",
                "average_boundary_iou",
                "average_iou_all_objects",
                "average_accuracy_all_objects",
            )
        },
        "average_of": {key: headline[key] for key in ("segmenter", "prompts")} if headline else None,
        "published": PUBLISHED,
        "data": {
            "name": name,
            "images": len(dataset),
            "objects": sum(single.values()),
            "objects_with_masks": sum(len(prompted(*pair)) for pair in zip(dataset.images, truths, strict=True)),
            "crowd_regions": sum(one.crowd for one in annotations),
            "classes": {label: single[label] for label in dataset.class_names},
        },
        "score_threshold": score_threshold,
        "iou_threshold": IOU_THRESHOLD,
        "boxes": boxes,
        "masks": masks,
        "failures": [{"image": path, "reason": reason} for path, reason in answers.failures],
        "notes": [*notes, *_notes(answers, annotations, has_masks)],
    }
    return Evaluation(document, rows, answers)


def _scored(answers: Answers, given: MaskAnswers, score_threshold: float) -> list[ScoredObject]:
    dataset, truths = answers.dataset, answers.truths
    if given.prompts == "detected":
        return score_detected(dataset, truths, given.found, score_threshold)
    by_annotation = []
    for image, of_image, found in zip(dataset.images, truths, given.found, strict=True):
        indices = prompted(image, of_image)
        by_annotation.append({i: one.rle for i, one in zip(indices, found, strict=True) if one.rle is not None})
    return score_prompted(dataset, truths, by_annotation)


def _mask_precision(answers: Answers, given: MaskAnswers) -> dict[str, Any]:
    """COCO's figures of the masks, over the images all of whose annotations have masks."""
    whole = [index for index, truths in enumerate(answers.truths) if all(truth is not None for truth in truths)]
    return coco_figures(
        answers.dataset.subset(whole),
        [[one for one in given.found[index] if one.rle is not None] for index in whole],
        "segm",
        [answers.truths[index] for index in whole],
    )


def _notes(answers: Answers, annotations: Sequence[Annotation], has_masks: bool) -> list[str]:
    """What a reader of the figures should know about the data and the models."""
    names = answers.dataset.class_names
    notes = []
    if answers.detections is None:
        notes.append("There is no detector: neither boxes nor masks of detected boxes are measured.")
    if has_masks and not answers.masks:
        notes.append("There are no predicted masks: only boxes are measured.")
    if not has_masks:
        notes.append("The data set has boxes and no masks: it cannot tell how good masks are.")
    elif missing := sum(not one.has_mask for one in annotations):
        notes.append(
            f"{_many(missing, 'annotation')} with a box only: the masks' figures leave them out, and mask AP their "
            "images."
        )
    if outside := sum(not inside(one, image) for image, one in answers.dataset.annotations()):
        notes.append(
            f"{_many(outside, 'annotation')} with a box wholly outside the image: no mask is asked for them, and as "
            "detected objects they count as not found."
        )
    used = {one.label for one in annotations}
    if answers.class_names is not None:
        unknown = [name for name in names if name in used and name not in answers.class_names]
        if unknown:
            notes.append(f"The detector does not know {_list(unknown)}: all of these objects count as not found.")
    elsewhere = Counter(str(one.label) for found in answers.detections or () for one in found if one.label not in names)
    if elsewhere:
        notes.append(
            f"{_many(sum(elsewhere.values()), 'detection')} of {_list(sorted(elsewhere))} left out: the data set does "
            "not name them."
        )
    if crowds := sum(one.crowd for one in annotations):
        notes.append(f"{_many(crowds, 'crowd region')}: they count neither for nor against.")
    if empty := sum(not image.annotations for image in answers.dataset.images):
        notes.append(f"{_many(empty, 'image')} without objects: what is found there is wrong.")
    twice = sum(
        count - 1
        for image in answers.dataset.images
        for count in Counter((one.label, one.box_xyxy) for one in image.annotations).values()
    )
    if twice:
        notes.append(f"{_many(twice, 'annotation')} more than once: a detection stands for one of them only.")
    if answers.failures:
        notes.append(f"{_many(len(answers.failures), 'image')} could not be answered; no figure has them.")
    return notes


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
