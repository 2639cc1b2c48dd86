"""Predictions from a file: a COCO data set whose annotations have scores, as `box2mask run` writes it, or COCO's list
of results, which names images and classes by the ids of the data set.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.data import DataError, Dataset, Place, Problem
from models.data.formats.coco import reading as coco
from models.data.parsing.json_file import parsed
from models.data.parsing.sources import Sources
from models.evaluation.image_names import ByName
from models.evaluation.predicted import Predicted, Predictions
from models.evaluation.predicted_list import read_list
from models.evaluation.readings import Options, UnclearError
from models.evaluation.result_list import is_named, is_wrapped, parse, parse_named


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
        entries = parse_named(content) if listed is None else parse(listed)
        return read_list(path, entries, dataset, options, skip_bad=skip_bad)
    except UnclearError as error:
        raise DataError([Problem(Place(path), str(error))]) from error


def _content(path: Path) -> Any:
    try:
        return parsed(path, json.loads)
    except DataError as error:
        if path.suffix.lower() not in (".pkl", ".pickle", ".pth", ".pt"):
            raise
        more = "expected JSON: MMDetection writes a list of results where its CocoMetric has an `outfile_prefix`"
        raise DataError([Problem(Place(path), f"{error.problems[0].reason}; {more}")]) from error


def _from_dataset(path: Path, content: Any, dataset: Dataset, options: Options, skip_bad: bool) -> Predictions:
    normalized = None if options.boxes is None else options.boxes == "xywh-fractions"
    predicted, problems = coco.read(path, Sources(normalized=normalized, scores=True))
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

    def problem(reason: str) -> None:
        problems.append(Problem(Place(path), reason))

    found: list[list[Predicted] | None] = [None] * len(dataset)
    by_name = ByName(image.path for image in dataset.images)
    names = [entry["file_name"] for entry in content["images"]]
    for place, (name, answered) in enumerate(zip(names, predicted.images, strict=True)):
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
            Predicted(one.label, 1.0 if one.score is None else one.score, one.box_xyxy, one.to_rle(image.size_hw))
            for one in answered.annotations
        ]
    for image, its in zip(dataset.images, found, strict=True):
        if its is None and not problems:
            problem(f"images: expected all of the data set's, {image.path} is not among them")
    if problems:
        raise DataError(problems)
    return Predictions([its or [] for its in found], tuple(notes))
