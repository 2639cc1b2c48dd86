"""CVAT's import file, format "CVAT for images 1.1": XML with a `mask` for each object, or its `box` without one.

A mask is stored of its own extent: `left`, `top`, `width` and `height` in pixels, and `rle`, the lengths of the runs of
0, 1, 0, ... row by row in there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO
from xml.etree import ElementTree

import numpy as np

from app.predictor import PredictedObject
from app.results.image_result import Results, label_of, mask_of


def write(file: TextIO, results: Results, class_names: Sequence[str]) -> int:
    """Write the file; CVAT finds its frames by the images' names.

    Gives the number of objects left out: none; of one whose mask is empty there is the box.
    """
    meta = ElementTree.Element("meta")
    labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
    for name in class_names:
        ElementTree.SubElement(ElementTree.SubElement(labels, "label"), "name").text = name
    file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
    file.write(_written(meta))
    for number, result in enumerate(results):  # one at a time; never the whole file in memory
        height, width = result.size_hw
        size = {"width": str(width), "height": str(height)}
        image = ElementTree.Element("image", {"id": str(number), "name": result.name, **size})
        for one in result.objects:
            kind, shape = _shape(one)
            common = {"label": label_of(one), "source": "auto", "occluded": "0", "z_order": "0"}
            ElementTree.SubElement(image, kind, common | shape)
        file.write(_written(image))
    file.write("</annotations>\n")
    return 0


def _written(element: ElementTree.Element) -> str:
    ElementTree.indent(element)
    return ElementTree.tostring(element, encoding="unicode") + "\n"


def _shape(one: PredictedObject) -> tuple[str, dict[str, str]]:
    mask = mask_of(one)
    if mask is None or not mask.any():
        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), one.box_xyxy, strict=True))
        return "box", {name: f"{value:.2f}" for name, value in corners.items()}
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
    flat = mask[top:bottom, left:right].ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False))  # a mask that begins at its corner begins with a run of 0
    runs = np.diff(changes, prepend=0, append=len(flat))
    extent = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return "mask", {"rle": ", ".join(map(str, runs.tolist())), **{name: str(value) for name, value in extent.items()}}
