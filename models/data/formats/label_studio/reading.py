"""Label Studio's JSON and JSON-MIN exports: a list of tasks, each an image with regions in percent of its size.

A region is a rectangle, a polygon, an ellipse or a brush stroke. Several results of one id are one region: its shape,
and its label. `models.data.formats.label_studio.objects` says which regions are one object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from models.data.dataset import Annotation, Dataset, LabelledImage, Place, Problem
from models.data.formats.label_studio import writing as label_studio_writing
from models.data.formats.label_studio.objects import Region, objects
from models.data.formats.protocol import Format, Found, Writer
from models.data.image_files import size_hw
from models.data.parsing import classes
from models.data.parsing.brush import unpack
from models.data.parsing.contents import Contents, Glance
from models.data.parsing.json_file import not_json, parsed
from models.data.parsing.json_object import Entry, parse_list
from models.data.parsing.shapes import Tally, box_of, ellipse, encoded, outlined, turned_box
from models.data.parsing.sources import UPLOADED, Sources
from models.data.parsing.suffixes import IMAGE_SUFFIXES
from models.data.parsing.values import BadValueError, EmptyBoxError, box, number, polygons, shown, stated_size_hw

LABELS = ("rectanglelabels", "polygonlabels", "brushlabels", "ellipselabels", "labels", "choices")
_SEVERAL = {
    "truth": "{count} tasks have several annotations: the one that is ground truth is read, or else the last",
    "last": "{count} tasks have several annotations: the last is read",
    "first": "{count} tasks have several annotations: the first is read",
    "prediction": "{count} tasks have several predictions: the last is read",
}


def read(path: Path, sources: Sources) -> tuple[Dataset, list[Problem]]:
    """What the tasks say, in their order, and what could not be read.

    Of a task with several annotations, the one that is ground truth is read, or else the last; `sources.answer` may
    want another. A task without one, or that was skipped, is left out; where no task has one, the predictions are read.
    The classes are those of the labelling interface beside the file (`NAME.xml`), if it is there, else those of the
    regions, sorted.
    """
    try:
        return _Reading(path, sources).all()
    except json.JSONDecodeError as error:  # within a task
        raise not_json(path, error) from error


class _Reading:
    def __init__(self, path: Path, sources: Sources) -> None:
        self._path = path
        self._sources = sources
        self._tasks = parsed(path, parse_list)
        self._problems: list[Problem] = []
        self._tally = Tally()

    def all(self) -> tuple[Dataset, list[Problem]]:
        wanted = self._sources.answer == "prediction"
        predicted = wanted or not any(_answers(task.value) for task in self._tasks)
        images = []
        for index, task in enumerate(self._tasks):
            try:
                image = self._image(task, predicted, f"[{index}]")
                images += [] if image is None else [image]
            except BadValueError as error:
                self._problem(task, f"[{index}]", error)
        self._problems += self._tally.notes()
        config = self._path.with_suffix(".xml")
        names = label_studio_writing.class_names(config)
        return classes.dataset(names, images, self._problems, str(config)), self._problems

    def _problem(self, task: Entry, where: str, reason: object, fatal: bool = True) -> None:
        known = ""
        if isinstance(task.value, dict) and "id" in task.value:
            known = f" (id {shown(task.value['id'])})"
        self._problems.append(Problem(Place(self._path, task.line), f"{where}{known}: {reason}", fatal))

    def _image(self, task: Entry, predicted: bool, where: str) -> LabelledImage | None:
        entry, place = task.value, Place(self._path, task.line)
        if not isinstance(entry, dict):
            raise BadValueError(f"expected a task, an object, found {shown(entry)}")
        results = self._results(entry, predicted, place)
        if results is None:
            return None
        _check_one_image(results)
        data = entry["data"] if isinstance(entry.get("data"), dict) else entry
        image = self._file(data, entry)
        stated = [size for one in results if (size := self._stated(one)) is not None]
        size = (
            stated[0]
            if stated
            else stated_size_hw(data.get("height"), data.get("width")) or size_hw(image, self._sources.page)
        )
        found: list[Region] = []
        for region, parts in _regions(results).items():
            dropped: list[str] = []
            try:
                annotation = self._region(parts, size, place, dropped)
                if annotation is not None:
                    control, parent = (_text(parts[0].get(name)) for name in ("from_name", "parentID"))
                    found.append(Region(region, control, parent or None, annotation))
            except EmptyBoxError as error:
                self._problem(task, f"{where}, region {region}", f"{error}: left out", fatal=False)
            except BadValueError as error:
                self._problem(task, f"{where}, region {region}", error)
            for reason in dropped:
                self._problem(task, f"{where}, region {region}", f"{reason}: this part is left out", fatal=False)
        return LabelledImage(image, size, tuple(objects(found)), place)

    def _results(self, entry: dict[str, Any], predicted: bool, place: Place) -> list[dict[str, Any]] | None:
        """The results that count; None where the task is left out."""
        if "data" not in entry:  # JSON-MIN
            return _minimal(entry)
        said = _of(entry, "predictions") if predicted else _of(entry, "annotations", "completions")
        if predicted and not said and entry.get("predictions"):
            raise BadValueError(
                f"predictions: expected predictions, found {shown(entry['predictions'])}: in Label Studio, export a "
                "snapshot that includes full predictions"
            )
        if not predicted and not said:
            self._tally.add("{count} tasks have no annotation, as they were not labelled: they are left out", place)
            return None
        answers = [one for one in said if not one.get("was_cancelled") and not one.get("skipped")]
        if predicted and answers and self._sources.answer != "prediction":
            what = "no task has an annotation: the predictions are read, of {count} tasks"
            self._tally.add(what, place)
        if not answers:
            if said:
                self._tally.add("{count} tasks were skipped by who labelled them: they are left out", place)
                return None
            return []
        if len(answers) > 1:
            self._tally.add(_SEVERAL[self._sources.answer], place)
        by_time = sorted(answers, key=lambda one: _written(one.get("created_at")))
        truths = [one for one in by_time if one.get("ground_truth") and self._sources.answer == "truth"]
        chosen = by_time[0] if self._sources.answer == "first" else (truths or by_time)[-1]
        result = chosen.get("result")
        if not isinstance(result, list):
            raise BadValueError(f"result: expected a list of regions, found {shown(result)}")
        if bad := [one for one in result if not isinstance(one, dict)]:
            raise BadValueError(f"result: expected regions, which are objects, found {shown(bad[0])}")
        return result

    def _file(self, data: dict[str, Any], entry: dict[str, Any]) -> Path | str:
        name, reference = _reference(data)
        local = _local(reference) if self._sources.mapped(reference) == reference else reference
        stem = Path(unquote(local.replace("\\", "/"))).stem
        here = self._path.parent
        folders = (here, here / "images", here.parent, here.parent / "images")
        upload = entry.get("file_upload")
        otherwise = UPLOADED.sub("", stem) if UPLOADED.match(stem) else upload if isinstance(upload, str) else None
        return self._sources.find(local, f"data.{name}", folders, tree=here, otherwise=otherwise)

    def _stated(self, result: dict[str, Any]) -> tuple[int, int] | None:
        try:
            fields = ("original_height", "original_width")
            return stated_size_hw(result.get(fields[0]), result.get(fields[1]), fields)
        except BadValueError:
            return None  # it is told of where the region is read

    def _region(
        self, parts: list[dict[str, Any]], size: tuple[int, int], place: Place, dropped: list[str]
    ) -> Annotation | None:
        """The object; None where it is none, a text or a choice for all of the image say."""
        shape = next((one for one in parts if _shape(_value(one))), None)
        if shape is None:
            kind = parts[0].get("type")
            name = kind[:40].replace("{count}", "") if isinstance(kind, str) and kind else "unknown"
            self._tally.add(f"{{count}} results of type {name} are no boxes or masks: left out", place)
            return None
        value = _value(shape)
        stated = stated_size_hw(
            shape.get("original_height"), shape.get("original_width"), ("original_height", "original_width")
        )
        if stated is not None and stated != size:
            raise BadValueError(f"original_width, original_height: expected {size[1]} x {size[0]}, as the others have")
        if (turn := number(shape.get("image_rotation") or 0, "image_rotation")) % 360:
            raise BadValueError(
                f"image_rotation: expected 0, found {shown(turn)}: turn the image back in Label Studio and export again"
            )
        label = self._label(parts, place)
        return self._object(value, label, size, place, dropped)

    def _object(
        self, value: dict[str, Any], label: str, size: tuple[int, int], place: Place, dropped: list[str]
    ) -> Annotation:
        height, width = size
        scale_x, scale_y = width / 100, height / 100
        if "rle" in value:
            rle = encoded(unpack(value["rle"], size, "rle"))
            return Annotation(label, box_of(rle, "rle"), rle=rle, place=place)
        if "points" in value:
            found = polygons(value["points"], "points", (scale_x, scale_y), dropped)
            if not found:
                raise BadValueError(f"points: expected at least 3 points, found {shown(value['points'])}")
            xs, ys = found[0][::2], found[0][1::2]
            return Annotation(label, box(min(xs), min(ys), max(xs), max(ys), "points"), found, place=place)
        turn = number(value.get("rotation") or 0, "rotation") % 360
        x, y = number(value.get("x"), "x") * scale_x, number(value.get("y"), "y") * scale_y
        if "radiusX" in value:
            across, down = number(value["radiusX"], "radiusX"), number(value.get("radiusY"), "radiusY")
            self._tally.add("{count} ellipses are read as polygons", place)
            return outlined(label, ellipse(x, y, across * scale_x, down * scale_y, turn), "radiusX, radiusY", place)
        across, down = number(value["width"], "width") * scale_x, number(value["height"], "height") * scale_y
        if turn:
            self._tally.add("{count} turned rectangles are read as polygons of four corners", place)
            return outlined(label, turned_box(x, y, across, down, turn, (x, y)), "x y width height", place)
        return Annotation(label, box(x, y, x + across, y + down, "x y width height, in pixels"), place=place)

    def _label(self, parts: list[dict[str, Any]], place: Place) -> str:
        for name in LABELS:
            for one in parts:
                names = _value(one).get(name)
                if isinstance(names, list) and names:
                    if len(names) > 1:
                        self._tally.add("{count} regions have several labels: the first is read", place)
                    if not isinstance(names[0], str) or not names[0].strip():
                        raise BadValueError(f"{name}: expected the name of a class, found {shown(names[0])}")
                    return names[0]
        raise BadValueError(f"expected a label in one of {', '.join(LABELS)}, found none: give it one in Label Studio")


def _of(entry: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    found: list[Any] = next((entry[name] for name in names if isinstance(entry.get(name), list)), [])
    return [one for one in found if isinstance(one, dict)]


def _answers(entry: Any) -> bool:
    return isinstance(entry, dict) and ("data" not in entry or bool(_of(entry, "annotations", "completions")))


def _written(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _value(result: dict[str, Any]) -> dict[str, Any]:
    value = result.get("value")
    return value if isinstance(value, dict) else {}


def _shape(value: dict[str, Any]) -> bool:
    """Whether it is that of a rectangle, an ellipse, a polygon or a brush; a key point has no height."""
    return "rle" in value or "points" in value or "radiusX" in value or ("width" in value and "height" in value)


def _geometry(value: dict[str, Any]) -> list[Any]:
    names = ("rle", "points", "x", "y", "width", "height", "radiusX", "radiusY")
    return [*(value.get(name) for name in names), value.get("rotation") or 0]


def _check_one_image(results: list[dict[str, Any]]) -> None:
    """Raises BadValueError for regions in several images, or pages: which photo each of them has is nowhere said."""
    shapes = [one for one in results if _shape(_value(one))]
    for field, what in (("to_name", ""), ("item_index", "pages ")):
        if len(found := {str(one[field]) for one in shapes if field in one}) > 1:
            raise BadValueError(
                f"regions of several images ({what}{', '.join(sorted(found))}): expected one image for each task; "
                "make tasks of one image in Label Studio"
            )


def _regions(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The results of each region, by its id."""
    found: dict[str, list[dict[str, Any]]] = {}
    shapes: dict[str, list[Any]] = {}
    for index, one in enumerate(results):
        identity, value = one.get("id"), _value(one)
        name = identity if isinstance(identity, str) and identity else f"number {index}"
        if _shape(value) and shapes.setdefault(name, geometry := _geometry(value)) != geometry:
            name = f"{name} (number {index})"  # two shapes are two regions, whatever their ids
        found.setdefault(name, []).append(one)
    return found


