"""Reading a data set in any of the formats, and writing it in any of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from models.atomic_files import into_folder, is_empty
from models.data.dataset import DataError, Dataset, Place, Problem
from models.data.formats import detection
from models.data.formats.detection import named
from models.data.formats.protocol import Outline, Target, Writer
from models.data.frames import Orientation, set_upright
from models.data.images import Placing, occupied, put, references, unique_names
from models.data.meaning import Crowds, settle
from models.data.parsing.sources import Answer, Sources, address

FORMATS = detection.FORMATS  # that are read
WRITTEN = detection.WRITTEN  # those of them that are written too


def load(
    path: Path,
    *,
    format: str | None = None,
    prefixes: Mapping[str, str] | None = None,
    images: Path | None = None,
    normalized: bool | None = None,
    crowds: Crowds | None = None,
    orientation: Orientation | None = None,
    page: int = 1,
    scores: bool = False,
    answer: Answer = "truth",
) -> Dataset:
    """The data set at `path`, whole. Raises DataError with every problem that kept something from being read.

    What is merely odd, or is left out because the data set itself asks for it, is known to `read` alone.
    """
    dataset, problems = read(
        path,
        format=format,
        prefixes=prefixes,
        images=images,
        normalized=normalized,
        crowds=crowds,
        orientation=orientation,
        page=page,
        scores=scores,
        answer=answer,
    )
    if fatal := [problem for problem in problems if problem.fatal]:
        raise DataError(fatal)
    return dataset


def read(
    path: Path,
    *,
    format: str | None = None,
    prefixes: Mapping[str, str] | None = None,
    images: Path | None = None,
    normalized: bool | None = None,
    crowds: Crowds | None = None,
    orientation: Orientation | None = None,
    page: int = 1,
    scores: bool = False,
    answer: Answer = "truth",
) -> tuple[Dataset, list[Problem]]:
    """What can be read at `path`, and what cannot, or is odd.

    path: a file, or a folder that holds one data set. format: guessed from what is there unless said.
    prefixes: what an image's address begins with (`azureml://...`) -> the folder or URL that stands for it.
    images: the folder that relative paths of images start at, in place of where the format has them.
    normalized: whether coordinates are fractions of the image's width and height, or pixels; None: as the format has
        them. crowds: whether what is marked as a crowd is one; None: it is.
    orientation: the frame of the boxes of photos that are stored on their side; None: told by what fits.
    page: which page or frame to take of image files with several, counted from 1. scores: whether objects have
    scores, as predictions have. answer: which of a task's several answers is read, of Label Studio's.

    Of image files on this machine the first kilobytes are read, for their EXIF; more, where that or a size is wanted.

    Raises DataError when nothing can be read.
    """
    kind, found = detection.find(Path(path), format)
    sources = Sources(images, prefixes or {}, normalized, page, scores, answer)
    dataset, problems = kind.read(found.path, sources)
    if page != 1:
        dataset = Dataset(dataset.class_names, tuple(replace(image, page=page) for image in dataset.images))
    problems = [*found.notes, *problems, *sources.notes(Place(found.path))]
    dataset, more = settle(dataset, found.path, crowds)
    dataset, turned = set_upright(dataset, orientation)
    return dataset, problems + more + turned + _all_empty(dataset, found.path, problems)


def _all_empty(dataset: Dataset, found: Path, problems: list[Problem]) -> list[Problem]:
    """A few empty boxes among many are left out; where there are no others, they were written in another way."""
    empty = sum(one.reason.endswith("(empty): left out") for one in problems)
    if not empty or any(image.annotations for image in dataset.images):
        return []
    return [Problem(Place(found), f"all {empty} boxes have no width or no height")]


def find(path: Path, format: str | None = None) -> tuple[str, Path]:
    """The format of what is at `path`, and the file or folder that its reader takes.

    A folder may hold one data set: a JSON file there or in its `annotations/`, a JSONL file, XML files, an MLTable and
    so on. Raises DataError when there is none, or more than one.
    """
    kind, found = detection.find(path, format)
    return kind.name, found.path


def write(
    dataset: Dataset,
    path: Path,
    format: str,
    *,
    images: Placing = "copy",
    url_prefix: str | None = None,
    outline: Outline | None = None,
    final: Path | None = None,
) -> tuple[str, ...]:
    """Writes the data set, and returns a line for each kind of thing that is not there as it was.

    path: a folder, new or empty; for formats that are one file also a new file's name, with `images/` beside it.
    images: `copy` them into `images/`, `link` (symbolically), or leave them where they are and `reference` them by
        relative paths. URLs stay URLs.
    url_prefix: where the format has addresses of images: what stands before each file's name there instead, such as
        `azureml://.../images/`, for a data set that is to be uploaded there.
    outline: makes polygons in 0..1 of a mask (H, W) bool; formats without run-length encoded masks need it for them.
    final: where `path` will have been moved to before anybody reads it; None: it stays.

    All of it is there in the end, or nothing. Raises what `check_writable` does, before anything is written, and
    OSError as writing does.
    """
    check_writable(dataset, path, format, images=images, url_prefix=url_prefix, outline=outline)
    writer = _writer(format)
    folder, file = _target(path, writer)
    names = unique_names(dataset)
    at = _target(final, writer)[0] if final else folder
    shown_as = references(dataset, names, at / "images", at / writer.start, images)
    if url_prefix is not None:
        shown_as = [
            reference if isinstance(image.path, str) else address(url_prefix, name)
            for image, name, reference in zip(dataset.images, names, shown_as, strict=True)
        ]
    notes = []
    renamed = [
        f"{image.path} is {name}"
        for name, image in zip(names, dataset.images, strict=True)
        if name != image.name and (writer.renames or isinstance(image.path, Path))
    ]
    if renamed and (images != "reference" or writer.renames or url_prefix is not None):
        notes.append(f"{len(renamed)} images renamed, as another has the same name: {renamed[0]}")
    with into_folder(folder) as unfinished:
        if copied := put(dataset, names, unfinished / "images", images):
            notes.append(f"{copied} JPEG files copied, not linked: without their end marker, Ultralytics rewrites them")
        target = Target(unfinished, unfinished / file.name, shown_as, names, outline)
        notes += writer.write(dataset, target) or ()
    return tuple(notes)


def check_writable(
    dataset: Dataset,
    path: Path,
    format: str,
    *,
    images: Placing = "copy",
    url_prefix: str | None = None,
    outline: Outline | None = None,
) -> None:
    """Sees whether `write` of the same arguments can do what it is asked to.

    Raises DataError when there is something already at `path` or where an image is to go, or an image file is missing;
    ValueError for what the format cannot hold in any form, and for a `url_prefix` that it has no place for.
    """
    writer = _writer(format)
    folder, _ = _target(path, writer)
    names = unique_names(dataset)
    if url_prefix is not None and not writer.addresses:
        fitting = " and ".join(name for name in WRITTEN if _writer(name).addresses)
        raise ValueError(f"a URL prefix is for {fitting}: {format} has no image_url")
    for text in (*dataset.class_names, *(str(image.path) for image in dataset.images)):
        if text != text.encode("utf-8", "ignore").decode("utf-8"):  # half a surrogate pair
            raise ValueError(f"{text!r} cannot be written as UTF-8")
    writer.check(dataset, names, outline)
    if images != "reference":
        wrong = _missing(dataset)
        reason = "is there already: images are never overwritten; write to another folder"
        wrong += [Problem(Place(taken), reason) for taken in occupied(dataset, names, folder / "images")]
        if wrong:
            raise DataError(wrong)


def _missing(dataset: Dataset) -> list[Problem]:
    """One line for all images that are not there."""
    found = [image for image in dataset.images if isinstance(image.path, Path) and not os.path.isfile(image.path)]
    if not found:
        return []
    first = found[0]
    more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
    reason = f"the image file {first.path}{more} is missing" if not more else f"{first.path}{more} are missing"
    hint = "; --images-root DIR says where they are, and --images reference writes without them"
    return [Problem(first.place or Place(Path(first.path)), reason + hint)]


def _writer(format: str) -> Writer:
    writer = named(format).writer
    if writer is None:
        raise ValueError(f"{format} is only read, not written: name another format with --to ({', '.join(WRITTEN)})")
    return writer


def _target(path: Path, writer: Writer) -> tuple[Path, Path]:
    """The folder that is written to, and the annotation file. Raises DataError where something is there."""
    if writer.alone and path.suffix.lower() == Path(writer.file).suffix:
        for one in (path, *writer.beside(path)):
            if os.path.lexists(one):
                raise DataError([Problem(Place(one), "is there already: expected a new file")])
        return path.parent, path
    if path.is_dir() and not is_empty(path):
        raise DataError([Problem(Place(path), "is there already: expected a new or empty folder")])
    if os.path.lexists(path) and not path.is_dir():
        raise DataError([Problem(Place(path), "is a file: expected a new or empty folder")])
    return path, path / writer.file
