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


def put(dataset: Dataset, names: Sequence[str], folder: Path, how: Placing) -> None:
    """Puts the images into `folder` under `names`: `copy`; `link`, a symbolic link; `reference`, nothing is put.

    Raises OSError when a file cannot be read or written, or is there already: nothing is ever overwritten.
    """
    for image, name in zip(dataset.images, names, strict=True):
        if isinstance(image.path, str) or how == "reference":
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if how == "copy":
            with image.path.open("rb") as original, (folder / name).open("xb") as copy:
                shutil.copyfileobj(original, copy)
        else:
            (folder / name).symlink_to(image.path.absolute().resolve(strict=True))
