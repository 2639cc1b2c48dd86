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

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Polygon, Problem
from models.data.formats.protocol import Format, Found, Writer
from models.data.image_files import size_hw
from models.data.parsing import classes, mask_picture
from models.data.parsing.contents import Contents, natural, visible, walk
from models.data.parsing.shapes import encoded
from models.data.parsing.sources import Sources
from models.data.parsing.suffixes import IMAGE_SUFFIXES
from models.data.parsing.values import (
    FRACTIONS,
    BadValueError,
    EmptyBoxError,
    are_fractions,
    box,
    flag,
    number,
    polygons,
    shortest,
    sized,
    stated_size_hw,
    text,
)
from models.data.parsing.xml_tree import Element, ElementError, parse

IMAGE_FOLDERS = ("images", "JPEGImages")
ANNOTATION_FOLDERS = ("annotations", "Annotations")
MASK_FOLDER = "segmentation-masks"
_POINT = re.compile(r"[xy][0-9]+")


def find(folder: Path, *, deep: bool = False) -> Path | None:
    """The folder that has the XML files of a VOC folder, if only in folders of its own; None where there are none.

    deep: whether XML files anywhere in `folder` will do, as in a folder of several VOC folders.
    """
    candidates = [folder / name for name in (*ANNOTATION_FOLDERS, "labels")]  # FiftyOne: labels/ and data/
    if found := next((path for path in candidates if any(_xml_files(path))), None):
        return found
    return folder if any(_xml_files(folder) if deep else map(_is_xml, visible(folder))) else None


