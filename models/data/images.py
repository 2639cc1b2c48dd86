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
