"""Which data set, in which format, lies at a path: told by what is in the files, not by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.data.dataset import DataError, Place, Problem
from models.data.formats import datumaro, jsonl, labelme, mltable, other_tools, supervisely, via, voc
from models.data.formats.coco import reading as coco
from models.data.formats.cvat import reading as cvat
from models.data.formats.label_studio import reading as label_studio
from models.data.formats.protocol import Format, Found
from models.data.formats.yolo import reading as yolo
from models.data.parsing.contents import Contents, visible

KNOWN: tuple[Format, ...] = (
    coco.FORMAT,
    voc.FORMAT,
    jsonl.FORMAT,
    mltable.FORMAT,
    yolo.FORMAT,
    label_studio.FORMAT,
    cvat.FORMAT,
    labelme.FORMAT,
    via.FORMAT,
    supervisely.FORMAT,
    datumaro.FORMAT,
)
FORMATS: tuple[str, ...] = tuple(one.name for one in KNOWN)
WRITTEN: tuple[str, ...] = tuple(one.name for one in KNOWN if one.writer is not None)

_SHOWN = 8  # of several data sets


def named(name: str) -> Format:
    """The format of this name. Raises ValueError."""
    for one in KNOWN:
        if one.name == name:
            return one
    raise ValueError(f"format: expected one of {', '.join(FORMATS)}, found {name!r}")


def find(path: Path, format: str | None = None) -> tuple[Format, Found]:
    """The data set at `path`: what its format is, and what the format's reader takes.

    A folder may hold one data set, directly or in one of its folders. format: the only one that is looked for.
    Raises DataError when there is none, or more than one.
    """
    if not path.exists():
        raise DataError([Problem(Place(path), "there is no such file or folder")])
    formats = KNOWN if format is None else (named(format),)
    contents = Contents(path)
    candidates = _candidates(contents, formats)
    if not any(one.certain for _, one in candidates) and not contents.is_file:
        inside = (_candidates(Contents(folder), formats) for folder in visible(path) if folder.is_dir())
        candidates += [(kind, one) for found in inside for kind, one in found if one.certain]
    certain = [(kind, one) for kind, one in candidates if one.certain]
    if not certain and format is None and (reason := _known_elsewhere(contents)):
        raise DataError([Problem(Place(path), reason)])
    covered = {name for kind, _ in certain for name in kind.covers}
    chosen = [(kind, one) for kind, one in certain or candidates if kind.name not in covered]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise DataError([Problem(Place(path), _several(chosen))])
    if format is not None and contents.is_file:  # so it has been said
        return formats[0], Found(path)
    raise DataError([Problem(Place(path), _none(contents, format))])


def _candidates(contents: Contents, formats: Sequence[Format]) -> list[tuple[Format, Found]]:
    return [(kind, one) for kind in formats for one in kind.find(contents)]


def _known_elsewhere(contents: Contents) -> str | None:
    """A sentence on what lies there of a tool whose files are not read."""
    folders = [] if contents.is_file else [one for one in visible(contents.path) if one.is_dir()]
    found = (other_tools.recognised(one) for one in (contents, *map(Contents, folders)))
    return next((reason for reason in found if reason), None)


def _several(found: Sequence[tuple[Format, Found]]) -> str:
    names = [str(one.path) for _, one in found]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    formats = sorted({kind.name for kind, _ in found})
    way_out = "name one of them"
    if len(formats) > 1:
        way_out += f", or its format with --format ({', '.join(formats)})"
    return f"expected one data set, found several: {', '.join(names[:_SHOWN])}{more}; {way_out}"


def _none(contents: Contents, format: str | None) -> str:
    if format is not None:
        return f"expected {format} there, found none"
    *first, last = (one.what for one in KNOWN)
    expected = f"expected {', '.join(first)} or {last}"
    if contents.is_file:
        return f"{expected}, found another file; say which with --format"
    return f"{expected}, found none"
