"""A project's labelling interface, Label Studio's XML -> its images, and the controls that answers can be given in.

parse      the XML -> Interface
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from app.errors import BadRequest
from models.data.parsing.xml_tree import Element, ElementError, parse_content

Shape = Literal["rectangle", "brush", "polygon"]

# Tags that have labels of their own, and those that take them from a <Labels> beside them; of both the results' type is
# the tag in small letters.
_SHAPES: dict[str, Shape] = {
    "rectanglelabels": "rectangle",
    "rectangle": "rectangle",
    "brushlabels": "brush",
    "brush": "brush",
    "polygonlabels": "polygon",
    "polygon": "polygon",
}
_LABELS = "labels"
_FIELD = re.compile(r"\$([\w.-]+)")
# Corners of exact outlines, one at every pixel, are not for people to move.
POLYGON_TOLERANCE = 1.0


@dataclass(frozen=True)
class Label:
    """A label of a control. written: as results name it. names: what else it goes by.

    classes: the detector's classes that the interface says are meant (`predicted_values`); () where it says nothing.
    """

    written: str
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Control:
    """A control in which masks or boxes can be given.

    kind: the type of its results. to_name: the image's name. labels_name: of the <Labels> that holds the labels, where
    they are not its own. is_skipped: by `model_skip`; pre-labels have nothing in it.
    """

    name: str
    to_name: str
    shape: Shape
    kind: str
    labels: tuple[Label, ...]
    labels_name: str | None = None
    is_skipped: bool = False

    def label_of(self, class_name: str) -> str | None:
        """How results name a class of the detector's; None where this control has no label for it.

        What `predicted_values` say counts first, then names that are the same, then names that differ in nothing but
        small and capital letters, and blanks for `_` or `-`.
        """
        for label in self.labels:
            if class_name in label.classes:
                return label.written
        return self.written(class_name)

    def written(self, name: str) -> str | None:
        """How results name the label that goes by this name, exactly or but for letters' case; None without one."""
        for label in self.labels:
            if name in (label.written, *label.names):
                return label.written
        for label in self.labels:
            if _loose(name) in map(_loose, (label.written, *label.names, *label.classes)):
                return label.written
        return None


@dataclass(frozen=True)
class ImageTag:
    """An <Image>. field: of the task's data, with its address."""

    name: str
    field: str


@dataclass(frozen=True)
class Interface:
    """What a labelling interface has.

    controls: in the document's order. score_threshold, polygon_tolerance, max_vertices: as controls ask for them by
    `model_score_threshold`, `model_polygon_tolerance` and `model_max_vertices`; None where none does.
    """

    images: tuple[ImageTag, ...]
    controls: tuple[Control, ...]
    score_threshold: float | None = None
    polygon_tolerance: float | None = None
    max_vertices: int | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """What an open-vocabulary detector is to find: each label's `predicted_values`, or else its name."""
        labels = [label for one in self.controls if not one.is_skipped for label in one.labels]
        return tuple(
            dict.fromkeys(text for one in labels for text in (one.classes or one.names[-1:] or (one.written,)))
        )

    def of(self, image: str, *shapes: Shape) -> list[Control]:
        """The controls of an image that have one of these shapes, in the order of the shapes."""
        return [one for shape in shapes for one in self.controls if one.to_name == image and one.shape == shape]

    def image(self, name: str) -> ImageTag | None:
        return next((one for one in self.images if one.name == name), None)


@lru_cache(maxsize=64)
def parse(config: str) -> Interface:
    """Raises BadRequest for what is no labelling interface, and for one without an image whose address is a field."""
    try:
        root = parse_content(config.encode("utf-8", "replace"))
    except ElementError as error:
        raise BadRequest(f"label_config, line {error.line}: {error}") from error
    elements = list(_below(root))
    images = []
    for one in elements:
        if one.tag.lower() == "image" and one.attributes.get("name"):
            match = _FIELD.fullmatch(one.attributes.get("value", "").strip())
            if match is not None:
                images.append(ImageTag(one.attributes["name"], match[1]))
    if not images:
        raise BadRequest('label_config: expected an <Image name="..." value="$..."/>, found none')
    tagged = {one.attributes["name"]: one for one in elements if one.attributes.get("name")}
    by_image = {one.attributes.get("toname", ""): one for one in tagged.values() if one.tag.lower() == _LABELS}
    controls = []
    for name, one in tagged.items():
        tag, to_name = one.tag.lower(), one.attributes.get("toname", "")
        if tag not in _SHAPES or to_name not in {image.name for image in images}:
            continue
        holder = one if tag.endswith(_LABELS) else by_image.get(to_name)
        labels = () if holder is None else tuple(_labels(holder))
        labels_name = None if holder is None or holder is one else holder.attributes["name"]
        skipped = one.attributes.get("model_skip", "").lower() in ("true", "1", "yes")
        controls.append(Control(name, to_name, _SHAPES[tag], tag, labels, labels_name, skipped))
    return Interface(
        tuple(images),
        tuple(controls),
        _number(elements, "model_score_threshold", 0, 1),
        _number(elements, "model_polygon_tolerance", 0, 1000),
        None if (most := _number(elements, "model_max_vertices", 4, 1_000_000)) is None else round(most),
    )


def _below(root: Element) -> Iterator[Element]:
    """All elements in the document's order, with attributes' names in small letters, as Label Studio reads them."""
    waiting = [root]
    while waiting:
        one = waiting.pop()
        one.attributes = {name.lower(): value for name, value in one.attributes.items()}
        yield one
        waiting += reversed(one.children)


def _labels(holder: Element) -> Iterator[Label]:
    waiting = list(reversed(holder.children))
    while waiting:
        one = waiting.pop()
        waiting += reversed(one.children)
        value, alias = one.attributes.get("value", ""), one.attributes.get("alias", "")
        if one.tag.lower() == "label" and (value or alias):
            classes = tuple(name.strip() for name in one.attributes.get("predicted_values", "").split(","))
            yield Label(alias or value, (value,) if alias and value else (), tuple(filter(None, classes)))


def _number(elements: list[Element], name: str, least: float, most: float) -> float | None:
    """What the first element with this attribute says. Raises BadRequest."""
    for one in elements:
        if (text := one.attributes.get(name)) is None:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            expected = f"expected a number from {least:g} to {most:g}"
            raise BadRequest(f"label_config, line {one.line}, {name}: {expected}, got {text[:40]!r}")
        return value
    return None


def _loose(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
