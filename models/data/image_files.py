"""What the image files of a data set hold: their sizes, and whether all of them can be read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from models.data.parsing.values import BadValueError
from models.images import decoding
from models.images.decoding import ImageError
from models.images.samples import Reading

# The user's own files; a request's are limited by the service's settings.
MAX_PIXELS = 2**28


@dataclass(frozen=True)
class ImageFile:
    """What an image file turned out to hold.

    stored_hw: before the turn of its EXIF orientation; size_hw: after it. page_count: its pages or frames. reading: the
    rule by which samples of more than 8 bits were read.
    """

    sha256: str
    stored_hw: tuple[int, int]
    size_hw: tuple[int, int]
    page_count: int
    reading: Reading | None


def size_hw(path: Path | str, page: int = 1) -> tuple[int, int]:
    """The (height, width) of the image as it is shown, which is after the turn that its EXIF orientation asks for.

    page: of a file with several pages or frames. Reads the file's header only, except for a PNG, whose orientation may
    stand after its pixels.

    Raises BadValueError when the file is missing, is no image, or is a URL: sizes of images on the network have to be
    stated.
    """
    if isinstance(path, str):
        raise BadValueError("width and height: expected with an image that is a URL, found nothing")
    try:
        return decoding.image_size_hw(path, exif_orientation=True, max_pixels=MAX_PIXELS, page=page)
    except (OSError, ImageError) as error:
        raise _unreadable(path, error) from error


def examine(path: Path, page: int = 1) -> ImageFile:
    """Reads and decodes all of the file. Raises BadValueError when it is missing or any of it cannot be read."""
    try:
        content = path.read_bytes()
        found = decoding.decode(content, exif_orientation=True, max_pixels=MAX_PIXELS, page=page, count_pages=True)
    except (OSError, ImageError) as error:
        raise _unreadable(path, error) from error
    return ImageFile(
        hashlib.sha256(content).hexdigest(), found.stored_hw, found.size_hw, found.page_count, found.reading
    )


def _unreadable(path: Path, error: Exception) -> BadValueError:
    if isinstance(error, FileNotFoundError):
        return BadValueError(f"the image file {path} is missing")
    return BadValueError(f"the image file {path} cannot be read ({error})")
