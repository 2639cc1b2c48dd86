"""Writes a YOLO data set as Ultralytics reads it: boxes, or outlines for all objects where one has a mask.

data.yaml     the names of the classes, and train.txt
train.txt     the images in their order
images/
labels/       a text file for each image
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import yaml

from models.data.dataset import Annotation, Dataset
from models.data.formats.protocol import Outline, Target
from models.data.parsing.shapes import is_around, joined
from models.data.parsing.values import extent, pixel

_DECIMALS = 14  # of a fraction: a millionth of a pixel in any image


def check(dataset: Dataset, names: Sequence[str], outline: Outline | None) -> None:
    """Raises ValueError for an image that is an address, a name that is no line, and masks that want an `outline`."""
    for image, name in zip(dataset.images, names, strict=True):
        if isinstance(image.path, str):
            raise ValueError(f"{image.path}: YOLO has files beside its labels, and no place for an address")
        if len(name.splitlines()) != 1 or name != name.strip() or name.startswith("."):
            raise ValueError(f"the file name {name!r} is hidden or not one line of text: YOLO cannot hold it")
        if outline is None and any(one.rle is not None for one in image.annotations):
            raise ValueError(f"{image.path}: a mask that is run-length encoded needs an outline for YOLO")


def write(dataset: Dataset, target: Target) -> list[str]:
    """Returns a line for each kind of thing that YOLO could not hold as it was."""
    number = {name: index for index, name in enumerate(dataset.class_names)}
    as_outlines = any(one.has_mask and not one.crowd for _, one in dataset.annotations())
    lost: dict[str, int] = {}
    labels = target.folder / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    for image, name in zip(dataset.images, target.names, strict=True):
        lines = []
        for one in image.annotations:
            values = _values(one, image.size_hw, as_outlines, target.outline, lost)
            if values is not None:
                lines.append(f"{number[one.label]} {' '.join(map(fraction_text, values))}\n")
        (labels / f"{Path(name).stem}.txt").write_text("".join(lines), encoding="utf-8")
    listing = "".join(f"{_listed(reference)}\n" for reference in target.references)
    (target.folder / "train.txt").write_text(listing, encoding="utf-8")
    # Without a `path`, the lists are looked for beside this file, wherever the folder is moved to.
    write_yaml(target.file, "train.txt", "train.txt", dataset.class_names)
    notes = [text.format(count=count) for text, count in lost.items()]
    if any(not reference.startswith("images/") for reference in target.references):
        notes.append("the images are not in images/: Ultralytics finds no labels for them (--images copy or link)")
    return notes


def write_yaml(path: Path, train: str, val: str, class_names: Iterable[str]) -> None:
    """The file that names the parts and the classes."""
    content = {"train": train, "val": val, "names": dict(enumerate(class_names))}
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def fraction_text(value: float, decimals: int = _DECIMALS) -> str:
    """Without an exponent, which not every reader of the format knows."""
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def _listed(reference: str) -> str:
    # Ultralytics takes a path that begins so from the list's own folder.
    return f"./{reference}"


def _values(
    one: Annotation, size_hw: tuple[int, int], as_outlines: bool, outline: Outline | None, lost: dict[str, int]
) -> list[float] | None:
    """What follows the class; None where the object is left out."""

    def note(text: str) -> None:
        lost[text] = lost.get(text, 0) + 1

    height, width = size_hw
    if one.crowd:
        note("{count} crowds left out: YOLO has no mark for them")
        return None
    x1, y1, x2, y2 = one.box_xyxy
    if not as_outlines:
        inside = min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            note("{count} boxes outside their images left out: Ultralytics takes no such image")
            return None
        if inside != (x1, y1, x2, y2):
            note("{count} boxes cut at the edges of their images: Ultralytics takes no image with others")
            x1, y1, x2, y2 = inside
        return [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    if extent(one.polygons) != one.box_xyxy if one.polygons else not is_around(one, size_hw):
        note("{count} boxes are not the ones around their masks, which YOLO takes for them")
    parts = [[pixel(value) / (width, height)[index % 2] for index, value in enumerate(p)] for p in one.polygons or ()]
    if one.rle is not None and outline is not None:
        note("{count} run-length encoded masks written as the rings around their pixels")
        parts = outline(one.mask(size_hw))  # type: ignore[arg-type]  # it has a mask
        if not parts:
            note("{count} empty masks left out")
            return None
    elif not parts:
        note("{count} boxes written as outlines of four corners, as Ultralytics wants outlines for all or none")
        parts = [[x1 / width, y1 / height, x2 / width, y1 / height, x2 / width, y2 / height, x1 / width, y2 / height]]
    if len(parts) > 1:
        note("{count} outlines of several parts joined to one ring each, of the same pixels")
    ring = joined([np.array(part).reshape(-1, 2) for part in parts])
    clipped = ring.clip(0, 1)
    if not np.array_equal(clipped, ring):
        note("{count} outlines cut at the edges of their images: Ultralytics takes no image with others")
    if np.ptp(clipped, axis=0).min() == 0:
        note("{count} outlines outside their images left out")
        return None
    return [float(value) for value in clipped.ravel()]
