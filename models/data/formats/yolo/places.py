"""Where the images, the label files and the names of the classes of a YOLO data set are."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from models.data.dataset import DataError, Place, Problem
from models.data.formats.protocol import Found
from models.data.parsing import classes
from models.data.parsing.contents import Contents, marked, text_of, visible, walk, yaml_text
from models.data.parsing.sources import UPLOADED, Sources, is_everything, is_name
from models.data.parsing.suffixes import IMAGE_SUFFIXES
from models.data.parsing.values import BadValueError, shown

CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
SPLITS = ("train", "val", "valid", "test")
YAML = (".yaml", ".yml")
_LOOKED_AT = 20  # label files, to see whether they are YOLO's
# A class, by its number; or a box of one that is named, which is told of where it is read.
_LINE = re.compile(r"\s*(?:[0-9]+(?:\.0)?(?:[\s,]+[-+0-9.eE]+){4,}|[^\W\d][^\s,]*(?:[\s,]+[-+0-9.eE]+){4})\s*$")
_NO_LABELS = re.compile(r"(?:.*classes|train|val|valid|validation|test|readme.*|license.*|requirements)\.txt", re.I)


@dataclass
class Layout:
    """What there is. pairs: each image with its label file. names: by the classes' numbers; None: nobody says.

    listed_in: the file that says. keypoints: how many numbers of keypoints follow a box.
    """

    path: Path
    pairs: list[tuple[Path | str, Path | None]] = field(default_factory=list)
    names: dict[int, str] | None = None
    listed_in: Path | None = None
    keypoints: int = 0
    problems: list[Problem] = field(default_factory=list)


def find(contents: Contents) -> Iterator[Found]:
    """A YAML file with names of classes and places of images; else a folder with label files."""
    files = [path for path in contents.files(YAML) if _has_names(path)]
    if files or contents.is_file:
        yield from map(Found, files)
        return
    roots = _label_roots(contents.path)
    labels = list(islice((path for root in roots for path in _labels(root)), _LOOKED_AT))
    if any(map(_is_label, labels)) or labels and _class_list(contents.path) and not any(map(_content, labels)):
        yield Found(contents.path)


def look(path: Path, sources: Sources) -> Layout:
    """Raises DataError where there are no images and no labels, or the YAML file cannot be used."""
    found = Layout(path)
    start = path if path.is_dir() else path.parent
    own = path if path.is_file() else next((one for one in visible(path) if _is_yaml(one) and _has_names(one)), None)
    listed: list[Path] = []
    image_roots: list[Path] = []
    if own is not None:
        content = _parse(own)
        _take_names(found, own, content)
        image_roots, listed = _named_places(found, own, content)
    else:
        _find_names(found, start)
    label_roots = [other for root in image_roots if (other := _swapped(root, "images", "labels")).is_dir()]
    if not image_roots and not listed:
        label_roots, image_roots = _label_roots(start), _image_roots(start)
    if sources.root is not None:
        image_roots, listed = [sources.root], []
    pairs: dict[Path, Path | None] = {}
    for image in [*listed, *(one for root in image_roots for one in _images(root))]:
        pairs.setdefault(image, _label_of(image, image_roots, label_roots or [start / "labels"]))
    taken = set(pairs.values())
    for root in label_roots:
        for label in _labels(root):
            if label in taken or _is_list(label):
                continue
            name = label.relative_to(root).with_suffix("").as_posix()
            otherwise = UPLOADED.sub("", label.stem)
            try:
                image_found = sources.find(
                    name, "the image of this name", image_roots or [start], tree=start, otherwise=otherwise
                )
            except BadValueError as error:
                found.problems.append(Problem(Place(label), str(error)))
                continue
            if not isinstance(image_found, Path) or pairs.get(image_found) is not None:
                found.pairs.append((image_found, label))
            else:
                pairs[image_found] = label
    found.pairs = [*pairs.items(), *found.pairs]
    if not found.pairs:
        reason = "not YOLO: expected images with text files of the same names, beside them or in labels/, found none"
        raise DataError([Problem(Place(path), reason)])
    return found


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in YAML and path.is_file()


def _parse(path: Path) -> dict[str, Any]:
    """The content; all that stands in it as text, so that `no` and `1` are names."""
    try:
        content = yaml.load(yaml_text(path), yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise DataError([Problem(Place(path, line), f"not YAML: {error.problem or error.context}")]) from error
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise DataError([Problem(Place(path), f"cannot be read ({error})")]) from error
    if not isinstance(content, dict):
        raise DataError([Problem(Place(path, 1), f"expected names, train and val, found {shown(content)}")])
    return content


def _has_names(path: Path) -> bool:
    try:
        content = _parse(path)
    except DataError:
        return False
    return isinstance(content.get("names"), list | dict) and not {"train", "val", "nc", "path"}.isdisjoint(content)


def _take_names(found: Layout, path: Path, content: dict[str, Any]) -> None:
    written = content.get("names")
    found.listed_in = path
    try:
        if isinstance(written, list):
            found.names = {index: _name(one) for index, one in enumerate(written)}
        elif isinstance(written, dict):
            found.names = {int(index): _name(one) for index, one in written.items()}
    except (ValueError, TypeError) as error:
        reason = f"names: expected a list of names, or numbers with names, found {shown(written)} ({error})"
        raise DataError([Problem(Place(path), reason)]) from error
    names = list((found.names or {}).values())
    for name, times in Counter(names).items():
        if times > 1:
            found.problems.append(
                Problem(Place(path), f"names: {times} of them are {name!r}: they are one class", fatal=False)
            )
    count = content.get("nc")
    if found.names is not None and _is_count(count) and int(count) != len(names):
        reason = f"nc: expected the number of names, {len(names)}, found {count}: it is not used"
        found.problems.append(Problem(Place(path), reason, fatal=False))
    shape = content.get("kpt_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(map(_is_count, shape)):
        found.keypoints = int(shape[0]) * int(shape[1])


def _is_count(value: Any) -> TypeGuard[str]:
    """Whether it is the text of a number that is not beyond all counts."""
    return isinstance(value, str) and value.isdecimal() and len(value) <= 9


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected text, found {shown(value)}")
    return value


def _named_places(found: Layout, path: Path, content: dict[str, Any]) -> tuple[list[Path], list[Path]]:
    """The folders of images, and the images that a list has, of `train`, `val` and `test`."""
    roots: list[Path] = []
    listed: dict[Path, None] = {}
    parts = []
    for split in SPLITS:
        written = content.get(split)
        entries = written if isinstance(written, list) else [written]
        for entry in entries:
            if not isinstance(entry, str) or not entry.strip():
                continue
            place = _place(path, content.get("path"), entry)
            if place is None:
                reason = f"{split}: there is no {entry!r}: it is left out"
                found.problems.append(Problem(Place(path), reason, fatal=False))
            elif os.path.isdir(place):
                if place not in roots:
                    parts.append(f"{split}: {entry}")
                    roots.append(place)
            elif place.suffix.lower() == ".txt":
                more = [one for one in _listed(place, found.problems) if one not in listed]
                parts += [f"{split}: {entry}"] if more else []
                listed.update(dict.fromkeys(more))
            else:
                listed[place] = None
    if len(parts) > 1:
        reason = f"{len(parts)} parts are read as one data set ({', '.join(parts)}); name the folder of one to read it"
        found.problems.append(Problem(Place(path), f"{reason} alone", fatal=False))
    return roots, list(listed)


def _place(path: Path, base: Any, entry: str) -> Path | None:
    """The folder or file, where Ultralytics looks for it, or beside the YAML file."""
    here = path.parent
    entry = entry.strip().replace("\\", "/")
    bases = [here]
    if isinstance(base, str) and base.strip():
        named = base.strip().replace("\\", "/").rstrip("/")
        bases = [here / named, here.parent / "datasets" / Path(named).name, here / Path(named).name, here]
    for one in bases:
        # Roboflow writes `../train/images` and means the folder beside the file.
        for written in (entry, re.sub(r"^(\.\./)+", "", entry)):
            place = one / written
            if is_name(str(place)) and os.path.exists(place) and not is_everything(place):
                return place
    return None


def _listed(file: Path, problems: list[Problem]) -> Iterator[Path]:
    try:
        lines = text_of(file).splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError([Problem(Place(file), f"cannot be read ({error})")]) from error
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and is_name(line):
            yield _led_to(file.parent, line.replace("\\", "/"))
        elif line:
            problems.append(Problem(Place(file, number), f"expected the name of an image, found {shown(line)}"))


def _led_to(folder: Path, line: str) -> Path:
    """The image of a line of a list; its first folders may be those of another place, as CVAT's `data/` is."""
    parts = Path(line).parts
    candidates = (folder.joinpath(*parts[index:]) for index in range(len(parts)))
    return next((path for path in candidates if os.path.isfile(path)), folder / line)


