"""Predictions from a file: a COCO data set whose annotations have scores, as `box2mask run` writes it, or COCO's list
of results, which names images and classes by the ids of the data set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.data import Annotation, DataError, Dataset, Place, Problem, coco
from models.data.coco_ids import identity
from models.data.ids import Ids
from models.data.sources import Sources
from models.data.values import BadValueError, number
from models.evaluation.image_names import ByName
from models.evaluation.predicted import Predicted, Predictions
from models.evaluation.predicted_list import read_list
from models.evaluation.readings import Options, UnclearError
from models.evaluation.result_list import four, is_wrapped


def read_predictions(
    path: Path, dataset: Dataset, options: Options | None = None, *, skip_bad: bool = False
) -> Predictions:
    """What the file says of each image of the data set.

    Of a data set, images are told apart by the name of their file, or by as many folders above it as the file of
    predictions names. Of a list of results, they are by their ids in the data set. Something without a score counts as
    one of score 1. Images that are not in the data set are passed over.

    options: how a list is to be read, where it is not as COCO has it. skip_bad: leave out its entries that cannot be
    read. Raises DataError with what is wrong with the file, and for images of the data set that a data set of
    predictions does not list.
    """
    content = _content(path)
    listed = content if isinstance(content, list) else is_wrapped(content)
    if listed is None:
        return Predictions(_from_dataset(path, dataset, content))
    try:
        return read_list(path, listed, dataset, options or Options(), skip_bad=skip_bad)
    except UnclearError as error:
        raise DataError([Problem(Place(path), str(error))]) from error


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} (column {error.colno})"
        raise DataError([Problem(Place(path, error.lineno), reason)]) from error
    except (OSError, ValueError, RecursionError) as error:
        more = ""
        if path.suffix.lower() in (".pkl", ".pickle", ".pth", ".pt"):
            more = "; expected JSON: MMDetection writes a list of results where its CocoMetric has an `outfile_prefix`"
        raise DataError([Problem(Place(path), f"cannot be read ({error}){more}")]) from error


def _from_dataset(path: Path, dataset: Dataset, content: Any) -> list[list[Predicted]]:
    predicted, problems = coco.read(path, Sources())
    problems = [problem for problem in problems if problem.fatal]
    if problems:
        raise DataError(problems)
    scores = read_scores(path, predicted)

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
    return [its or [] for its in found]


def read_scores(path: Path, dataset: Dataset) -> list[list[float | None]]:
    """The scores of the annotations of every image, of a file that `coco.read` made into this data set.

    None of an annotation that has none. What was not read, as an empty box, is passed over here too. Raises DataError.
    """
    content = json.loads(path.read_text("utf-8-sig"))
    own: Ids[list[Any]] = Ids()
    for entry in content["images"]:
        own.add(identity(entry["id"], "id"), [])
    for index, entry in enumerate(content["annotations"]):
        try:
            its = own.get(identity(entry["image_id"], "image_id"))
        except BadValueError:
            its = None
        if its is not None:
            its.append((index, entry))
    problems: list[Problem] = []
    scores: list[list[float | None]] = []
    for image, entries in zip(dataset.images, own.values(), strict=True):
        rest = iter(entries)
        scores.append([])
        for one in image.annotations:
            index, entry = next(((index, entry) for index, entry in rest if _may_be(entry, one)), (0, None))
            try:
                known = None if entry is None else entry.get("score")
                scores[-1].append(None if known is None else number(known, "score"))
            except BadValueError as error:
                problems.append(Problem(Place(path), f"annotations[{index}]: {error}"))
    if problems:
        raise DataError(problems)
    return scores


def _may_be(entry: dict[str, Any], annotation: Annotation) -> bool:
    """Whether the annotation was read from the entry: it has its box, or one of its mask."""
    try:
        x, y, width, height = four(entry.get("bbox"), "bbox")
    except BadValueError:
        return annotation.has_mask
    if width <= 0 or height <= 0:
        return annotation.has_mask
    box = (x, y, x + width, y + height)
    return all(abs(ours - its) < 1e-4 for ours, its in zip(annotation.box_xyxy, box, strict=True))
