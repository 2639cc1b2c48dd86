"""What somebody has drawn with a smart tool -> prompts for SAM: key points, rectangles and ellipses.

Label Studio sends all regions of one tool and one label that are not accepted yet, so clicks that refine a mask come
with those before them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from app.errors import BadRequest
from models.data.parsing.shapes import turned_box

_KINDS = ("keypoint", "rectangle", "ellipse")
_LARGEST = 1e6  # percent, or pixels of a side


@dataclass
class Drawn:
    """One object that a mask is wanted of. All in fractions 0..1 of the upright image.

    to_name: the image's name in the interface. label: as drawn; None without one.
    points_xy: with labels, 1 for the object and 0 for what is not of it. box_xyxy: around the object, or None.
    """

    to_name: str
    label: str | None
    points_xy: list[list[float]] = field(default_factory=list)
    point_labels: list[int] = field(default_factory=list)
    box_xyxy: list[float] | None = None

    @property
    def is_single_click(self) -> bool:
        """Whether it may mean a part as well as the whole of an object."""
        return self.box_xyxy is None and len(self.points_xy) == 1


def drawn_objects(context: dict[str, Any]) -> list[Drawn]:
    """The objects of `params.context`: points of one label are of one object; of several rectangles each is one.

    An object that has nothing but points of what is not of it is left out: there is nothing to find.

    Raises BadRequest, which says in which region what was expected.
    """
    result = context.get("result")
    if not isinstance(result, list):
        raise BadRequest(f"params.context.result: expected a list of regions, got {type(result).__name__}")
    found: dict[tuple[str, str | None], list[Drawn]] = {}
    for number, one in enumerate(result):
        where = f"params.context.result, region {number}"
        if not isinstance(one, dict) or not isinstance(one.get("value"), dict):
            raise BadRequest(f"{where}: expected an object with a value, got {type(one).__name__}")
        kind = str(one.get("type", "")).removesuffix("labels")
        if kind not in _KINDS:
            expected = "a key point, a rectangle or an ellipse"
            raise BadRequest(f"{where}: expected {expected} of a smart tool, got {str(one.get('type'))[:40]!r}")
        if one.get("image_rotation"):
            raise BadRequest(f"{where}, image_rotation: expected 0, got another: turn the image back")
        key = str(one.get("to_name", "")), _label(one["value"])
        objects = found.setdefault(key, [])
        if kind == "keypoint":
            objects[:] = objects or [Drawn(*key)]
            objects[0].points_xy.append([_fraction(one["value"], name, where) for name in ("x", "y")])
            # Only a key point that a smart tool has drawn says so; others are of the object.
            objects[0].point_labels.append(0 if one.get("is_positive") is False else 1)
            continue
        box = _box(one, kind, where)
        if objects and objects[-1].box_xyxy is None:  # its points came before it
            objects[-1].box_xyxy = box
        else:
            objects.append(Drawn(*key, box_xyxy=box))
    everything = [one for objects in found.values() for one in objects]
    return [one for one in everything if one.box_xyxy is not None or any(one.point_labels)]


def _label(value: dict[str, Any]) -> str | None:
    for name in ("keypointlabels", "rectanglelabels", "ellipselabels", "labels"):
        labels = value.get(name)
        if isinstance(labels, list) and labels and isinstance(labels[0], str):
            return labels[0]
    return None


def _box(one: dict[str, Any], kind: str, where: str) -> list[float]:
    value = one["value"]
    x, y = (_fraction(value, name, where) for name in ("x", "y"))
    if kind == "ellipse":
        across, down = (_fraction(value, name, where) for name in ("radiusX", "radiusY"))
        x, y, across, down = x - across, y - down, 2 * across, 2 * down
    else:
        across, down = (_fraction(value, name, where) for name in ("width", "height"))
    turn = value.get("rotation") or 0
    if kind == "rectangle" and _is_number(turn) and turn % 360:
        # Turned about its corner, in pixels: the box around it is what SAM takes.
        width, height = (_side(one, name, where) for name in ("original_width", "original_height"))
        ring = turned_box(x * width, y * height, across * width, down * height, turn % 360, (x * width, y * height))
        xs, ys = [one / width for one in ring[::2]], [one / height for one in ring[1::2]]
        x, y, across, down = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    if across <= 0 or down <= 0:
        raise BadRequest(f"{where}: expected an area, got none: draw it larger")
    return [x, y, x + across, y + down]


def _side(one: dict[str, Any], name: str, where: str) -> float:
    if not _is_number(one.get(name)) or not 0 < one[name] <= _LARGEST:
        raise BadRequest(f"{where}, {name}: expected a number of pixels, got {str(one.get(name))[:40]!r}")
    return float(one[name])


def _fraction(value: dict[str, Any], name: str, where: str) -> float:
    """A percentage as a fraction."""
    if not _is_number(value.get(name)) or abs(value[name]) > _LARGEST:
        raise BadRequest(f"{where}, value.{name}: expected percent, got {str(value.get(name))[:40]!r}")
    return value[name] / 100


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
