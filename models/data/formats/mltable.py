"""AzureML's MLTable folders: a YAML file `MLTable` that names JSONL files and how to read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from models.data.dataset import DataError, Dataset, Place, Problem
from models.data.formats import jsonl
from models.data.formats.protocol import Format, Found, Outline, Writer
from models.data.parsing import classes
from models.data.parsing.contents import Contents, yaml_text
from models.data.parsing.sources import Sources, is_everything, is_name
from models.data.parsing.values import BadValueError, shown, text

FILE = "MLTable"

# What AzureML's schema allows for `encoding` -> Python's name of it.
ENCODINGS = {
    "utf8": "utf-8-sig",
    "utf8bom": "utf-8-sig",
    "iso88591": "latin-1",
    "latin1": "latin-1",
    "ascii": "ascii",
    "utf16": "utf-16",
    "utf32": "utf-32",
    "windows1252": "cp1252",
}

# The text that Azure's own samples write.
TEMPLATE = """\
paths:
  - file: ./{name}
transformations:
  - read_json_lines:
      encoding: utf8
      invalid_lines: error
      include_path_column: false
  - convert_column_types:
      - columns: image_url
        column_type: stream_info
"""


def read(folder: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What all JSONL files of the table hold, in their order, and what could not be read.

    With `invalid_lines: drop`, lines that cannot be read are told of but do not keep the rest from being used.
    Raises DataError when the file MLTable cannot be used: a transformation that selects or changes rows is refused.
    """
    file = folder / FILE
    content, lines = _parse(file)
    encoding, drop = _transformations(content.get("transformations"), file, lines)
    paths = content.get("paths")
    if not isinstance(paths, list) or not paths:
        raise DataError(
            [Problem(Place(file, lines.get("paths", 1)), f"paths: expected a list, found {shown(paths or None)}")]
        )
    problems: list[Problem] = []
    images = []
    names: list[str] | None = []
    listed = []
    for index, entry in enumerate(paths):
        line = lines.get(f"paths[{index}]", 1)
        try:
            found = _files(entry, folder, sources)
        except BadValueError as error:
            problems.append(Problem(Place(file, line), f"paths[{index}]: {error}"))
            continue
        for path in found:
            try:
                more, wrong = jsonl.read_lines(path, sources, encoding)
                known = classes.read(classes.beside(path))
            except DataError as error:
                problems += error.problems
                continue
            images += more
            if drop:
                wrong = [Problem(one.place, f"{one.reason} (dropped, as invalid_lines asks)", False) for one in wrong]
            problems += wrong
            if known is None or names is None:
                names = None
            else:
                names = list(dict.fromkeys([*names, *known]))
                listed.append(str(classes.beside(path)))
    return classes.dataset(tuple(names) if names else None, images, problems, ", ".join(listed)), problems


def write(dataset: Dataset, folder: Path, references: Iterable[str], outline: Outline | None) -> list[str]:
    """Writes the file MLTable and `annotations.jsonl`; returns what `jsonl.write` does, and raises what it does."""
    lost = jsonl.write(dataset, folder / "annotations.jsonl", references, outline)
    (folder / FILE).write_text(TEMPLATE.format(name="annotations.jsonl"), encoding="utf-8")
    return lost


