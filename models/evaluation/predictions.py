"""Predictions from a file: a COCO data set whose annotations have scores, as `box2mask run` writes it."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.data import DataError, Dataset, Place, Problem, coco
from models.data.sources import Sources
from models.data.values import BadValueError, number
from models.evaluation.masks import Rle


@dataclass(frozen=True)
class Predicted:
    """One predicted object; the fields are those of `Found`."""

    label: str | None
    score: float | None
    box_xyxy: tuple[float, float, float, float]
    rle: Rle | None = None


def read_predictions(path: Path, dataset: Dataset) -> list[list[Predicted]]:
    """For each image of the data set what the file says of it.

    Images are told apart by the name of their file, or by as many folders above it as the file of predictions names.
    An annotation without a score counts as one of score 1. Images that are not in the data set are passed
    over. Raises DataError with what is wrong with the file, and for images of the data set that it does not list.
    """
    predicted, problems = coco.read(path, Sources())
    problems = [problem for problem in problems if problem.fatal]
    if problems:
        raise DataError(problems)
    scores = read_scores(path)

    def problem(reason: str) -> None:
        problems.append(Problem(Place(path), reason))

    found: list[list[Predicted] | None] = [None] * len(dataset)
    named: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(dataset.images):
        named[image.name].append(index)
    names = [PurePosixPath(entry["file_name"]) for entry in json.loads(path.read_text("utf-8-sig"))["images"]]
    for place, (name, answered, its_scores) in enumerate(zip(names, predicted.images, scores, strict=True)):
        meant = [index for index in named[name.name] if _ends_with(dataset.images[index].path, name)]
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


def read_scores(path: Path) -> list[list[float | None]]:
    """The scores of every image's annotations, all in the file's order, of a file that `coco.read` could read.

    None of an annotation that has none. Raises DataError.
    """
    content = json.loads(path.read_text("utf-8-sig"))
    scores: dict[int | str, list[float | None]] = {entry["id"]: [] for entry in content["images"]}
    problems = []
    for index, entry in enumerate(content["annotations"]):
        try:
            known = entry.get("score")
            scores[entry["image_id"]].append(None if known is None else number(known, "score"))
        except BadValueError as error:
            problems.append(Problem(Place(path), f"annotations[{index}]: {error}"))
    if problems:
        raise DataError(problems)
    return list(scores.values())


def _ends_with(path: Path | str, name: PurePosixPath) -> bool:
    parts = Path(path).parts if isinstance(path, Path) else PurePosixPath(path.split("?")[0]).parts
    wanted = [part for part in name.parts if part not in ("/", "..")]
    return list(parts[-len(wanted) :]) == wanted
