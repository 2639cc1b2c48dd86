"""What was found in an image -> regions of Label Studio's results, in the controls that an interface has."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from app.label_studio.labeling_config import POLYGON_TOLERANCE, Control, Interface
from app.prediction import PredictedObject
from app.results.image_result import Corners, mask_of
from models.data.formats.label_studio.writing import brush, rectangle, region
from models.masks.boxes import box_around


def controls_for(interface: Interface, image: str, label: str) -> tuple[Control | None, Control | None]:
    """For boxes and for masks of a class the control that has a label for it: a brush before polygons."""
    usable = [one for one in interface.controls if one.to_name == image and not one.is_skipped]

    def first(*shapes: str) -> Control | None:
        fitting = (one for shape in shapes for one in usable if one.shape == shape)
        return next((one for one in fitting if one.label_of(label) is not None), None)

    return first("rectangle"), first("brush", "polygon")


def pre_labels(
    found: list[PredictedObject], interface: Interface, image: str, size_hw: tuple[int, int]
) -> tuple[list[dict[str, Any]], int]:
    """The regions of a prediction, and how many objects there is no label for.

    An object's mask has its rectangle as its parent, and further parts of a mask without one its first part: so it is
    known that they are one object.
    """
    regions: list[dict[str, Any]] = []
    nowhere = 0
    for number, one in enumerate(found):
        assert one.label is not None
        box_control, mask_control = controls_for(interface, image, one.label)
        parent = {}
        if box_control is not None:
            label = box_control.label_of(one.label)
            identity = f"{image}-box{number}"
            value = rectangle(one.box_xyxy, size_hw)
            regions += _written(box_control, label, value, size_hw, identity, one.score)
            parent = {"parentID": identity}
        mask = None if mask_control is None else mask_of(one)
        if mask_control is not None and mask is not None and mask.any():
            label = mask_control.label_of(one.label)
            for part, value in enumerate(_shapes(mask_control, mask, interface)):
                identity = f"{image}-mask{number}" + (f"-{part}" if part else "")
                regions += _written(mask_control, label, value, size_hw, identity, one.score, **parent)
                parent = parent or {"parentID": identity}  # of the other parts
        nowhere += box_control is None and mask_control is None
    return regions, nowhere


def answer_control(interface: Interface, image: str, label: str | None) -> tuple[Control, str | None] | None:
    """Where a smart tool's mask goes, and by which label: a brush, polygons, or the rectangle around it.

    A control that has the label comes before one that has not. None where the image has no such control.
    """
    fitting = interface.of(image, "brush", "polygon", "rectangle")
    if label is not None:
        for one in fitting:
            if (written := one.written(label)) is not None:
                return one, written
    for one in fitting:
        if not one.labels or label is None:
            return one, None
    return None


def smart_answer(
    control: Control, label: str | None, mask: np.ndarray, interface: Interface, score: float
) -> list[dict[str, Any]]:
    """The regions of a mask (H, W) bool that a smart tool was used for; none of an empty one."""
    if not mask.any():
        return []
    size_hw = mask.shape[0], mask.shape[1]
    regions: list[dict[str, Any]] = []
    parent: dict[str, Any] = {}
    for value in _shapes(control, mask, interface):
        regions += _written(control, label, value, size_hw, uuid.uuid4().hex[:10], score, **parent)
        parent = parent or {"parentID": regions[0]["id"]}
    return regions


def _shapes(control: Control, mask: np.ndarray, interface: Interface) -> Iterator[dict[str, Any]]:
    """The values of a mask in a control: one, or a polygon for each part. They have no label yet."""
    size_hw = mask.shape[0], mask.shape[1]
    if control.shape == "brush":
        yield brush(mask)
    elif control.shape == "polygon":
        tolerance = interface.polygon_tolerance
        if tolerance is None and interface.max_vertices is None:
            tolerance = POLYGON_TOLERANCE
        for part in Corners(tolerance, interface.max_vertices).polygons(mask):
            yield {"points": (100 * part).tolist(), "closed": True}
    elif (box := box_around(mask)) is not None:
        yield rectangle(box, size_hw)


def _written(
    control: Control,
    label: str | None,
    value: dict[str, Any],
    size_hw: tuple[int, int],
    identity: str,
    score: float | None,
    **more: Any,
) -> list[dict[str, Any]]:
    """A region as results: one, or where a <Labels> of its own holds the labels a second with the label."""
    said = more if score is None else {**more, "score": score}
    names = [] if label is None else [label]
    own = {} if control.labels_name is not None or not names else {control.kind: names}
    results = [region(control.name, 0, control.kind, size_hw, {**value, **own}, **said)]
    if control.labels_name is not None and names:
        results.append(region(control.labels_name, 0, "labels", size_hw, {**value, "labels": names}, **said))
    return [one | {"id": identity, "to_name": control.to_name} for one in results]
