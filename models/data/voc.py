"""Pascal VOC: a folder with one XML file for each image, as odFridgeObjects comes.

    images/42.jpg                   or JPEGImages/, or beside the XML files
    annotations/42.xml              or Annotations/, or the folder itself
    segmentation-masks/42.png       odFridgeObjectsMask only: the first value above 0 is the first object's mask, ...
    classes.txt                     optional: the classes in their order

Coordinates are taken as Azure's samples take them, which divide xmin and xmax alike by the width: x from the left edge
of the image, so that a box over all of it is 0, 0, width, height. Nothing is added or subtracted for the pixels that
the original VOC counts from 1. `difficult` is `crowd`, as it is `isCrowd` in the samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from models.data import classes
from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Problem
from models.data.images import Sources, size_hw
from models.data.values import BadValueError, box, flag, length, shortest, text
from models.data.xml_tree import Element, ElementError, parse

IMAGE_FOLDERS = ("images", "JPEGImages")
ANNOTATION_FOLDERS = ("annotations", "Annotations")
MASK_FOLDER = "segmentation-masks"
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})


def find(folder: Path) -> Path | None:
    """The folder that has the XML files of a VOC folder; None where there are none."""
    candidates = (*(folder / name for name in ANNOTATION_FOLDERS), folder)
    return next((path for path in candidates if any(map(_is_xml, path.glob("[!.]*")))), None)


def read(folder: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What the XML files say, in the order of their names (2 before 10), and what could not be read.

    A size that is not stated is taken from the image. Raises DataError when there are no XML files.
    """
    annotations = find(folder)
    if annotations is None:
        raise DataError([Problem(Place(folder), "not a VOC folder: expected XML files in annotations/, found none")])
    problems: list[Problem] = []
    images = []
    for file in sorted(annotations.glob("[!.]*"), key=_natural):
        if not _is_xml(file):
            if annotations != folder:  # else images may well stand beside the XML files
                problems.append(Problem(Place(file), "not an annotation: expected XML files only", fatal=False))
            continue
        try:
            images.append(_image(file, folder, sources, problems))
        except ElementError as error:
            problems.append(Problem(Place(file, error.line), str(error)))
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(Place(file), f"cannot be read ({error})"))
    listed = folder / "classes.txt"
    dataset = classes.dataset(classes.read(listed), images, problems, str(listed))
    problems += _without_annotation(folder, annotations)
    return dataset, problems


def check(dataset: Dataset, names: Iterable[str]) -> None:
    """Raises ValueError for a class or a file name that VOC cannot hold: one that is not one line of text."""
    classes.check(dataset.class_names)
    for name in names:
        if not name.isprintable() or name.startswith("."):
            raise ValueError(f"the file name {name!r} is hidden or not one line of text: VOC cannot hold it")


def write(dataset: Dataset, folder: Path, references: Iterable[str], names: Iterable[str]) -> list[str]:
    """Writes the XML files and classes.txt; returns a line for each kind of thing that VOC could not hold.

    references: for each image its path from the folder of the XML files, or URL. names: its file name, of a stem
    that no other has. Pose and truncation, which a data set does not know, are written as not specified.

    Raises ValueError, before anything is written, as `check` does.
    """
    names = list(names)
    check(dataset, names)
    annotations = folder / ANNOTATION_FOLDERS[0]
    annotations.mkdir(parents=True, exist_ok=True)
    for image, reference, name in zip(dataset.images, references, names, strict=True):
        lines = _xml_head(image, reference, name)
        for one in image.annotations:
            lines += _xml_object(one)
        file = annotations / f"{Path(name).stem}.xml"
        file.write_text("\n".join([*lines, "</annotation>", ""]), encoding="utf-8")
    classes.write(folder / "classes.txt", dataset.class_names)
    lost = sum(one.has_mask for _, one in dataset.annotations())
    return [f"{lost} masks left out: VOC holds boxes only"] if lost else []


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _natural(path: Path) -> list[tuple[int, str]]:
    """For sorting: numbers in the name by their value."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _image(file: Path, folder: Path, sources: Sources, problems: list[Problem]) -> LabelledImage:
    root = parse(file)
    if root.tag != "annotation":
        raise ElementError(root.line, f"expected <annotation>, found <{root.tag}>")
    path = _path(root, file, folder, sources)
    size = root.first("size")
    try:
        hw = size_hw(path) if size is None else _size_hw(size)
    except BadValueError as error:
        raise ElementError((size or root).line, error) from error
    masks = _masks(folder / MASK_FOLDER / f"{file.stem}.png", hw, root, problems)
    found = []
    for index, element in enumerate(root.all("object")):
        try:
            found.append(_object(element, masks[index] if masks else None, Place(file, element.line)))
        except ElementError as error:
            problems.append(Problem(Place(file, error.line), str(error)))
    return LabelledImage(path, hw, tuple(found), Place(file, root.line))


def _path(root: Element, file: Path, folder: Path, sources: Sources) -> Path | str:
    """The image `filename`, in one of the folders for images; where it is in none, what `path` says, if that is."""
    name = root.first("filename")
    if name is None:
        raise ElementError(root.line, "filename: expected an element, found none")
    line = name.line
    try:
        found = sources.find(
            name.text.strip(), "filename", [*(folder / one for one in IMAGE_FOLDERS), folder, file.parent]
        )
        stated = root.first("path")
        if isinstance(found, Path) and not found.is_file() and stated is not None and stated.text.strip():
            line = stated.line
            other = sources.mapped(stated.text.strip())
            if other.startswith(("http://", "https://")) or (file.parent / other).is_file():
                return sources.find(other, "path", [file.parent])
    except BadValueError as error:
        raise ElementError(line, error) from error
    return found


def _size_hw(size: Element) -> tuple[int, int]:
    height, width = (length(_number(size, name), f"size.{name}") for name in ("height", "width"))
    return height, width


def _object(element: Element, rle: dict[str, Any] | None, place: Place) -> Annotation:
    try:
        name = element.first("name")
        label = text(None if name is None else name.text.strip(), "name")
        bounds = element.first("bndbox")
        if bounds is None:
            raise BadValueError("bndbox: expected an element, found none")
        x1, y1, x2, y2 = (_number(bounds, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        difficult = element.first("difficult")
        crowd = flag(_number(element, "difficult"), "difficult") if difficult is not None else False
        return Annotation(label, box(x1, y1, x2, y2, "bndbox"), rle=rle, crowd=crowd, place=place)
    except BadValueError as error:
        raise ElementError(element.line, error) from error


def _number(parent: Element, tag: str) -> float:
    """The number in the child. Raises ElementError, with the child's line."""
    child = parent.first(tag)
    if child is None:
        raise ElementError(parent.line, f"{parent.tag}.{tag}: expected a number, found no such element")
    try:
        value = float(child.text)
        if np.isfinite(value):
            return value
    except ValueError:
        pass
    raise ElementError(child.line, f"{parent.tag}.{tag}: expected a number, found {child.text.strip()!r}")


