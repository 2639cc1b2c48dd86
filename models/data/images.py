"""Where the image files of a data set are put when it is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from models.data.dataset import Dataset

Placing = Literal["copy", "link", "reference"]
PLACINGS: tuple[Placing, ...] = ("copy", "link", "reference")


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
    """What stands in `folder`, if only as a link to nothing, where `put` would put images of these names."""
    targets = (folder / name for image, name in zip(dataset.images, names, strict=True) if isinstance(image.path, Path))
    return [target for target in targets if os.path.lexists(target)]


def references(dataset: Dataset, names: Sequence[str], folder: Path, start: Path, how: Placing) -> list[str]:
    """For each image what an annotation file holds: its path from `start` or its URL.

    folder: where `put` puts the images, unless `how` is to `reference` them where they are.
    """
    found = []
    for image, name in zip(dataset.images, names, strict=True):
        if isinstance(image.path, str):
            found.append(image.path)
        else:
            target = image.path if how == "reference" else folder / name
            found.append(Path(os.path.relpath(target.absolute(), start.absolute())).as_posix())
    return found


def put(dataset: Dataset, names: Sequence[str], folder: Path, how: Placing) -> int:
    """Puts the images into `folder` under `names`: `copy`; `link`, a symbolic link; `reference`, nothing is put.

    Returns how many JPEG files were copied although links were asked for, as other tools would write to the original
    (see `is_cut_off`). Raises OSError when a file cannot be read or written, or is there already: nothing is ever
    overwritten.
    """
    copied = 0
    for image, name in zip(dataset.images, names, strict=True):
        if isinstance(image.path, str) or how == "reference":
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if how == "link" and not is_cut_off(image.path):
            (folder / name).symlink_to(image.path.absolute().resolve(strict=True))
        else:
            copy(image.path, folder / name)
            copied += how == "link"
    return copied


def copy(source: Path, target: Path) -> None:
    """A file of its own with the same content. On file systems that can (Btrfs, XFS), the two share their place on the
    disk until one of them is written.

    Raises FileExistsError where `target` is there, and OSError as reading and writing do.
    """
    with source.open("rb") as original, target.open("xb") as written:
        if hasattr(os, "copy_file_range"):  # Linux's, which shares where it can
            try:
                while os.copy_file_range(original.fileno(), written.fileno(), 2**30):
                    pass
                return
            except OSError:  # between these file systems it cannot
                original.seek(0)
                written.seek(0)
        shutil.copyfileobj(original, written)


def is_cut_off(path: Path) -> bool:
    """Whether it is a JPEG file that does not end with JPEG's end marker, 0xFFD9.

    Ultralytics takes such a file for damaged and encodes it anew in its place: behind a link, that is the photo itself.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return False
        file.seek(max(2, file.seek(0, os.SEEK_END) - 2))
        return file.read() != b"\xff\xd9"
