"""The image files of a data set: their sizes, what they hold, and where they are put when a data set is written."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import ExifTags, Image, UnidentifiedImageError

from models.data.dataset import Dataset
from models.data.values import BadValueError

Placing = Literal["copy", "link", "reference"]
PLACINGS: tuple[Placing, ...] = ("copy", "link", "reference")

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


def size_hw(path: Path | str) -> tuple[int, int]:
    """The (height, width) of the image as it is shown, which is after the turn that its EXIF orientation asks for.

    Reads the file's header only, except for a PNG, whose orientation may stand after its pixels.

    Raises BadValueError when the file is missing, is no image, or is a URL: sizes of images on the network have to be
    stated.
    """
    if isinstance(path, str):
        raise BadValueError("width and height: expected with an image that is a URL, found nothing")
    try:
        with Image.open(path) as image:
            return _sizes_hw(image)[1]
    except FileNotFoundError as error:
        raise BadValueError(f"the image file {path} is missing") from error
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise BadValueError(f"the image file {path} cannot be read ({error})") from error


@dataclass(frozen=True)
class ImageFile:
    """What an image file turned out to hold. stored_hw: before the turn of its EXIF orientation; size_hw: after it."""

    sha256: str
    stored_hw: tuple[int, int]
    size_hw: tuple[int, int]


def examine(path: Path) -> ImageFile:
    """Reads and decodes all of the file. Raises BadValueError when it is missing or any of it cannot be read."""
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            stored, upright = _sizes_hw(image)
            image.load()
    except FileNotFoundError as error:
        raise BadValueError(f"the image file {path} is missing") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow's decoders fail
        reason = "no image of a known format" if isinstance(error, UnidentifiedImageError) else error
        raise BadValueError(f"the image file {path} cannot be read ({reason})") from error
    return ImageFile(hashlib.sha256(content).hexdigest(), stored, upright)


def _sizes_hw(image: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """The (height, width) of an image that is open and not loaded: as it is stored, and as it is shown.

    Pillow turns a TIFF upright as it loads, and no other format, and states its size as of then.
    """
    size_hw = (image.height, image.width)
    if image.getexif().get(ExifTags.Base.Orientation) not in SIDEWAYS:
        return size_hw, size_hw
    other = (image.width, image.height)
    return (other, size_hw) if image.format == "TIFF" else (size_hw, other)


def unique_names(dataset: Dataset) -> list[str]:
    """A file name for every image, of a stem that no other has; `cat.jpg` and a second `cat.png` make `cat_2.png`."""
    taken: set[str] = set()
    names = []
    for image in dataset.images:
        path = Path(image.name)
        stem, count = path.stem or "image", 1  # a URL may have none
        while stem.casefold() in taken:
            count += 1
            stem = f"{path.stem}_{count}"
        taken.add(stem.casefold())
        names.append(stem + path.suffix)
    return names


def occupied(dataset: Dataset, names: Sequence[str], folder: Path) -> list[Path]:
    """What stands in `folder`, if only as a link to nothing, where `place` would put images of these names."""
    targets = (folder / name for image, name in zip(dataset.images, names, strict=True) if isinstance(image.path, Path))
    return [target for target in targets if os.path.lexists(target)]


def place(dataset: Dataset, names: Sequence[str], folder: Path, start: Path, how: Placing) -> list[str]:
    """Puts the images into `folder` under `names`, and returns for each the reference that an annotation file holds.

    start: the folder that the references are relative to. how: `copy`; `link`, a symbolic link; `reference`, leave
    the files where they are. A URL stays as it is.

    Raises OSError when a file cannot be read or written, or is there already: nothing is ever overwritten.
    """
    references = []
    for image, name in zip(dataset.images, names, strict=True):
        if isinstance(image.path, str):
            references.append(image.path)
            continue
        source = image.path.absolute()
        if how == "reference":
            target = source
        else:
            folder.mkdir(parents=True, exist_ok=True)
            target = folder.absolute() / name
            if how == "copy":
                with source.open("rb") as original, target.open("xb") as copy:
                    shutil.copyfileobj(original, copy)
            else:
                target.symlink_to(source.resolve(strict=True))
        references.append(Path(os.path.relpath(target, start.absolute())).as_posix())
    return references
