"""Predictions from a file: a COCO data set whose annotations have scores, as `box2mask run` writes it, or COCO's list
of results, which names images and classes by the ids of the data set.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.data import Annotation, DataError, Dataset, Place, Problem
from models.data.formats.coco import reading as coco
from models.data.parsing.ids import Ids
from models.data.parsing.json_file import not_json, parsed
from models.data.parsing.sources import Sources
from models.data.parsing.values import BadValueError
from models.evaluation.image_names import ByName
from models.evaluation.predicted import Predicted, Predictions
from models.evaluation.predicted_list import read_list
from models.evaluation.readings import Options, UnclearError
from models.evaluation.result_list import four, is_named, is_wrapped, parse, parse_named, score_of


def read_predictions(
    path: Path, dataset: Dataset, options: Options | None = None, *, skip_bad: bool = False
) -> Predictions:
    """What the file says of each image of the data set.

    Of a data set, and of boxes by the names of images, they are told apart by the name of their file, or by as many
    folders above it as the file of predictions names. Of a list of results, they are by their ids in the data set.
    Something without a score counts as one of score 1. Images that are not in the data set are passed over.

    options: how a list is to be read, where it is not as COCO has it. skip_bad: leave out its entries that cannot be
    read. Raises DataError with what is wrong with the file, and for images of the data set that a data set of
    predictions does not list.
    """
    content = _content(path)
    options = options or Options()
    listed = content if isinstance(content, list) else is_wrapped(content)
    if listed is None and not is_named(content):
        return _from_dataset(path, content, dataset, options, skip_bad)
    try:
        parsed = parse_named(content) if listed is None else parse(listed)
        return read_list(path, parsed, dataset, options, skip_bad=skip_bad)
    except UnclearError as error:
        raise DataError([Problem(Place(path), str(error))]) from error


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise not_json(path, error) from error
    except (OSError, ValueError, RecursionError) as error:
        more = ""
        if path.suffix.lower() in (".pkl", ".pickle", ".pth", ".pt"):
            more = "; expected JSON: MMDetection writes a list of results where its CocoMetric has an `outfile_prefix`"
        raise DataError([Problem(Place(path), f"cannot be read ({error}){more}")]) from error


def _from_dataset(path: Path, content: Any, dataset: Dataset, options: Options, skip_bad: bool) -> Predictions:
    normalized = None if options.boxes is None else options.boxes == "xywh-fractions"
    predicted, problems = coco.read(path, Sources(normalized=normalized))
    problems = [
        replace(problem, reason=problem.reason.replace("--normalized", "--boxes xywh-fractions"))
        for problem in problems
        if problem.fatal
    ]
    if problems and not (skip_bad and len(predicted.images) == len(content["images"])):
        raise DataError(problems)
    notes = [f"{problem}: left out" for problem in problems[:1]]
    if len(problems) > 1:
        notes.append(f"{path}: {len(problems) - 1} more are left out, as they cannot be read")
    problems = []
    scores = scores_of(path, content, predicted, normalized=bool(normalized))

    def problem(reason: str) -> None:
        problems.append(Problem(Place(path), reason))

    found: list[list[Predicted] | None] = [None] * len(dataset)
    by_name = ByName(image.path for image in dataset.images)
    names = [entry["file_name"] for entry in content["images"]]
    for place, (name, answered, its_scores) in enumerate(zip(names, predicted.images, scores, strict=True)):
        meant = by_name.find(name)
        if not meant:
            continue
        if len(meant) > 1 or found[meant[0]] is not None:
            problem(f"images[{place}]: {name} and other images have one name: expected them told apart by folders")
            continue
        image = dataset.images[meant[0]]
        if answered.size_hw != image.size_hw:
            problem(
                f"images[{place}]: {name}: expected height and width {list(image.size_hw)} as in the data set, "
                f"got {list(answered.size_hw)}"
            )
            continue
        found[meant[0]] = [
            Predicted(one.label, 1.0 if score is None else score, one.box_xyxy, one.to_rle(image.size_hw))
            for one, score in zip(answered.annotations, its_scores, strict=True)
        ]
    for image, its in zip(dataset.images, found, strict=True):
        if its is None and not problems:
            problem(f"images: expected all of the data set's, {image.path} is not among them")
    if problems:
        raise DataError(problems)
    return Predictions([its or [] for its in found], tuple(notes))


def read_scores(path: Path, dataset: Dataset, *, normalized: bool = False) -> list[list[float | None]]:
    """`scores_of` what the file holds."""
    return scores_of(path, parsed(path, json.loads), dataset, normalized=normalized)


def scores_of(path: Path, content: Any, dataset: Dataset, *, normalized: bool = False) -> list[list[float | None]]:
    """The scores of the annotations of every image, of a file that `coco.read` made into this data set.

    content: the file's, parsed.
    None of an annotation that has none. What the data set does not have, as an empty box, is passed over here too.
    normalized: the boxes of the file are fractions. Raises DataError.
    """
    own: Ids[list[Any]] = Ids()
    for entry in content["images"]:
        own.add(coco.identity_of(entry, "id"), [])
    for index, entry in enumerate(content["annotations"]):
        try:
            its = own.get(coco.identity_of(entry, "image_id"))
        except BadValueError:  # what `coco.read` has left out
            continue
        if its is not None:
            its.append((index, entry))
    problems: list[Problem] = []
    scores: list[list[float | None]] = []
    for image, entries in zip(dataset.images, own.values(), strict=True):
        height, width = image.size_hw
        scale = (width, height) if normalized else (1, 1)
        start = 0
        scores.append([])
        for one in image.annotations:
            at = next((at for at in range(start, len(entries)) if _may_be(entries[at][1], one, scale)), None)
            index, entry = (0, {}) if at is None else entries[at]
            start = start if at is None else at + 1
            try:
                known = entry.get("score")
                scores[-1].append(None if known is None else score_of(known))
            except BadValueError as error:
                problems.append(Problem(Place(path), f"annotations[{index}]: {error}"))
    if problems:
        raise DataError(problems)
    return scores


def _may_be(entry: Any, annotation: Annotation, scale_xy: tuple[int, int]) -> bool:
    """Whether the annotation was read from the entry: it has its box, or one of its mask."""
    try:
        x, y, width, height = four(entry.get("bbox"), "bbox")
    except (BadValueError, AttributeError):
        return annotation.has_mask
    if width <= 0 or height <= 0:
        return annotation.has_mask
    box = (x, y, x + width, y + height)
    return all(
        abs(ours - its * side) < 1e-4 for ours, its, side in zip(annotation.box_xyxy, box, scale_xy * 2, strict=True)
    )
