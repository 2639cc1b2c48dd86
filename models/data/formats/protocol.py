"""What an annotation format is to the rest: how it is found, read and written. Each is the `FORMAT` of one module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.data.dataset import Dataset, Place, Problem
from models.data.parsing.contents import Contents
from models.data.parsing.sources import Sources

Outline = Callable[[np.ndarray], list[list[float]]]  # mask (H, W) bool -> polygons x1, y1, ... in 0..1


class Found(NamedTuple):
    """A data set of the format. path: what the reader takes.

    certain: whether its content says so; False: only its name does, so that it counts where there is nothing else.
    notes: what beside it is passed over.
    """

    path: Path
    certain: bool = True
    notes: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Target:
    """Where a data set is written to, and what of its images is known by then.

    file: the annotation file, where the format has one. references: for each image what stands for it there: a path
    from where the format's paths start, or a URL. names: for each image a file name, of a stem that no other has.
    outline: makes polygons of a mask; None: there are none to make.
    """

    folder: Path
    file: Path
    references: Sequence[str]
    names: Sequence[str]
    outline: Outline | None = None


def _holds_all(dataset: Dataset, names: Sequence[str], outline: Outline | None) -> None:
    pass


@dataclass(frozen=True)
class Writer:
    """How a format is written.

    write: returns a line for each kind of thing that the format could not hold as it was.
    check: raises ValueError, before anything is written, for what the format cannot hold in any form.
    file: the annotation file's name in a new folder.
    alone: whether the name of a new file with that suffix may be given in place of a folder.
    beside: the other files that belong to such a file.
    start: the folder, from the data set's, that the references to images start at.
    addresses: whether an image may be an address that is made up, such as `azureml://...`.
    renames: whether all images get names of stems that no other has, wherever they are.
    """

    write: Callable[[Dataset, Target], Sequence[str] | None]
    check: Callable[[Dataset, Sequence[str], Outline | None], None] = _holds_all
    file: str = "annotations.json"
    alone: bool = False
    beside: Callable[[Path], Iterable[Path]] = lambda file: ()
    start: str = "."
    addresses: bool = False
    renames: bool = False


@dataclass(frozen=True)
class Format:
    """One annotation format.

    name: in `--format` and `--to`. what: what a user calls it, and what it looks like on a disk.
    find: the data sets of this format at a path. read: what is at the path of a `Found`, and what could not be read.
    writer: None where the format is only read. covers: formats whose files are a part of this one.
    """

    name: str
    what: str
    find: Callable[[Contents], Iterable[Found]]
    read: Callable[[Path, Sources], tuple[Dataset, list[Problem]]]
    writer: Writer | None = None
    covers: tuple[str, ...] = ()


def passed_over(files: Iterable[Path], reason: str) -> tuple[Problem, ...]:
    """A note for each of the files."""
    return tuple(Problem(Place(file), reason, fatal=False) for file in files)
