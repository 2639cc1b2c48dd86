"""A data set as a tool writes it, and what it means: the files, and what `box2mask data` has to read or say."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from models.data import DataError, Dataset, Problem, read

WIDTH, HEIGHT = 100, 80  # of every photo that is not said to have another size

# Label, box, pixels of the mask (0: none), whether it is a crowd.
Object = tuple[str, tuple[float, ...], int, bool]


def thing(label: str, x1: float, y1: float, x2: float, y2: float, mask: int = 0, crowd: bool = False) -> Object:
    """An object that is expected."""
    return label, (x1, y1, x2, y2), mask, crowd


@dataclass(frozen=True)
class Photo:
    """A photo of one colour; its content is different for each `shade`."""

    width: int = WIDTH
    height: int = HEIGHT
    shade: int = 0

    def content(self, name: str) -> bytes:
        file = io.BytesIO()
        suffix = name.rsplit(".", 1)[-1].lower()
        kind = "PNG" if suffix == "png" else "JPEG"
        Image.new("RGB", (self.width, self.height), (self.shade, 90, 90)).save(file, format=kind)
        return file.getvalue()


@dataclass(frozen=True)
class Case:
    """files: by their paths; text, bytes, a Photo, or what is written as JSON. at: what is read of them.

    expected: for each image, by its file's name, its objects. bad: what has to be said as a problem, for each one of
    them, in any order; noted: the same for what is only odd. Both are regular expressions. Problems that are not
    expected fail; notes do not. lost: whether photos may be missing.
    """

    files: dict[str, Any]
    expected: dict[str, list[Object]] = field(default_factory=dict)
    bad: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    at: str = "."
    options: dict[str, Any] = field(default_factory=dict)
    lost: bool = False

    def lay(self, folder: Path) -> Path:
        """Writes the files; the path to read."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Photo):
                content = content.content(name)
            elif not isinstance(content, str | bytes):
                content = json.dumps(content)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / self.at

    def check(self, folder: Path) -> None:
        """Reads the files and compares. An image that is said to be there has to be there."""
        path = self.lay(folder)
        problems: list[Problem] = []
        found: dict[str, list[Object]] = {}
        try:
            dataset, problems = read(path, **self.options)
        except DataError as error:
            problems = list(error.problems)
        else:
            found = objects(dataset)
            lost = [str(image.path) for image in dataset.images if not _is_there(image.path)]
            assert self.lost or not lost, lost
        said = [str(problem) for problem in problems if problem.fatal]
        notes = [str(problem) for problem in problems if not problem.fatal]
        assert found == self.expected, (found, said, notes)
        _each_once(self.bad, said)
        assert len(said) == len(self.bad), said
        _each_once(self.noted, notes)


def _is_there(path: Path | str) -> bool:
    return isinstance(path, str) or path.is_file()


def _each_once(expected: tuple[str, ...], said: list[str]) -> None:
    for one in expected:
        assert sum(re.search(one, line) is not None for line in said) == 1, (one, said)


def objects(dataset: Dataset) -> dict[str, list[Object]]:
    """By the images' names."""
    found = {}
    for image in dataset.images:
        its = []
        for one in image.annotations:
            mask = one.mask(image.size_hw)
            pixels = 0 if mask is None else int(mask.sum())
            its.append((one.label, tuple(one.box_xyxy), pixels, one.crowd))
        found[image.name] = its
    return found
