"""Files with several pages or frames: TIFFs of a scanner or a microscope, animations.

What is kept beside a photo is no page of it: further pictures of a phone's JPEG (MPO) and HEIC, and smaller copies and
masks in a TIFF.
"""

from __future__ import annotations

from itertools import count as numbers

from PIL import Image

_NEW_SUBFILE_TYPE = 0x00FE
_SMALLER_COPY, _MASK = 1, 4
_MOST = 10_000  # pages that are looked at


class PageError(ValueError):
    """A file has no such page: says how many it has."""


def count(image: Image.Image) -> int:
    """How many pages an opened image has; it is at the first again afterwards."""
    if image.format in ("JPEG", "MPO", "HEIF"):
        return 1
    if image.format != "TIFF":
        return int(getattr(image, "n_frames", 1))
    found = len(_of_tiff(image))
    image.seek(0)
    return found


def turn_to(image: Image.Image, page: int) -> None:
    """Go to a page, counted from 1; an image with a single page stays as it is. Raises PageError."""
    found = count(image)
    if found == 1:
        return
    if not 1 <= page <= found:
        raise PageError(f"expected a page from 1 to {found}, got {page}")
    image.seek(_of_tiff(image)[page - 1] if image.format == "TIFF" else page - 1)


def _of_tiff(image: Image.Image) -> list[int]:
    """Which of a TIFF's directories are pages. The first counts always, as that is what Pillow opens."""
    found = [0]
    for index in numbers(1):
        try:
            image.seek(index)
        except (EOFError, OSError, SyntaxError, ValueError):  # there are no more, or none that can be read
            return found
        kind = image.tag_v2.get(_NEW_SUBFILE_TYPE, 0)  # type: ignore[attr-defined]
        if not (isinstance(kind, int) and kind & (_SMALLER_COPY | _MASK)):
            found.append(index)
        if index >= _MOST:
            return found
    raise AssertionError("there is no last number")
