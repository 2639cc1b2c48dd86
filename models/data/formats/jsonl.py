"""AzureML's JSON Lines for object detection and instance segmentation: one image a line, coordinates in 0..1.

{"image_url": "...", "image_details": {"format": "jpg", "width": 499, "height": 666}, "label": [
  {"label": "can", "topX": 0.1, "topY": 0.2, "bottomX": 0.8, "bottomY": 0.7, "isCrowd": 0},
  {"label": "can", "isCrowd": 0, "polygon": [[x1, y1, x2, y2, ...], ...]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.formats.protocol import Format, Found, Outline, Writer
from models.data.image_files import size_hw
from models.data.parsing import classes
from models.data.parsing.contents import marked
from models.data.parsing.sources import Sources
from models.data.parsing.values import (
    BadValueError,
    EmptyBoxError,
    box,
    extent,
    flag,
    is_missing,
    listed,
    number,
    pixel,
    polygons,
    shortest,
    shown,
    stated_size_hw,
    text,
)

CORNERS = ("topX", "topY", "bottomX", "bottomY")
_LOOKED_AT = 5  # lines
FAR_OUTSIDE = 4.0  # in widths and heights of the image: no box reaches there


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What the file holds, and what in it could not be read. Raises DataError when the file cannot be read at all.

    Relative paths start at the file's folder. A size that is not stated is taken from the image.
    """
    images, problems = read_lines(path, sources)
    listed = classes.beside(path)
    return classes.dataset(classes.read(listed), images, problems, str(listed)), problems


def read_lines(path: Path, sources: Sources, encoding: str = "utf-8-sig") -> tuple[list[LabelledImage], list[Problem]]:
    """The images of the file's lines, and the lines and objects that could not be read."""
    try:
        content = path.read_bytes()
        encoding = marked(content) or encoding
        decoded = content.decode(encoding)
    except UnicodeDecodeError as error:
        broken = content[: error.start].count(b"\n") + 1
        raise DataError([Problem(Place(path, broken), f"not {encoding} ({error.reason})")]) from error
    except OSError as error:
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error
    images: list[LabelledImage] = []
    problems: list[Problem] = []
    lines = decoded.split("\n")
    if (other := _other_lines(lines)) is not None:
        raise DataError([Problem(Place(path), other)])
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            place = Place(path, line_number)
            try:
                images.append(_image(line, place, sources, problems))
            except BadValueError as error:
                problems.append(Problem(place, str(error)))
    return images, problems


def _other_lines(lines: Iterable[str]) -> str | None:
    """What the first lines are, if all of them are not of AzureML's objects, with the way out."""
    reasons = [_other_line(line) for line in islice(filter(str.strip, lines), _LOOKED_AT)]
    return reasons[0] if reasons and all(reasons) else None


def _other_line(line: str) -> str | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    label = listed(entry.get("label"))
    texts = label if isinstance(label, list) else [label]
    if "image_url" in entry and texts and all(isinstance(one, str) and one.strip() for one in texts):
        return (
            f"label: {shown(label)} are classes of whole images, without boxes: "
            "label objects in a project for object detection, or instance segmentation"
        )
    if "filename" in entry and "boxes" in entry and "image_url" not in entry:
        return (
            "this is AutoML's predictions, not a data set: "
            "`run --prompts` and `evaluate --predictions` read predictions as COCO's list of results"
        )
    if {"image", "prefix", "suffix"} <= entry.keys():
        return "this is prompts and answers (PaliGemma, Florence): export COCO, YOLO or Pascal VOC from the same tool"
    return None


def check(dataset: Dataset, outline: Outline | None) -> None:
    """Raises ValueError for what JSONL cannot hold: a class that is not one line of text, and masks that are
    run-length encoded where there is no `outline` to make polygons of them.
    """
    classes.check(dataset.class_names)
    if outline is None:
        for image, one in dataset.annotations():
            if one.rle is not None:
                raise ValueError(f"{image.path}: a mask that is run-length encoded needs an outline for JSONL")


def write(dataset: Dataset, path: Path, references: Iterable[str], outline: Outline | None) -> list[str]:
    """Writes the file and its classes; returns a line for each kind of thing that JSONL could not hold as it was.

    references: for each image, the `image_url`. outline: makes the polygons of a mask that is run-length encoded.

    An object with polygons has no corners, as Azure writes it, except where its box is another than that around them.
    Raises ValueError, before anything is written, as `check` does.
    """
    check(dataset, outline)
    traced = inexact = 0
    lines = []
    for image, reference in zip(dataset.images, references, strict=True):
        height, width = image.size_hw
        details = {"format": Path(image.name).suffix[1:].lower(), "width": width, "height": height}
        label = []
        for one in image.annotations:
            parts = [_normalized(part, width, height) for part in one.polygons] if one.polygons else None
            if one.rle is not None and outline is not None:
                traced += 1
                parts = outline(one.mask(image.size_hw)) or None  # type: ignore[arg-type]  # it has a mask
                inexact += not _same(one, parts, image)
            label.append(_entry(one, parts, width, height))
        lines.append(json.dumps({"image_url": reference, "image_details": details, "label": label}, ensure_ascii=False))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    classes.write(classes.beside(path), dataset.class_names)
    if not traced:
        return []
    return [
        f"{traced} run-length encoded masks written as the polygons around their pixels"
        + (f", {inexact} of them not to the pixel" if inexact else "")
    ]


