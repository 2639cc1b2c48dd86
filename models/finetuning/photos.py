"""The photos of a data set as a training reads them: in the frame of their annotations, checked before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.data import DataError, Dataset, LabelledImage, Place, Problem
from models.data.image_files import MAX_PIXELS, size_hw
from models.data.parsing.values import BadValueError
from models.images.decoding import ImageError, decode
from models.images.notes import PhotoNotes


def photo(path: Path, size_hw: tuple[int, int], page: int = 1) -> np.ndarray:
    """The image (H, W, 3) uint8 RGB of annotations that state this size.

    It is upright by EXIF; or as stored, where the stated size is only that of the stored pixels. Raises DataError for a
    file that cannot be decoded, or has another size.
    """
    try:
        data = path.read_bytes()
        found = decode(data, exif_orientation=True, max_pixels=MAX_PIXELS, page=page)
        if found.size_hw != size_hw == found.stored_hw:
            found = decode(data, exif_orientation=False, max_pixels=MAX_PIXELS, page=page)
        pixels = found.pixels()
    except (OSError, ImageError) as error:
        raise DataError([Problem(Place(path), f"cannot be decoded: {error}")]) from error
    if pixels.shape[:2] != size_hw:
        raise DataError([_other_size(path, size_hw, pixels.shape[:2])])
    return pixels


def check(dataset: Dataset, notes: PhotoNotes | None = None) -> None:
    """Find out before the training what would end it. Raises DataError with every problem.

    notes: are told how the images are read.
    """
    for image in dataset.images:
        if notes is not None and isinstance(image.path, Path):
            notes.look(image.path)
    problems = [problem for image in dataset.images if (problem := _problem(image)) is not None]
    if problems:
        raise DataError(problems)


def _problem(image: LabelledImage) -> Problem | None:
    place = image.place or Place(Path(str(image.path)))
    if not isinstance(image.path, Path):
        return Problem(place, f"expected an image on this machine, found the URL {image.path}")
    try:
        if size_hw(image.path, image.page) != image.size_hw:
            photo(image.path, image.size_hw, image.page)
    except BadValueError as error:
        return Problem(place, str(error))
    except DataError as error:
        return error.problems[0]
    return None


def _other_size(path: Path, expected_hw: tuple[int, int], found_hw: tuple[int, ...]) -> Problem:
    return Problem(
        Place(path),
        f"expected an image of {expected_hw[1]} x {expected_hw[0]} pixels as annotated, found "
        f"{found_hw[1]} x {found_hw[0]}",
    )


def files(dataset: Dataset) -> Iterator[Path]:
    """Of the data set, all those on this machine."""
    for image in dataset.images:
        if isinstance(image.path, Path):
            yield image.path
        if image.place is not None:
            yield image.place.file