def _find_names(found: Layout, start: Path) -> None:
    """In the folder of the labels, in those in it, as Roboflow's `train/`, or in one of the two around it."""
    inside = (folder for folder in visible(start) if folder.is_dir()) if _class_list(start) is None else ()
    for folder in (start, start / "labels", *inside, start.parent, start.parent.parent):
        for path in visible(folder):
            if _is_yaml(path) and _has_names(path):
                _take_names(found, path, _parse(path))
                return
        if listed := _class_list(folder):
            names = classes.read(listed)
            found.names, found.listed_in = dict(enumerate(names or ())), listed
            return


def _class_list(folder: Path) -> Path | None:
    return next((path for name in CLASS_LISTS if (path := folder / name).is_file()), None)


def _swapped(path: Path, old: str, new: str) -> Path:
    """The path with the last of its folders of one name called by another."""
    parts = list(path.parts)
    for index in reversed(range(len(parts))):
        if parts[index] == old:
            parts[index] = new
            return Path(*parts)
    return path


def _roots(start: Path, own: str, other: str) -> list[Path]:
    """The folders of this name (`labels`) in the data set, or what stands for them, beside those of the other name."""
    if (start / own).is_dir():
        return [start / own]
    if found := [folder / own for folder in visible(start) if (folder / own).is_dir()]:
        return found
    if (start / other).is_dir():
        return [start]
    swapped = _swapped(start.absolute(), other, own)
    return [swapped if swapped.is_dir() else start]


