"""Reading a data set in any of the formats, and writing it in any of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from models.data import classes, coco, coco_writing, jsonl, mltable, voc
from models.data.dataset import DataError, Dataset, Place, Problem
from models.data.images import Placing, occupied, place, unique_names
from models.data.meaning import Crowds, settle
from models.data.sources import Sources

Format = Literal["coco", "voc", "jsonl", "mltable"]
FORMATS: tuple[Format, ...] = get_args(Format)

_EXPECTED = (
    "expected COCO (a .json file), Pascal VOC (a folder with XML files in annotations/), AzureML JSONL (a .jsonl "
    "file) or MLTable (a folder with a file MLTable)"
)


def load(
    path: Path,
    *,
    format: Format | None = None,
    prefixes: Mapping[str, str] | None = None,
    images: Path | None = None,
    normalized: bool | None = None,
    crowds: Crowds | None = None,
    page: int = 1,
) -> Dataset:
    """The data set at `path`, whole. Raises DataError with every problem that kept something from being read.

    What is merely odd, or is left out because the data set itself asks for it, is known to `read` alone.
    """
    dataset, problems = read(
        path, format=format, prefixes=prefixes, images=images, normalized=normalized, crowds=crowds, page=page
    )
    if fatal := [problem for problem in problems if problem.fatal]:
        raise DataError(fatal)
    return dataset


def read(
    path: Path,
    *,
    format: Format | None = None,
    prefixes: Mapping[str, str] | None = None,
    images: Path | None = None,
    normalized: bool | None = None,
    crowds: Crowds | None = None,
    page: int = 1,
) -> tuple[Dataset, list[Problem]]:
    """What can be read at `path`, and what cannot, or is odd.

    path: a file, or a folder that holds one data set. format: guessed from what is there unless said.
    prefixes: what an image's address begins with (`azureml://...`) -> the folder or URL that stands for it.
    images: the folder that relative paths of images start at, in place of where the format has them.
    normalized: whether coordinates are fractions of the image's width and height, or pixels; None: as the format has
        them. crowds: whether what is marked as a crowd is one; None: it is. page: which page or frame to take of image
        files with several, counted from 1.

    Image files are opened only where the data set does not state their size.

    Raises DataError when nothing can be read.
    """
    format, found = find(Path(path), format)
    sources = Sources(images, prefixes or {}, normalized, page)
    reader = {"coco": coco.read, "voc": voc.read, "jsonl": jsonl.read, "mltable": mltable.read}[format]
    dataset, problems = reader(found, sources)
    if page != 1:
        dataset = Dataset(dataset.class_names, tuple(replace(image, page=page) for image in dataset.images))
    problems += sources.notes(Place(found))
    dataset, more = settle(dataset, found, crowds)
    return dataset, problems + more + _all_empty(dataset, found, problems)


def _all_empty(dataset: Dataset, found: Path, problems: list[Problem]) -> list[Problem]:
    """A few empty boxes among many are left out; where there are no others, they were written in another way."""
    empty = sum(one.reason.endswith("(empty): left out") for one in problems)
    if not empty or any(image.annotations for image in dataset.images):
        return []
    return [Problem(Place(found), f"all {empty} boxes have no width or no height")]


def find(path: Path, format: Format | None = None) -> tuple[Format, Path]:
    """The format of what is at `path`, and the file (COCO, JSONL) or folder (VOC, MLTable) that its reader takes.

    A folder may hold one data set: a JSON file there or in its `annotations/`, a JSONL file, XML files, an MLTable.
    Raises DataError when there is none, or more than one.
    """
    if path.is_file():
        by_name: Format | None = {".json": "coco", ".jsonl": "jsonl"}.get(path.suffix.lower())  # type: ignore[assignment]
        if path.name == mltable.FILE:
            by_name = "mltable"
        found = format or by_name
        if found is None:
            raise DataError([Problem(Place(path), f"{_EXPECTED}, found another file; say which with --format")])
        return found, path.parent if found == "mltable" else path
    if not path.is_dir():
        raise DataError([Problem(Place(path), "there is no such file or folder")])
    candidates = _candidates(path)
    if format is None and any(kind == "mltable" for kind, _ in candidates):
        format = "mltable"  # its JSONL files are no data sets of their own
    fitting = [(kind, file) for kind, file in candidates if format in (None, kind)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        reason = f"expected {format} there, found none" if format else f"{_EXPECTED}, found none"
        raise DataError([Problem(Place(path), reason)])
    names = ", ".join(str(file) for _, file in fitting)
    raise DataError([Problem(Place(path), f"expected one data set, found several: {names}; name one, or its --format")])


def _candidates(folder: Path) -> list[tuple[Format, Path]]:
    found: list[tuple[Format, Path]] = []
    if (folder / mltable.FILE).is_file():
        found.append(("mltable", folder))
    if voc.find(folder) is not None:
        found.append(("voc", folder))
    found += [("jsonl", file) for file in sorted(folder.glob("[!.]*")) if file.suffix.lower() == ".jsonl"]
    files = (*folder.glob("[!.]*"), *folder.glob("annotations/[!.]*"))
    found += [("coco", file) for file in sorted(files) if file.suffix.lower() == ".json"]
    return found


def write(
    dataset: Dataset,
    path: Path,
    format: Format,
    *,
    images: Placing = "copy",
    url_prefix: str | None = None,
    outline: jsonl.Outline | None = None,
) -> tuple[str, ...]:
    """Writes the data set, and returns a line for each kind of thing that is not there as it was.

    path: a folder, new or empty; for COCO and JSONL also a new file's name (.json, .jsonl), with `images/` beside it.
    images: `copy` them into `images/`, `link` (symbolically), or leave them where they are and `reference` them by
        relative paths. URLs stay URLs.
    url_prefix: JSONL and MLTable: what stands before each file's name in `image_url` instead, such as
        `azureml://.../images/`, for a data set that is to be uploaded there.
    outline: makes polygons in 0..1 of a mask (H, W) bool; JSONL and MLTable need it for run-length encoded masks.

    Raises what `check_writable` does, before anything is written, and OSError as writing does.
    """
    check_writable(dataset, path, format, images=images, url_prefix=url_prefix, outline=outline)
    folder, file = _target(path, format)
    names = unique_names(dataset)
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / voc.ANNOTATION_FOLDERS[0] if format == "voc" else folder
    references = place(dataset, names, folder / "images", start, images)
    if url_prefix is not None:
        references = [
            reference if isinstance(image.path, str) else f"{url_prefix.rstrip('/')}/{name}"
            for image, name, reference in zip(dataset.images, names, references, strict=True)
        ]
    notes = []
    renamed = [
        f"{image.path} is {name}"
        for name, image in zip(names, dataset.images, strict=True)
        if name != image.name and (format == "voc" or isinstance(image.path, Path))
    ]
    if renamed and (images != "reference" or format == "voc" or url_prefix is not None):
        notes.append(f"{len(renamed)} images renamed, as another has the same name: {renamed[0]}")
    if format == "coco":
        coco_writing.write(dataset, file or folder / "annotations.json", references)
    elif format == "voc":
        notes += voc.write(dataset, folder, references, names)
    elif format == "jsonl":
        notes += jsonl.write(dataset, file or folder / "annotations.jsonl", references, outline)
    else:
        notes += mltable.write(dataset, folder, references, outline)
    return tuple(notes)


def check_writable(
    dataset: Dataset,
    path: Path,
    format: Format,
    *,
    images: Placing = "copy",
    url_prefix: str | None = None,
    outline: jsonl.Outline | None = None,
) -> None:
    """Sees whether `write` of the same arguments can do what it is asked to.

    Raises DataError when there is something already at `path` or where an image is to go, or an image file is missing;
    ValueError for what the format cannot hold in any form, and for a `url_prefix` that it has no place for.
    """
    folder, _ = _target(path, format)
    names = unique_names(dataset)
    if url_prefix is not None and format not in ("jsonl", "mltable"):
        raise ValueError(f"a URL prefix is for jsonl and mltable: {format} has no image_url")
    for text in (*dataset.class_names, *(str(image.path) for image in dataset.images)):
        if text != text.encode("utf-8", "ignore").decode("utf-8"):  # half a surrogate pair
            raise ValueError(f"{text!r} cannot be written as UTF-8")
    if format == "voc":
        voc.check(dataset, names)
    elif format != "coco":
        jsonl.check(dataset, outline)
    if images != "reference":
        wrong = [
            Problem(image.place or Place(image.path), f"the image file {image.path} is missing")
            for image in dataset.images
            if isinstance(image.path, Path) and not image.path.is_file()
        ]
        reason = "is there already: images are never overwritten; write to another folder"
        wrong += [Problem(Place(taken), reason) for taken in occupied(dataset, names, folder / "images")]
        if wrong:
            raise DataError(wrong)


def _target(path: Path, format: Format) -> tuple[Path, Path | None]:
    """The folder that is written to, and the file when `path` names one. Raises DataError where something is there."""
    suffix = {"coco": ".json", "jsonl": ".jsonl"}.get(format)
    if suffix is not None and path.suffix.lower() == suffix:
        for one in (path, classes.beside(path)) if format == "jsonl" else (path,):
            if os.path.lexists(one):
                raise DataError([Problem(Place(one), "is there already: expected a new file")])
        return path.parent, path
    if path.is_dir() and any(path.iterdir()):
        raise DataError([Problem(Place(path), "is there already: expected a new or empty folder")])
    if os.path.lexists(path) and not path.is_dir():
        raise DataError([Problem(Place(path), "is a file: expected a new or empty folder")])
    return path, None