def _image(line: str, place: Place, sources: Sources, problems: list[Problem]) -> LabelledImage:
    try:
        entry = json.loads(line)  # NaN, which stands for what is missing, too
    except json.JSONDecodeError as error:
        raise BadValueError(f"not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise BadValueError("not JSON: nested too deeply") from error
    except ValueError as error:  # a constant or number that Python will not have
        raise BadValueError(f"not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise BadValueError(f"expected an object, found {shown(entry)}")
    path = sources.find(entry.get("image_url"), "image_url", [place.file.parent], hint=place.file.stem)
    details = entry.get("image_details") or {}
    if not isinstance(details, dict):
        raise BadValueError(f"image_details: expected an object, found {shown(details)}")
    fields = ("image_details.height", "image_details.width")
    size = stated_size_hw(_without_unit(details.get("height")), _without_unit(details.get("width")), fields)
    size = size or size_hw(path, sources.page)
    label = listed(entry.get("label"))
    if not isinstance(label, list):
        raise BadValueError(f"label: expected a list of objects, found {shown(label)}")
    found = []
    for index, one in enumerate(label):
        dropped: list[str] = []
        try:
            found.append(_annotation(one, size, place, sources, dropped))
        except EmptyBoxError as error:
            problems.append(Problem(place, f"label[{index}]: {error}: left out", fatal=False))
        except BadValueError as error:
            problems.append(Problem(place, f"label[{index}]: {error}"))
        problems += (Problem(place, f"label[{index}]: {one}: this part is left out", fatal=False) for one in dropped)
    return LabelledImage(path, size, tuple(found), place)


def _without_unit(value: Any) -> Any:
    """The width or height of the text `400px` that Azure's documentation shows."""
    return value.strip().removesuffix("px") if isinstance(value, str) else value


def _annotation(entry: Any, size_hw: tuple[int, int], place: Place, sources: Sources, dropped: list[str]) -> Annotation:
    if not isinstance(entry, dict):
        raise BadValueError(f"expected an object, found {shown(entry)}")
    height, width = (1, 1) if sources.normalized is False else size_hw
    label = text(entry.get("label"), "label")
    parts = None
    if (polygon := listed(entry.get("polygon"))) and not is_missing(polygon):
        parts = polygons(polygon, "polygon", (width, height), dropped) or None
    if not all(is_missing(entry.get(name)) for name in CORNERS):
        corners = [number(entry.get(name), name) for name in CORNERS]
        _expect_fractions(corners, "topX topY bottomX bottomY", sources)
        x1, y1, x2, y2 = corners
        xyxy = box(x1 * width, y1 * height, x2 * width, y2 * height, "topX topY bottomX bottomY, in pixels")
    elif parts is not None:
        around = extent(parts)
        _expect_fractions([around[0] / width, around[3] / height, around[2] / width], "polygon", sources)
        xyxy = box(*around, "the box around the polygon, in pixels")
    else:
        raise BadValueError("expected topX, topY, bottomX and bottomY or a polygon, found neither")
    return Annotation(label, xyxy, parts, None, flag(entry.get("isCrowd"), "isCrowd"), place)


def _expect_fractions(values: list[float], field: str, sources: Sources) -> None:
    if sources.normalized is None and max(values) > FAR_OUTSIDE:
        found = shortest(max(values))
        raise BadValueError(f"{field}: expected fractions in 0..1, found {found} (pixels? --absolute reads them)")


def _entry(one: Annotation, parts: list[list[float]] | None, width: int, height: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"label": one.label}
    if parts is None or _around(parts, width, height) != tuple(map(pixel, one.box_xyxy)):
        entry |= zip(CORNERS, _normalized(one.box_xyxy, width, height), strict=True)
    entry["isCrowd"] = int(one.crowd)
    if parts is not None:
        entry["polygon"] = parts
    return entry


def _normalized(values: Iterable[float], width: int, height: int) -> list[float]:
    """x, y, x, y, ... in pixels -> in 0..1. Times the size and rounded to a millionth, they are what they were."""
    return [pixel(value) / (height if index % 2 else width) for index, value in enumerate(values)]


def _around(parts: list[list[float]], width: int, height: int) -> tuple[float, ...]:
    return extent(polygons(parts, "polygon", (width, height)))


def _same(one: Annotation, parts: list[list[float]] | None, image: LabelledImage) -> bool:
    """Whether the polygons give the very pixels of the mask back."""
    height, width = image.size_hw
    scaled = polygons(parts, "polygon", (width, height)) if parts else None
    mask, again = one.mask(image.size_hw), Annotation(one.label, one.box_xyxy, scaled).mask(image.size_hw)
    return mask is not None and again is not None and bool(np.array_equal(mask, again))


FORMAT = Format(
    "jsonl",
    "AzureML JSONL (a .jsonl file)",
    lambda contents: map(Found, contents.files((".jsonl",))),
    read,
    Writer(
        lambda dataset, target: write(dataset, target.file, target.references, target.outline),
        lambda dataset, names, outline: check(dataset, outline),
        file="annotations.jsonl",
        alone=True,
        beside=lambda file: (classes.beside(file),),
        addresses=True,
    ),
)