def _label_roots(start: Path) -> list[Path]:
    return _roots(start, "labels", "images")


def _image_roots(start: Path) -> list[Path]:
    return _roots(start, "images", "labels")


def _images(root: Path) -> Iterator[Path]:
    return (path for path in walk(root) if path.suffix.lower() in IMAGE_SUFFIXES)


def _labels(root: Path) -> Iterator[Path]:
    """The text files, but lists and other texts; a photo may be called `test`."""
    texts = (path for path in walk(root) if path.suffix.lower() == ".txt")
    return (path for path in texts if not _NO_LABELS.fullmatch(path.name) or _is_label(path))


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(10_000)
        text = content.decode(marked(content) or "utf-8-sig", "ignore").lstrip("\ufeff")
        return text.split("\n", 1)[0].strip()
    except (OSError, UnicodeError):
        return "unreadable"


def _is_list(path: Path) -> bool:
    """Whether it names images, one on a line."""
    return Path(_content(path)).suffix.lower() in IMAGE_SUFFIXES


def _is_label(path: Path) -> bool:
    return _LINE.match(_content(path)) is not None


def _label_of(image: Path, image_roots: Sequence[Path], label_roots: Sequence[Path]) -> Path | None:
    """The label file: in `labels/` for `images/`, beside the image, or at the same place in a folder of labels."""
    candidates = [_swapped(image.absolute(), "images", "labels"), image]
    for root in image_roots:
        if image.is_relative_to(root):
            candidates += [one / image.relative_to(root) for one in label_roots]
    candidates += [one / image.name for one in label_roots]
    for candidate in candidates:
        for label in (candidate.with_suffix(".txt"), candidate.with_name(f"{candidate.name}.txt")):
            if os.path.isfile(label):
                return label
    return None