def _minimal(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions of JSON-MIN, which stand under the names of their controls, as results."""
    found: list[dict[str, Any]] = []
    for name, values in entry.items():
        if isinstance(values, list):
            for value in values:
                if isinstance(value, dict) and _shape(value):
                    sizes = {key: value.get(key) for key in ("original_width", "original_height")}
                    found.append({"from_name": name, "value": value, **sizes})
    return found


def _reference(data: dict[str, Any]) -> tuple[str, str]:
    """The field that holds the image's address, and the address."""
    texts = {name: value for name, value in data.items() if isinstance(value, str) and value.strip()}
    for name in ("image", "img", "image_url", "url"):
        if name in texts:
            return name, texts[name]
    for name, value in texts.items():
        if Path(_split(value).path).suffix.lower() in IMAGE_SUFFIXES or _is_ours(value):
            return name, value
    raise BadValueError(f"data: expected an image's address, found {shown(list(data))}")


def _is_ours(reference: str) -> bool:
    return "/data/local-files/" in reference or "/data/upload/" in reference


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # a bracket that is open, as if of an IPv6 address
        return SplitResult("", "", address, "", "")


def _local(reference: str) -> str:
    """The path in an address of Label Studio's own server; another address as it is."""
    if not _is_ours(reference):
        return reference
    parts = _split(reference)
    if "/local-files/" in parts.path and (named := parse_qs(parts.query).get("d")):
        return named[0]
    return unquote(parts.path[parts.path.index("/data/upload/") + len("/data/upload/") :])


def _is_label_studio(glance: Glance) -> bool:
    if glance.top != "[":
        return False
    if glance.has("[].data") and glance.has_any("[].annotations", "[].predictions", "[].completions"):
        return True
    # Its server writes the data of a task behind the results, of which one brush stroke may fill all that is looked at.
    if glance.has_any(*(f"[].{name}[].result" for name in ("annotations", "predictions", "completions"))):
        return True
    return not glance.has("[].image_id") and glance.ends(*LABELS[:4])


def _find(contents: Contents) -> Iterator[Found]:
    return (Found(path) for path, glance in contents.json_files() if _is_label_studio(glance))


FORMAT = Format(
    "label-studio",
    "Label Studio (its JSON or JSON-MIN export)",
    _find,
    read,
    Writer(
        label_studio_writing.write,
        label_studio_writing.check,
        file="label_studio.json",
        alone=True,
        beside=lambda file: (file.with_suffix(".xml"),),
        addresses=True,
    ),
)
