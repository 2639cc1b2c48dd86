"""Boxes from elsewhere: `--prompts` read from any form they may have, and given to the run's images.

{"photo.jpg": [[x1, y1, x2, y2], ...]}                        absolute pixels; a box may also be an object
{"photo.jpg": [{"box": [x1, y1, x2, y2], "label": "can", "score": 0.9}, ...]}
[{"image_id": ..., "category_id": ..., "bbox": [x, y, w, h], "score": ...}, ...]   COCO's list of results
anything that `models.data.load` reads                        COCO, Pascal VOC, AzureML JSONL, MLTable
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from app.folders.listed_prompts import read_listed
from app.folders.sources import SourceImage
from models.data import DataError, load
from models.data.parsing.contents import text_of
from models.evaluation.readings import Options, UnclearError
from models.evaluation.result_list import is_wrapped

_SHOWN = 20  # problems in an error, images in a note


class PromptsError(ValueError):
    """Boxes that cannot be used: a line for each, with file, image, number of the box, what was expected and found."""


@dataclass(frozen=True)
class BoxPrompt:
    """One box: x1, y1, x2, y2 in absolute pixels, and what is known of the object."""

    box_xyxy: tuple[float, float, float, float]
    label: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class BoxPrompts:
    """The boxes of the run's images, by their names; an image that the file does not know has none.

    class_names: in the file's order, where it has one. notes: what of the file is not used.
    """

    of_image: dict[str, tuple[BoxPrompt, ...]]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


class _BadBoxError(ValueError):
    """Says what was expected and what was found."""


def read_prompts(
    path: Path,
    images: Sequence[SourceImage],
    score_threshold: float | None = None,
    *,
    options: Options | None = None,
    annotation_file: Path | None = None,
    skip_bad: bool = False,
) -> BoxPrompts:
    """Read the file and find its images among these.

    score_threshold: leave out boxes with a lower score. options, annotation_file: how a list of results is to be read,
    and the COCO file whose ids it has. skip_bad: leave out what cannot be read of a list of boxes. Raises PromptsError.
    """
    if not path.exists():
        raise PromptsError(f"{path}: there is no such file or folder")
    content = _parse(path) if path.is_file() and path.suffix.lower() == ".json" else None
    notes: list[str] = []
    class_names: tuple[str, ...] = ()
    boxes: dict[str, list[BoxPrompt]]
    listed = content if isinstance(content, list) else is_wrapped(content)
    options = options or Options()
    fractions = options.boxes == "xywh-fractions"
    if listed is None and (annotation_file is not None or options not in (Options(), Options(boxes="xywh-fractions"))):
        raise PromptsError(f"{path}: --prompts-images and what else is for lists of results, found another form")
    if listed is not None:
        try:
            read = read_listed(listed, images, options, annotation_file)
        except (UnclearError, DataError) as error:
            raise PromptsError(f"{path}: {error}" if isinstance(error, UnclearError) else str(error)) from error
        _tell([f"{path}: {one}" for one in sorted(read.bad, key=lambda one: one.index)], skip_bad, notes)
        boxes = {name: [BoxPrompt(*one) for one in its] for name, its in read.of_image.items()}
        class_names = read.class_names
        notes += [f"{path}: {note}" for note in read.notes]
    elif content is None or isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        boxes, class_names = _from_dataset(path, notes, fractions)
    else:
        boxes = _from_plain(path, content, skip_bad, notes)
    if score_threshold is not None:
        total = sum(map(len, boxes.values()))
        boxes = {
            key: [one for one in found if one.score is None or one.score >= score_threshold]
            for key, found in boxes.items()
        }
        if left := total - sum(map(len, boxes.values())):
            notes.append(f"{path}: {left} boxes that score less than {score_threshold:g} are left out")
    of_image = _given_to_images(path, boxes, images, notes)
    return BoxPrompts(of_image, class_names, tuple(notes))


def _parse(path: Path) -> Any:
    def unlike(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """The object, if no two of its names are the same; json would take the last one's value."""
        if len(found := dict(pairs)) < len(pairs):
            double = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
            raise PromptsError(f"{path}: expected one entry for {double}, found another")
        return found

    try:
        content = json.loads(text_of(path), object_pairs_hook=unlike)
    except json.JSONDecodeError as error:
        raise PromptsError(f"{path}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, deep nesting
        raise PromptsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, list | dict):
        raise PromptsError(f"{path}: expected an object or a list, found {_shown(content)}")
    return content


def _from_plain(path: Path, content: dict[str, Any], skip_bad: bool, notes: list[str]) -> dict[str, list[BoxPrompt]]:
    boxes: dict[str, list[BoxPrompt]] = {}
    problems = []
    for image, entries in content.items():
        boxes[image] = []
        if not isinstance(entries, list):
            problems.append(f"{path}: {image}: expected a list of boxes, found {_shown(entries)}")
            continue
        for number, entry in enumerate(entries):
            try:
                boxes[image].append(_plain_box(entry))
            except _BadBoxError as error:
                problems.append(f"{path}: {image}, box {number}: {error}")
    _tell(problems, skip_bad, notes)
    return boxes


