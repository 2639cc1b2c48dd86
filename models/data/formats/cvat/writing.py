"""Writes CVAT for images 1.1, and the shape of a mask in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

import numpy as np

from models.data.dataset import Annotation, Dataset
from models.data.formats.protocol import Outline, Target
from models.data.parsing.shapes import is_around, mask_of, ring_of
from models.data.parsing.values import shortest
from models.masks.boxes import box_around

CLOSING = "</annotations>\n"
SIDES = ("xtl", "ytl", "xbr", "ybr")


def check(dataset: Dataset, names: Sequence[str], outline: Outline | None) -> None:
    """Raises ValueError for text that XML cannot hold."""
    for text in (*dataset.class_names, *names):
        if not text.isprintable() or text != text.strip():
            raise ValueError(f"{text!r} is not one line of text: CVAT cannot hold it")


def write(dataset: Dataset, target: Target) -> list[str]:
    """Returns a line for each kind of thing that CVAT could not hold as it was."""
    lost = {
        "{count} crowds written as objects: CVAT has no mark for them": 0,
        "{count} boxes are not the ones around their masks, which CVAT takes for them": 0,
        "{count} outlines of several parts written as masks of the same pixels": 0,
        "{count} empty masks left out": 0,
    }
    crowds, boxes, several, empty = lost
    with target.file.open("w", encoding="utf-8") as file:
        file.write(opening(dataset.class_names))
        for number, (its, reference) in enumerate(zip(dataset.images, target.references, strict=True)):
            shapes = []
            for one in its.annotations:
                kind, shape = _shape(one, its.size_hw)
                shapes.append((kind, one.label, shape))
                lost[crowds] += one.crowd
                lost[boxes] += not is_around(one, its.size_hw) and kind != "box"
                lost[several] += one.polygons is not None and kind == "mask"
                lost[empty] += one.has_mask and kind == "box"
            file.write(image(number, reference, its.size_hw, shapes, "manual"))
        file.write(CLOSING)
    return [text.format(count=count) for text, count in lost.items() if count]


def opening(class_names: Iterable[str]) -> str:
    """Opens `annotations`, and lists the labels."""
    meta = ElementTree.Element("meta")
    labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    for name in class_names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    return '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n' + _written(meta)


def image(
    number: int,
    name: str,
    size_hw: tuple[int, int],
    shapes: Iterable[tuple[str, str, dict[str, str]]],
    source: str,
) -> str:
    """One image. shapes: of each object the kind, the label, and what says where it is. source: who drew them."""
    height, width = map(str, size_hw)
    element = ElementTree.Element("image", {"id": str(number), "name": name, "width": width, "height": height})
    for kind, label, shape in shapes:
        common = {"label": label, "source": source, "occluded": "0", "z_order": "0"}
        ElementTree.SubElement(element, kind, common | shape)
    return _written(element)


def mask_shape(mask: np.ndarray) -> dict[str, str]:
    """A mask (H, W) bool that is not empty, of its own extent."""
    left, top, right, bottom = box_around(mask) or (0, 0, 0, 0)
    flat = mask[top:bottom, left:right].ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False))  # a mask that begins at its corner begins with a run of 0
    runs = np.diff(changes, prepend=0, append=len(flat))
    extent = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return {"rle": ", ".join(map(str, runs.tolist())), **{name: str(value) for name, value in extent.items()}}


def _shape(one: Annotation, size_hw: tuple[int, int]) -> tuple[str, dict[str, str]]:
    if (ring := ring_of(one)) is not None:
        flat = [shortest(value) for value in ring]
        return "polygon", {"points": ";".join(f"{x},{y}" for x, y in zip(flat[::2], flat[1::2], strict=True))}
    if (mask := mask_of(one, size_hw)) is not None:
        return "mask", mask_shape(mask)
    return "box", dict(zip(SIDES, map(shortest, one.box_xyxy), strict=True))


def _written(element: ElementTree.Element) -> str:
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode") + "\n"