def _masks(file: Path, hw: tuple[int, int], root: Element, problems: list[Problem]) -> list[dict[str, Any]] | None:
    """The mask of each object, run-length encoded, from the picture that has all of them; None where there is none.

    As the samples read it: background is 0, and the values above it, in their order, are the objects in theirs.
    """
    if not file.is_file():
        return None
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, Image.DecompressionBombError) as error:
        raise ElementError(root.line, f"the masks {file} cannot be read ({error})") from error
    if pixels.shape != hw:
        raise ElementError(
            root.line, f"the masks {file}: expected one channel of {hw[1]} x {hw[0]} pixels, found {pixels.shape}"
        )
    values = [value for value in np.unique(pixels) if value != 0]
    objects = sum(1 for _ in root.all("object"))
    if len(values) < objects:
        raise ElementError(root.line, f"the masks {file}: expected {objects}, one for each object, found {len(values)}")
    if len(values) > objects:
        reason = f"{len(values)} masks for the {objects} objects of {root.tag} {file.stem}: the last are not used"
        problems.append(Problem(Place(file), reason, fatal=False))
    encoded = [coco_mask.encode(np.asfortranarray(pixels == value, dtype=np.uint8)) for value in values[:objects]]
    return [{"size": list(hw), "counts": one["counts"].decode("ascii")} for one in encoded]


def _without_annotation(folder: Path, annotations: Path) -> list[Problem]:
    stems = {file.stem for file in annotations.iterdir() if _is_xml(file)}
    return [
        Problem(Place(file), "an image without an XML file: it is not part of the data set", fatal=False)
        for name in IMAGE_FOLDERS
        for file in sorted((folder / name).glob("[!.]*"), key=_natural)
        if file.suffix.lower() in IMAGE_SUFFIXES and file.stem not in stems
    ]


def _xml_head(image: LabelledImage, reference: str, name: str) -> list[str]:
    height, width = image.size_hw
    return [
        "<annotation>",
        "\t<folder>images</folder>",
        f"\t<filename>{escape(name)}</filename>",
        f"\t<path>{escape(reference)}</path>",
        "\t<source>",
        "\t\t<database>Unknown</database>",
        "\t</source>",
        "\t<size>",
        f"\t\t<width>{width}</width>",
        f"\t\t<height>{height}</height>",
        "\t\t<depth>3</depth>",
        "\t</size>",
        "\t<segmented>0</segmented>",
    ]


def _xml_object(one: Annotation) -> list[str]:
    sides = zip(("xmin", "ymin", "xmax", "ymax"), one.box_xyxy, strict=True)
    return [
        "\t<object>",
        f"\t\t<name>{escape(one.label)}</name>",
        "\t\t<pose>Unspecified</pose>",
        "\t\t<truncated>0</truncated>",
        f"\t\t<difficult>{int(one.crowd)}</difficult>",
        "\t\t<bndbox>",
        *(f"\t\t\t<{side}>{shortest(value)}</{side}>" for side, value in sides),
        "\t\t</bndbox>",
        "\t</object>",
    ]