def _parse(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The content, and the line of each key and of each element of a list at the top."""
    try:
        loader = yaml.BaseLoader(yaml_text(file))  # all values are text: `2001-99-99` is no date that there is not
        node = loader.get_single_node()
        content = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise DataError([Problem(Place(file, line), f"not YAML: {error.problem or error.context}")]) from error
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise DataError([Problem(Place(file), f"cannot be read ({error})")]) from error
    if not isinstance(content, dict):
        raise DataError([Problem(Place(file, 1), f"expected paths and transformations, found {shown(content)}")])
    lines = {}
    for key, value in node.value:
        lines[key.value] = key.start_mark.line + 1
        if isinstance(value, yaml.SequenceNode):
            for index, one in enumerate(value.value):
                lines[f"{key.value}[{index}]"] = one.start_mark.line + 1
    return content, lines


def _transformations(value: Any, file: Path, lines: dict[str, int]) -> tuple[str, bool]:
    """Python's name of the encoding, and whether invalid lines are to be dropped."""
    steps = value if isinstance(value, list) else []
    encoding, drop, reads = "", False, False
    for index, step in enumerate(steps):
        place = Place(file, lines.get(f"transformations[{index}]", 1))
        name, settings = next(iter(step.items())) if isinstance(step, dict) and len(step) == 1 else (step, None)
        if name == "convert_column_types":  # that image_url is a stream: here it always is
            continue
        if name != "read_json_lines":
            reason = f"transformations[{index}]: expected read_json_lines or convert_column_types, found {shown(name)}"
            raise DataError([Problem(place, reason)])
        settings = settings if isinstance(settings, dict) else {}
        known, invalid = settings.get("encoding", "utf8"), settings.get("invalid_lines", "error")
        if not isinstance(known, str) or known not in ENCODINGS:
            reason = f"encoding: expected one of {', '.join(ENCODINGS)}, found {shown(known)}"
            raise DataError([Problem(place, reason)])
        if invalid not in ("error", "drop"):
            raise DataError([Problem(place, f"invalid_lines: expected error or drop, found {shown(invalid)}")])
        encoding, drop, reads = ENCODINGS[known], invalid == "drop", True
    if not reads:
        line = lines.get("transformations", 1)
        raise DataError([Problem(Place(file, line), "transformations: expected read_json_lines, found none")])
    return encoding, drop


def _files(entry: Any, folder: Path, sources: Sources) -> list[Path]:
    """The JSONL files that an element of `paths` means: `file`, `folder` (every .jsonl in it) or `pattern`."""
    if not isinstance(entry, dict) or len(entry) != 1 or next(iter(entry)) not in ("file", "folder", "pattern"):
        raise BadValueError(f"expected file, folder or pattern, found {shown(entry)}")
    kind, value = next(iter(entry.items()))
    mapped = sources.mapped(text(value, kind)).removeprefix("file://")
    if "://" in mapped:
        raise BadValueError(f"{kind}: expected a path here, found {mapped!r} (say where it is with --prefix FROM=TO)")
    if not is_name(mapped):
        raise BadValueError(f"{kind}: expected the name of a file or folder, found {shown(mapped)}")
    if kind == "file":
        return [folder / mapped]
    start, pattern = folder, mapped
    if kind == "folder":
        start, pattern = folder / mapped, "**/*.jsonl"
    elif Path(mapped).is_absolute():
        start = Path(Path(mapped).anchor)
        pattern = str(Path(mapped).relative_to(start))
    try:
        if is_everything(start) and "*" in Path(pattern).parts[0]:
            raise ValueError("to go through all folders there are takes hours")
        if any("**" in part and part != "**" for part in Path(pattern).parts):
            raise ValueError("`**` is a whole part of a path")  # which pathlib says up to Python 3.12
        found = sorted(start.glob(pattern))
    except (ValueError, IndexError) as error:  # as pathlib refuses `.`
        raise BadValueError(f"{kind}: expected a pattern of file names, found {mapped!r}") from error
    if not found:
        raise BadValueError(f"{kind}: expected JSONL files in {mapped!r}, found none")
    return found


def _find(contents: Contents) -> Iterator[Found]:
    if contents.path.name == FILE and contents.is_file or (contents.path / FILE).is_file():
        yield Found(contents.folder)


FORMAT = Format(
    "mltable",
    "MLTable (a folder with a file MLTable)",
    _find,
    read,
    Writer(
        lambda dataset, target: write(dataset, target.folder, target.references, target.outline),
        lambda dataset, names, outline: jsonl.check(dataset, outline),
        addresses=True,
    ),
    covers=("jsonl",),  # its JSONL files are no data sets of their own
)