def _plain_box(entry: Any) -> BoxPrompt:
    if not isinstance(entry, dict):
        return BoxPrompt(_corners(entry, "[x1, y1, x2, y2]"))
    if "box" not in entry:
        raise _BadBoxError(f'expected {{"box": [x1, y1, x2, y2]}}, found {_shown(entry)}')
    return BoxPrompt(_corners(entry["box"], "[x1, y1, x2, y2]"), _label(entry.get("label")), _score(entry.get("score")))


def _from_dataset(path: Path, notes: list[str], fractions: bool) -> tuple[dict[str, list[BoxPrompt]], tuple[str, ...]]:
    try:
        dataset = load(path, normalized=fractions or None, scores=True)
    except DataError as error:
        raise PromptsError(str(error).replace("--normalized", "--boxes xywh-fractions")) from error
    boxes: dict[str, list[BoxPrompt]] = {}
    crowds = 0
    problems = []
    for image in dataset.images:
        key = image.path if isinstance(image.path, str) else _relative(image.path, path)
        if key in boxes:
            problems.append(f"{image.place or path}: expected one entry for {key}, found another")
        crowds += sum(one.crowd for one in image.annotations)
        boxes[key] = [BoxPrompt(one.box_xyxy, one.label, one.score) for one in image.annotations if not one.crowd]
    _tell(problems)
    if crowds:
        notes.append(f"{path}: {crowds} regions of many objects (crowd) are left out")
    return boxes, dataset.class_names


def _relative(image: Path, source: Path) -> str:
    """The image's path from the data set's folder, where it is in there: most data sets say it so."""
    folder = source.absolute() if source.is_dir() else source.absolute().parent
    image = image.absolute()
    return (image.relative_to(folder) if image.is_relative_to(folder) else image).as_posix()


def _given_to_images(
    path: Path, boxes: dict[str, list[BoxPrompt]], images: Sequence[SourceImage], notes: list[str]
) -> dict[str, tuple[BoxPrompt, ...]]:
    """For each image the entry of its very name, or else the one whose path ends as its own does.

    Over as many folders as either has, that is; of several such the one that agrees in most.
    """
    of_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    keys: dict[tuple[str, ...], str] = {}
    problems = []
    for key in boxes:
        parts = PurePosixPath(key.split("?")[0] if "://" in key else key).parts
        if parts in keys:
            problems.append(f"{path}: expected one entry for {keys[parts]}, found {key} too")
            continue
        keys[parts] = key
        of_name[parts[-1] if parts else ""].append(parts)
    exact = {PurePosixPath(image.name).parts for image in images}.intersection(keys)
    taken: dict[str, list[str]] = defaultdict(list)
    for image in images:
        own, name = image.parts, PurePosixPath(image.name).parts
        found: dict[int, list[tuple[str, ...]]] = defaultdict(list)
        for last in {own[-1], image.stem}:
            for parts in of_name.get(last, ()):
                common = _common_end((*own[:-1], last), parts)
                if common >= min(len(parts), len(name)) and parts not in exact:
                    found[common].append(parts)
        if name in exact:
            taken[keys[name]].append(image.name)
        elif found:
            best = found[max(found)]
            if len(best) > 1:
                named = " and ".join(sorted(keys[parts] for parts in best))
                problems.append(f"{path}: expected one entry for {image.name}, found {named}")
            taken[keys[best[0]]].append(image.name)
    for key, names in taken.items():
        if len(names) > 1:
            problems.append(f"{path}: {key}: expected one image of that name, found {' and '.join(names[:_SHOWN])}")
    _tell(problems)
    if not taken:
        raise PromptsError(
            f"{path}: expected boxes for the images ({_some([one.name for one in images], 3)}), "
            f"found those of {_some(list(boxes), 3) or 'none'}"
        )
    if unused := [key for key in boxes if key not in taken]:
        notes.append(f"{path}: {len(unused)} of its images are not among these: {_some(unused, 3)}")
    if without := len(images) - len(taken):
        notes.append(f"{path}: has no entry for {without} of the images; they get no objects")
    return {names[0]: tuple(boxes[key]) for key, names in taken.items()}


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many parts the two paths share, from the last."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            break
        count += 1
    return count


def _corners(value: Any, expected: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = _four(value, expected)
    if x1 >= x2 or y1 >= y2:
        raise _BadBoxError(f"expected {expected} with x1 < x2 and y1 < y2, found {_shown(value)}")
    return x1, y1, x2, y2


def _four(value: Any, expected: str) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise _BadBoxError(f"expected {expected}, found {_shown(value)}")
    x, y, z, w = map(float, value)
    return x, y, z, w


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _label(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _BadBoxError(f"label: expected text, found {_shown(value)}")


def _score(value: Any) -> float | None:
    if value is None or _is_number(value):
        return value
    raise _BadBoxError(f"score: expected a number, found {_shown(value)}")


def _tell(problems: list[str], skip_bad: bool = False, notes: list[str] | None = None) -> None:
    """Raises PromptsError with what is wrong, unless that is to be skipped and only said."""
    if problems and skip_bad and notes is not None:
        notes.append(f"{problems[0]} (left out" + (f", as {len(problems) - 1} more)" if len(problems) > 1 else ")"))
    elif problems:
        more = [f"... and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise PromptsError("\n".join(problems[:_SHOWN] + more))


def _some(names: Sequence[str], most: int) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ..."


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
