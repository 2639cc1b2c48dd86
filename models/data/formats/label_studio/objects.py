"""Regions of Label Studio's -> objects: a rectangle and the mask below it in the tree of regions are one object.

Label Studio keeps that tree (`parentID`) through imports, corrections and exports, whatever controls are called.
Without it, the ids that were written (`box7`, `mask7`) tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from models.data.dataset import Annotation

_NUMBERED = re.compile(r"(?:(box) box|(mask) mask|(polygon) mask)([0-9]+)$")  # the control, and the id


@dataclass(frozen=True)
class Region:
    """A region that is a box or a mask. control: the name of its control. parent: a region's id, or None."""

    identity: str
    control: str
    parent: str | None
    annotation: Annotation

    @property
    def is_polygon(self) -> bool:
        return self.annotation.polygons is not None


def objects(regions: Sequence[Region]) -> Iterator[Annotation]:
    """The objects, in the order of their first masks, or of boxes without one.

    Of one class, a mask whose parent is a box has that box; polygons whose parent is one box, or another polygon, are
    the parts of one mask.
    """
    parents = _parents(regions)
    children: dict[int, list[int]] = {}
    for child, parent in parents.items():
        children.setdefault(parent, []).append(child)
    for number, region in enumerate(regions):
        below = children.get(number, [])
        one = region.annotation
        if number in parents:
            mine = children[parents[number]]
            if _are_parts(regions, parents[number], mine):
                if number == mine[0] and not regions[parents[number]].annotation.has_mask:
                    yield _joined(regions, parents[number], mine)
            elif number == mine[0]:
                yield replace(one, box_xyxy=regions[parents[number]].annotation.box_xyxy)
            else:
                yield one
        elif not below:
            yield one
        elif one.has_mask:
            yield _joined(regions, number, below)


def _parents(regions: Sequence[Region]) -> dict[int, int]:
    """For each region that is a part of another one's object, that other one."""
    by_identity = {one.identity: number for number, one in enumerate(regions)}
    boxes: dict[tuple[str, str], int] = {}
    numbers = [_NUMBERED.match(f"{one.control} {one.identity}") for one in regions]
    for number, (match, one) in enumerate(zip(numbers, regions, strict=True)):
        if match is not None and match[1] and not one.annotation.has_mask:
            boxes[match[4], one.annotation.label] = number
    found: dict[int, int] = {}
    for number, (match, one) in enumerate(zip(numbers, regions, strict=True)):
        if not one.annotation.has_mask:
            continue
        parent = by_identity.get(one.parent or "")
        if parent is None and match is not None:
            parent = boxes.get((match[4], one.annotation.label))
        if parent is None or parent == number or regions[parent].annotation.label != one.annotation.label:
            continue
        if not regions[parent].annotation.has_mask or (one.is_polygon and regions[parent].is_polygon):
            found[number] = parent
    # A part of a part stands by itself, and so does what goes round in a circle.
    return {child: parent for child, parent in found.items() if parent not in found}


def _are_parts(regions: Sequence[Region], parent: int, below: list[int]) -> bool:
    return regions[parent].annotation.has_mask or (len(below) > 1 and all(regions[one].is_polygon for one in below))


def _joined(regions: Sequence[Region], parent: int, below: list[int]) -> Annotation:
    """One object of several polygons, with the box of its parent, or else the one around all of them."""
    whole = regions[parent].annotation
    parts = [regions[one].annotation for one in below]
    if whole.has_mask:
        parts = [whole, *parts]
        xs1, ys1, xs2, ys2 = zip(*(one.box_xyxy for one in parts), strict=True)
        box = min(xs1), min(ys1), max(xs2), max(ys2)
    else:
        box = whole.box_xyxy
    polygons = tuple(ring for one in parts for ring in one.polygons or ())
    return replace(parts[0], box_xyxy=box, polygons=polygons)