def read(folder: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What the XML files say, in the order of their names (2 before 10), and what could not be read.

    A size that is not stated is taken from the image. Raises DataError when there are no XML files.
    """
    annotations = find(folder, deep=True)
    if annotations is None:
        raise DataError([Problem(Place(folder), "not a VOC folder: expected XML files in annotations/, found none")])
    problems: list[Problem] = []
    images = []
    files = list(_xml_files(annotations))
    for file in files:
        try:
            images.append(_image(file, folder, sources, problems))
        except ElementError as error:
            problems.append(Problem(Place(file, error.line), str(error)))
        except (OSError, UnicodeError) as error:
            problems.append(Problem(Place(file), f"cannot be read ({error})"))
    listed = folder / "classes.txt"
    dataset = classes.dataset(classes.read(listed), images, problems, str(listed))
    problems += _read_as_one(folder, annotations, files)
    problems += _other_files(annotations, folder)
    problems += _without_annotation(folder, files)
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


def _xml_files(folder: Path) -> Iterator[Path]:
    """In the folder and all that are in it, but not in hidden ones and those that macOS leaves behind."""
    return filter(_is_xml, walk(folder))


def _read_as_one(folder: Path, annotations: Path, files: Sequence[Path]) -> Iterator[Problem]:
    """That XML files of several folders, or subsets, are one data set here."""
    if len(folders := sorted({str(file.parent.relative_to(annotations)) for file in files})) > 1:
        names = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
        reason = (
            f"the XML files of {len(folders)} folders are read as one data set ({names}); name one to read it alone"
        )
        yield Problem(Place(annotations), reason, fatal=False)
    if (masks := folder / "SegmentationObject").is_dir():
        reason = "its masks are not read, only the boxes of the XML files: export the data set as COCO for the masks"
        yield Problem(Place(masks), reason, fatal=False)
    if (lists := folder / "ImageSets" / "Main").is_dir():
        reason = "all XML files are read, whatever is listed here; `data split` makes a training and a validation set"
        yield Problem(Place(lists), reason, fatal=False)


def _other_files(annotations: Path, folder: Path) -> Iterator[Problem]:
    if annotations != folder:  # else images may well stand beside the XML files
        for file in sorted(annotations.glob("*"), key=natural):
            if file.name.startswith("."):
                yield Problem(Place(file), "a hidden file: passed over", fatal=False)
            elif not _is_xml(file) and not file.is_dir():
                yield Problem(Place(file), "not an annotation: expected XML files only", fatal=False)


def _image(file: Path, folder: Path, sources: Sources, problems: list[Problem]) -> LabelledImage:
    root = parse(file)
    if root.tag != "annotation":
        raise ElementError(root.line, f"expected <annotation>, found <{root.tag}>")
    if root.first("imagesize") is not None and root.first("size") is None:
        reason = "this is LabelMe's XML (of the web, or CVAT's LabelMe 3.0), not Pascal VOC: export it as COCO there"
        raise DataError([Problem(Place(file, root.line), reason)])
    path = _path(root, file, folder, sources)
    size = root.first("size")
    try:
        hw = _stated_size_hw(size) or size_hw(path, sources.page)
    except BadValueError as error:
        raise ElementError((size or root).line, error) from error
    masks = _masks(folder / MASK_FOLDER / f"{file.stem}.png", hw, root, problems)
    found = []
    for index, element in enumerate(root.all("object")):
        try:
            rle = masks[index] if masks else None
            found.append(_object(element, hw, rle, Place(file, element.line), sources.normalized, problems))
        except ElementError as error:
            fatal = not isinstance(error, _EmptyObjectError)
            problems.append(Problem(Place(file, error.line), str(error), fatal))
    return LabelledImage(path, hw, tuple(found), Place(file, root.line))


def _path(root: Element, file: Path, folder: Path, sources: Sources) -> Path | str:
    """The image `filename`, in one of the folders for images; where it is in none, what `path` says, if that is; else
    the image that has the XML file's own name.
    """
    name, stated = root.first("filename"), root.first("path")
    reference = "" if name is None else name.text.strip()
    if name is not None and stated is not None and (other := sources.mapped(stated.text.strip())):
        is_url = other.startswith(("http://", "https://"))
        if (is_url or os.path.isfile(file.parent / other)) and not _beside(folder, reference):
            return _found(sources, other, "path", [file.parent], stated.line)
    folders = [*(folder / one for one in (*IMAGE_FOLDERS, "data")), folder, file.parent]
    line = root.line if name is None else name.line
    return _found(sources, reference or file.stem, "filename", folders, line, folder, file.stem)


def _beside(folder: Path, reference: str) -> bool:
    """Whether the image is where VOC has images."""
    return bool(reference) and any(os.path.isfile(folder / one / reference) for one in (*IMAGE_FOLDERS, "."))


def _found(
    sources: Sources,
    reference: str,
    field: str,
    folders: Sequence[Path],
    line: int,
    tree: Path | None = None,
    otherwise: str | None = None,
) -> Path | str:
    try:
        return sources.find(reference, field, folders, tree=tree, otherwise=otherwise)
    except BadValueError as error:
        raise ElementError(line, error) from error


def _stated_size_hw(size: Element | None) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = (None if (one := size.first(name)) is None else one.text.strip() for name in ("height", "width"))
    return stated_size_hw(height, width, ("size.height", "size.width"))


def _object(
    element: Element,
    size_hw: tuple[int, int],
    rle: dict[str, Any] | None,
    place: Place,
    normalized: bool | None,
    problems: list[Problem],
) -> Annotation:
    try:
        name = element.first("name")
        label = text(None if name is None else name.text.strip(), "name")
        bounds = element.first("bndbox")
        if bounds is None:
            rotated = ", found robndbox (a rotated box): export boxes" if element.first("robndbox") else ", found none"
            raise BadValueError(f"bndbox: expected an element{rotated}")
        x1, y1, x2, y2 = (_number(bounds, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        if normalized:
            (height, width) = size_hw
            x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
        elif are_fractions((x1, y1, x2, y2), size_hw):
            raise BadValueError(f"bndbox: {x1:g} {y1:g} {x2:g} {y2:g} lies {FRACTIONS}")
        crowd = _flag(element, "difficult") or _flag(element, "iscrowd")  # which FiftyOne writes
        outline = None if rle else _outline(element, size_hw if normalized else (1, 1), place, problems)
        return Annotation(label, box(x1, y1, x2, y2, "bndbox"), outline, rle, crowd, place)
    except EmptyBoxError as error:
        raise _EmptyObjectError(element.line, f"{error}: left out") from error
    except BadValueError as error:
        raise ElementError(element.line, error) from error


def _flag(element: Element, tag: str) -> bool:
    """Raises ElementError, with the child's line."""
    child = element.first(tag)
    try:
        return child is not None and flag(child.text.strip(), tag)
    except BadValueError as error:
        raise ElementError(child.line if child else element.line, error) from error


def _outline(
    element: Element, scale_hw: tuple[int, int], place: Place, problems: list[Problem]
) -> tuple[Polygon, ...] | None:
    """The outline in `polygon` as Roboflow and supervision write it beside the box: x1, y1, x2, y2, ..."""
    written = element.first("polygon")
    numbers = [] if written is None else [one.text.strip() for one in written.children if _POINT.fullmatch(one.tag)]
    dropped: list[str] = []
    found = polygons([numbers], "polygon", scale_hw[::-1], dropped) if numbers else None
    problems += (Problem(place, f"{reason}: this part is left out", fatal=False) for reason in dropped)
    return found or None


class _EmptyObjectError(ElementError):
    """An object whose box has no inside."""


def _number(parent: Element, tag: str) -> float:
    """The number in the child. Raises ElementError, with the child's line."""
    child = parent.first(tag)
    if child is None:
        raise ElementError(parent.line, f"{parent.tag}.{tag}: expected a number, found no such element")
    try:
        return number(child.text.strip(), f"{parent.tag}.{tag}")
    except BadValueError as error:
        raise ElementError(child.line, error) from error


def _masks(file: Path, hw: tuple[int, int], root: Element, problems: list[Problem]) -> list[dict[str, Any]] | None:
    """The mask of each object, run-length encoded, from the picture that has all of them; None where there is none.

    As the samples read it: background is 0, and the values above it, in their order, are the objects in theirs.
    """
    if not file.is_file():
        return None
    try:
        content = file.read_bytes()
        found = mask_picture.header(content, f"the masks {file}")
        if found != (hw, 1):
            shape = found.size_hw if found.channels == 1 else (*found.size_hw, found.channels)
            raise ElementError(root.line, f"the masks {file}: expected one channel of {sized(hw)}, found {shape}")
        pixels = mask_picture.values(content, f"the masks {file}")
    except (OSError, BadValueError) as error:
        raise ElementError(root.line, f"the masks {file} cannot be read ({error})") from error
    values = sorted(set().union(*(np.unique(row).tolist() for row in pixels)) - {0})
    objects = sum(1 for _ in root.all("object"))
    if len(values) < objects:
        raise ElementError(root.line, f"the masks {file}: expected {objects}, one for each object, found {len(values)}")
    if len(values) > objects:
        reason = f"{len(values)} masks for the {objects} objects of {root.tag} {file.stem}: the last are not used"
        problems.append(Problem(Place(file), reason, fatal=False))
    mask = np.empty(hw, bool, order="F")
    try:
        return [encoded(np.equal(pixels, value, out=mask)) for value in values[:objects]]
    except BadValueError as error:
        raise ElementError(root.line, f"the masks {file}: {error}") from error


def _without_annotation(folder: Path, files: Sequence[Path]) -> list[Problem]:
    stems = {file.stem for file in files}
    return [
        Problem(Place(file), "an image without an XML file: it is not part of the data set", fatal=False)
        for name in IMAGE_FOLDERS
        for file in sorted((folder / name).glob("[!.]*"), key=natural)
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


def _find(contents: Contents) -> Iterator[Found]:
    folder = None if contents.is_file else find(contents.path)
    if folder is None:
        return
    roots = [
        contents.root(file) for file in islice(contents.files((".xml",), (str(folder.relative_to(contents.path)),)), 20)
    ]
    if not roots or "annotation" in roots:
        yield Found(contents.path)
    elif set(roots) != {"annotations"}:  # which are CVAT's
        yield Found(contents.path, certain=False)


FORMAT = Format(
    "voc",
    "Pascal VOC (a folder with XML files in annotations/)",
    _find,
    read,
    Writer(
        lambda dataset, target: write(dataset, target.folder, target.references, target.names),
        lambda dataset, names, outline: check(dataset, names),
        start=ANNOTATION_FOLDERS[0],
        renames=True,
    ),
)
