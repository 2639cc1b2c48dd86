"""Writes Label Studio's JSON: for each image a task with one annotation; and the labelling interface beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from models.data.dataset import Annotation, Dataset, LabelledImage
from models.data.formats.protocol import Outline, Target
from models.data.parsing.brush import pack
from models.data.parsing.shapes import is_around, mask_of, ring_of
from models.data.parsing.xml_tree import ElementError, parse

IMAGE, BOX, MASK, POLYGON = "image", "box", "mask", "polygon"


def check(dataset: Dataset, names: Sequence[str], outline: Outline | None) -> None:
    """Raises ValueError for classes of which the interface would make others."""
    for name in dataset.class_names:
        if not name.isprintable() or name != name.strip():
            raise ValueError(f"the class {name!r} is not one line of text: Label Studio's interface cannot hold it")


def write(dataset: Dataset, target: Target) -> list[str]:
    """Returns a line for each kind of thing that Label Studio could not hold as it was.

    An object is a rectangle, a polygon or a brush stroke; where its box is not the one around its mask, a rectangle
    stands before it, as its parent.
    """
    crowds = sum(one.crowd for _, one in dataset.annotations())
    unlike = [(image, one) for image, one in dataset.annotations() if one.has_mask and ring_of(one) is None]
    empty = sum(mask_of(one, image.size_hw) is None for image, one in unlike)
    several = sum(one.rle is None for _, one in unlike) - sum(
        one.rle is None and mask_of(one, image.size_hw) is None for image, one in unlike
    )
    tasks = (_task(*pair) for pair in zip(dataset.images, target.references, strict=True))
    with target.file.open("w", encoding="utf-8") as file:
        file.write("[" + ",".join("\n" + json.dumps(task, ensure_ascii=False) for task in tasks) + "\n]\n")
    target.file.with_suffix(".xml").write_text(labeling_config(dataset.class_names, polygons=True), encoding="utf-8")
    notes = [f"{crowds} crowds written as objects: Label Studio has no mark for them"] if crowds else []
    if several:
        notes.append(f"{several} outlines of several parts written as brush strokes of the same pixels")
    if empty:
        notes.append(f"{empty} empty masks left out")
    return notes


def labeling_config(class_names: Iterable[str], *, polygons: bool = False) -> str:
    """The labelling interface of a project that takes the tasks, as Label Studio's XML."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in class_names)
    controls = [("BrushLabels", MASK), ("RectangleLabels", BOX)] + ([("PolygonLabels", POLYGON)] if polygons else [])
    return "".join(
        (
            "<View>\n",
            f'  <Image name="{IMAGE}" value="$image" zoom="true"/>\n',
            *(f'  <{tag} name="{name}" toName="{IMAGE}">\n{labels}\n  </{tag}>\n' for tag, name in controls),
            "</View>\n",
        )
    )


def class_names(config: Path) -> tuple[str, ...] | None:
    """The classes of a labelling interface, in order; None where there is no such file."""
    if not config.is_file():
        return None
    try:
        root = parse(config)
    except (ElementError, OSError, UnicodeError):
        return None
    if root.tag != "View":
        return None
    found: list[str] = []
    waiting = [root]
    while waiting:
        element = waiting.pop()
        if element.tag == "Label" and (name := element.attributes.get("value")):
            found.append(name)
        waiting += reversed(element.children)
    return tuple(dict.fromkeys(found)) or None


def rectangle(box_xyxy: Sequence[float], size_hw: tuple[int, int]) -> dict[str, Any]:
    """A box in percent of the image."""
    height, width = size_hw
    x1, y1, x2, y2 = box_xyxy
    corner = {"x": 100 * x1 / width, "y": 100 * y1 / height}
    return {**corner, "width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height, "rotation": 0}


def brush(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool of the image's size as a brush stroke."""
    return {"format": "rle", "rle": list(pack(mask))}


def region(
    name: str, number: int, kind: str, size_hw: tuple[int, int], value: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """A result of one shape. name: of the control that it is of."""
    height, width = size_hw
    common = {"to_name": IMAGE, "original_width": width, "original_height": height, "image_rotation": 0}
    return {"id": f"{name}{number}", "from_name": name, "type": kind, **common, **more, "value": value}


def prediction(regions: list[dict[str, Any]], model_version: str, priority: float | None = None) -> dict[str, Any]:
    """A prediction of these regions. Its score is the mean of the objects' that are in it; none if they have none.

    priority: 0..1, the higher the sooner a person should look; the score is then 1 minus it, as Label Studio takes the
    lowest first.
    """
    # An object is a region without a parent; a label beside its shape has the shape's id.
    scores = {one["id"]: one["score"] for one in regions if "score" in one and "parentID" not in one}
    score = sum(scores.values()) / len(scores) if scores else None
    if priority is not None:
        score = round(1 - priority, 4)
    return {"model_version": model_version, "result": regions} | ({} if score is None else {"score": score})


def _task(image: LabelledImage, reference: str) -> dict[str, Any]:
    height, width = image.size_hw
    result = [one for number, its in enumerate(image.annotations) for one in _regions(its, number, image.size_hw)]
    return {"data": {"image": reference, "width": width, "height": height}, "annotations": [{"result": result}]}


def _regions(one: Annotation, number: int, size_hw: tuple[int, int]) -> Iterator[dict[str, Any]]:
    height, width = size_hw
    ring = ring_of(one)
    mask = mask_of(one, size_hw) if ring is None else None
    parent = {}
    if (ring is None and mask is None) or not is_around(one, size_hw):
        value = {**rectangle(one.box_xyxy, size_hw), "rectanglelabels": [one.label]}
        yield (box := region(BOX, number, "rectanglelabels", size_hw, value))
        parent = {"parentID": box["id"]}
    if ring is not None:
        points = [[100 * x / width, 100 * y / height] for x, y in zip(ring[::2], ring[1::2], strict=True)]
        value = {"points": points, "closed": True, "polygonlabels": [one.label]}
        yield {**region(MASK, number, "polygonlabels", size_hw, value, **parent), "from_name": POLYGON}
    elif mask is not None:
        value = {**brush(mask), "brushlabels": [one.label]}
        yield region(MASK, number, "brushlabels", size_hw, value, **parent)
