"""COCO's object annotations: one JSON file with `images`, `annotations` and `categories`.

A segmentation is a list of polygons or a run-length encoding, compressed (`counts` is text) or not (a list). Ids may
be integers or text when read, and are integers from 1 when written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from models.data import json_object
from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.images import Sources, size_hw
from models.data.json_object import Entry
from models.data.values import BadValueError, box, extent, flag, length, number, plain, polygons, shown, text


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What the file holds, and what in it could not be read.

    Images are looked for beside the file, in `images/` beside it, in the folder above (as in COCO's own
    `annotations/instances_val2017.json`) and in `images/` there. A size that is not stated is taken from the image.

    Raises DataError when it is no such file at all.
    """
    content = _parse(path)
    problems: list[Problem] = []

    def problem(section: str, index: int, found: Entry, reason: object, fatal: bool = True) -> None:
        known = f" (id {shown(found.value['id'])})" if isinstance(found.value, dict) and "id" in found.value else ""
        problems.append(Problem(Place(path, found.line), f"{section}[{index}]{known}: {reason}", fatal))

    classes: dict[Any, str] = {}
    for index, (line, entry) in enumerate(content["categories"]):
        try:
            identity, name = _identity(entry, "id"), text(entry.get("name"), "name")
            if identity in classes or name in classes.values():
                raise BadValueError(f"expected each id and name once, found {name!r} again")
            classes[identity] = name
        except BadValueError as error:
            problem("categories", index, Entry(line, entry), error)

    folders = (path.parent, path.parent / "images", path.parent.parent, path.parent.parent / "images")
    images: dict[Any, LabelledImage] = {}
    unread: set[Any] = set()
    for index, (line, entry) in enumerate(content["images"]):
        try:
            identity = _identity(entry, "id")
            if identity in images:
                raise BadValueError("id: expected each image once, found it again")
            unread.add(identity)
            file = sources.find(entry.get("file_name"), "file_name", folders)
            if entry.get("height") is None and entry.get("width") is None:
                size = size_hw(file)
            else:
                size = (length(entry.get("height"), "height"), length(entry.get("width"), "width"))
            images[identity] = LabelledImage(file, size, place=Place(path, line))
            unread.remove(identity)
        except BadValueError as error:
            problem("images", index, Entry(line, entry), error)

    found: dict[Any, list[Annotation]] = {identity: [] for identity in images}
    seen: set[Any] = set()
    for index, (line, entry) in enumerate(content["annotations"]):
        try:
            identity = _identity(entry, "image_id")
            if identity in unread:
                raise BadValueError("its image could not be read")
            if identity not in images:
                raise BadValueError(f"image_id: expected the id of an image, found {shown(identity)}")
            if "id" in entry:
                if (own := _identity(entry, "id")) in seen:
                    reason = "id: expected each id once, found it again"
                    problem("annotations", index, Entry(line, entry), reason, fatal=False)
                seen.add(own)
            found[identity].append(_annotation(entry, classes, images[identity].size_hw, Place(path, line)))
        except BadValueError as error:
            problem("annotations", index, Entry(line, entry), error)
    complete = tuple(
        LabelledImage(image.path, image.size_hw, tuple(found[identity]), image.place)
        for identity, image in images.items()
    )
    return Dataset(tuple(classes.values()), complete), problems


def write(dataset: Dataset, path: Path, references: Iterable[str]) -> None:
    """Writes the file. references: for each image, the `file_name`. Holds all that a data set has.

    `area` is that of the mask where there is one, else of the box.
    """
    category = {name: index for index, name in enumerate(dataset.class_names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (image, reference) in enumerate(zip(dataset.images, references, strict=True), start=1):
        height, width = image.size_hw
        images.append({"id": image_id, "file_name": reference, "width": width, "height": height})
        for one in image.annotations:
            x1, y1, x2, y2 = one.box_xyxy
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category[one.label],
                    "bbox": [plain(x1), plain(y1), plain(x2 - x1), plain(y2 - y1)],
                    "area": _area(one, image.size_hw),
                    "iscrowd": int(one.crowd),
                    "segmentation": _segmentation(one),
                }
            )
    categories = [{"id": index, "name": name} for name, index in category.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    # One entry a line: a file that people can read, compare and keep under version control.
    sections = (
        f'"{name}": [\n' + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]"
        for name, entries in content.items()
    )
    path.write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")


