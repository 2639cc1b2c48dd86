"""The names of classes, in order, for the formats that have no place for them.

VOC and JSONL name the class of each object and no more: the order of the classes, and those without an object, would
be lost. They are kept in a text file of one name a line, `classes.txt` in a VOC folder and `NAME.classes.txt` beside
`NAME.jsonl`. Where there is none, the classes are those of the objects, sorted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from models.data.dataset import DataError, Dataset, LabelledImage, Place, Problem
from models.data.parsing.contents import text_of
from models.data.parsing.values import few, shown


def beside(jsonl: Path) -> Path:
    """The classes' file of a JSONL file."""
    return jsonl.with_name(f"{jsonl.stem}.classes.txt")


def read(path: Path) -> tuple[str, ...] | None:
    """The names in the file; None where there is none. Raises DataError for a name that is there twice, or none."""
    try:
        lines = text_of(path).splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error
    names: dict[str, None] = {}
    for line, name in enumerate(map(str.strip, lines), start=1):
        if name in names:
            raise DataError([Problem(Place(path, line), f"expected each class once, found {shown(name)} again")])
        if name:
            names[name] = None
    if not names:
        raise DataError([Problem(Place(path), "expected the name of a class on each line, found none")])
    return tuple(names)


def check(names: Iterable[str]) -> None:
    """Raises ValueError for a name that is not one line of text, without spaces around it."""
    for name in names:
        if name != name.strip() or len(name.splitlines()) != 1 or not name.isprintable():
            raise ValueError(f"the class {name!r} is not one line of text: VOC and JSONL cannot hold it")


def write(path: Path, names: Iterable[str]) -> None:
    """Writes the file."""
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def dataset(
    names: tuple[str, ...] | None, images: Iterable[LabelledImage], problems: list[Problem], listed_in: str
) -> Dataset:
    """The data set of these images. Objects of a class that is not among `names` go to `problems`.

    names: the known classes; None: those that the objects have, sorted. listed_in: the file that lists them.
    """
    images = list(images)
    if names is None:
        return Dataset(tuple(sorted({one.label for image in images for one in image.annotations})), tuple(images))
    known, wanted = [], set(names)
    for image in images:
        for one in image.annotations:
            if one.label not in wanted:
                reason = f"expected a class of {listed_in} ({few(names)}), found {shown(one.label)}"
                problems.append(Problem(one.place or Place(Path(listed_in)), reason))
        kept = tuple(one for one in image.annotations if one.label in wanted)
        known.append(LabelledImage(image.path, image.size_hw, kept, image.place))
    return Dataset(names, tuple(known))