def _parse(path: Path) -> dict[str, list[Entry]]:
    try:
        content = json_object.parse(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            [Problem(Place(path, error.lineno), f"not JSON: {error.msg} (column {error.colno})")]
        ) from error
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, deep nesting
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error
    sections = ("images", "annotations", "categories")
    missing = [name for name in sections if not isinstance(content.get(name), list)]
    if missing:
        raise DataError([Problem(Place(path), f"not COCO: expected lists {', '.join(sections)}, lacks {missing[0]}")])
    return content


def _identity(entry: Any, field: str) -> int | str:
    if not isinstance(entry, dict):
        raise BadValueError(f"expected an object, found {shown(entry)}")
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadValueError(f"{field}: expected an integer or text, found {shown(value)}")
    return value


def _annotation(entry: dict[str, Any], classes: dict[Any, str], size_hw: tuple[int, int], place: Place) -> Annotation:
    category = _identity(entry, "category_id")
    if category not in classes:
        raise BadValueError(f"category_id: expected the id of a category, found {shown(category)}")
    segmentation = entry.get("segmentation")
    parts = rle = None
    if isinstance(segmentation, dict):
        rle = _rle(segmentation, size_hw)
    elif segmentation is not None and segmentation != []:
        parts = polygons(segmentation, "segmentation")
    if entry.get("bbox") is not None:
        x, y, width, height = _four(entry["bbox"])
        xyxy = box(x, y, x + width, y + height, "bbox")
    elif parts:
        xyxy = box(*extent(parts), "segmentation")
    elif rle:
        x, y, width, height = coco_mask.toBbox(rle)
        xyxy = box(x, y, x + width, y + height, "segmentation")
    else:
        raise BadValueError("bbox: expected a box or a segmentation, found neither")
    return Annotation(classes[category], xyxy, parts, rle, flag(entry.get("iscrowd", 0), "iscrowd"), place)


def _four(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise BadValueError(f"bbox: expected [x, y, width, height], found {shown(value)}")
    return [number(one, "bbox") for one in value]


def _rle(value: dict[str, Any], size_hw: tuple[int, int]) -> dict[str, Any]:
    """The run-length encoding, compressed, once it is sure that its runs fill the image: pycocotools reads and writes
    beyond its memory, or leaves pixels undefined, where they do not. One mask always gives the same text.
    """
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or tuple(size) != size_hw:
        raise BadValueError(f"segmentation.size: expected {list(size_hw)}, the image's, found {shown(size)}")
    if isinstance(counts, str):
        runs = _runs(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        runs = counts
    else:
        raise BadValueError(f"segmentation.counts: expected a list of lengths or text, found {shown(counts)}")
    pixels = size_hw[0] * size_hw[1]
    if sum(runs) != pixels or min(runs) < 0:
        raise BadValueError(f"segmentation.counts: expected runs that fill {pixels} pixels, found {shown(counts)}")
    mask = coco_mask.decode(coco_mask.frPyObjects({"size": size, "counts": runs}, *size_hw))
    return {"size": list(size_hw), "counts": coco_mask.encode(np.asfortranarray(mask))["counts"].decode("ascii")}


def _runs(counts: str) -> list[int]:
    """The lengths that COCO's compressed text stands for.

    Each is written in groups of 5 bits, the lowest first, in characters from "0" on; the sixth bit says that another
    group follows, and the highest bit of the last group is the sign. From the fourth length on, what is written is the
    difference to the length two before (`rleFrString` in COCO's maskApi.c).
    """
    runs: list[int] = []
    number = bits = 0
    for character in counts:
        group = ord(character) - ord("0")
        if not 0 <= group < 64:
            raise BadValueError(f"segmentation.counts: expected COCO's compressed text, found {shown(counts)}")
        number |= (group & 31) << bits
        bits += 5
        if group & 32:
            continue
        if group & 16:
            number -= 1 << bits
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = bits = 0
    if bits or not runs:
        raise BadValueError(f"segmentation.counts: expected COCO's compressed text, whole, found {shown(counts)}")
    return runs


def _segmentation(one: Annotation) -> list[list[float]] | dict[str, Any]:
    if one.rle is not None:
        return {"size": list(one.rle["size"]), "counts": one.rle["counts"]}
    return [[plain(value) for value in part] for part in one.polygons or ()]


def _area(one: Annotation, size_hw: tuple[int, int]) -> float:
    mask = one.mask(size_hw)
    if mask is not None:
        return int(mask.sum())
    x1, y1, x2, y2 = one.box_xyxy
    return plain((x2 - x1) * (y2 - y1))
