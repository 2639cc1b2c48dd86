"""SAM's prompts in a row of a request <-> `Prompts`: lists, or their text, to arrays; arrays to pixels of the image.

Nothing (`""`, null, NaN) and an empty list (`[]`, with or without other brackets around it) are two things: where a row
has neither boxes nor points, SAM makes the one prediction that needs no prompt; where it has an empty list of them, it
wants none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from app.contract import causes
from app.contract.literals import LiteralError, is_nothing, parse_numbers
from app.errors import BadRequest
from models.types import PromptError, Prompts

POINTS, BOXES, LABELS = "input_points", "input_boxes", "input_labels"
# Those of a detector that is shown what to find, see `app.contract.exemplars`.
EXEMPLAR_BOXES, EXEMPLAR_LABELS = "exemplar_boxes", "exemplar_labels"

_MAX_LITERAL = 1_000_000  # characters of one prompt column: some 50,000 coordinates
_PADDING = -10  # the label of a point that only fills up a list
_LARGEST = 1e9  # of any coordinate; beyond it float32 no longer tells places apart
_DIMENSIONS = {
    POINTS: ("(point_batch, points_per_prompt, 2)", 3),
    BOXES: ("(num_boxes, 4)", 2),
    LABELS: ("(point_batch, points_per_prompt)", 2),
    EXEMPLAR_BOXES: ("(num_boxes, 4)", 2),
    EXEMPLAR_LABELS: ("(num_boxes,)", 1),
}


def read_prompts(values: dict[str, Any], row: int) -> Prompts | None:
    """A row's prompts; None where its boxes or points are an empty list, and no other prompts stand beside it."""
    given = {column: read_list(values[column], row, column) for column in (POINTS, BOXES, LABELS)}
    points, boxes, labels = (None if one is None or not one.size else one for one in given.values())
    if points is None and boxes is None and labels is None:
        empty = [(column, one.shape) for column in (POINTS, BOXES) if (one := given[column]) is not None]
        for column, shape in empty:
            if max(shape) > 1:
                expected = _DIMENSIONS[column][0]
                raise BadRequest(f"expected {expected}, got {shape}; [] is none of them", row=row, column=column)
        return None if empty else Prompts()
    try:
        prompts = Prompts(points, None if labels is None else labels.astype(np.int64), boxes)
    except PromptError as error:
        shapes = {column: one.shape for column, one in given.items() if one is not None and one.size}
        cause = causes.of_prompts(error.column, shapes)
        raise BadRequest(f"{error.message}{cause}", row=row, column=error.column) from error
    if labels is not None and boxes is None:
        for number in np.flatnonzero((labels == _PADDING).all(axis=1))[:1]:
            raise BadRequest(
                f"prompt {number}: expected a label that is no padding, got only {_PADDING}; leave this prompt out",
                row=row,
                column=LABELS,
            )
    return prompts


def read_list(value: object, row: int, column: str) -> np.ndarray | None:
    """A prompt column's list, or literal of a list, as float64 of the column's number of dimensions, or of no entry."""
    shape, dimensions = _DIMENSIONS[column]

    def fault(found: str) -> BadRequest:
        return BadRequest(f"expected {shape}, got {found}", row=row, column=column)

    if is_nothing(value):
        return None
    if isinstance(value, str):
        value = _literal(value, fault)
    if not isinstance(value, list | tuple):
        raise fault(causes.kind(value) + causes.of_prompt(value))
    found = _shape(value, fault, column)
    if found[-1] == 0:  # however many brackets: which column they were counted for does not matter
        return np.zeros(found)
    if len(found) != dimensions:
        raise fault(f"{found}{causes.of_shape(column, found)}")
    # Whether the last sizes fit is asked where the value is made: models.types.Prompts.
    array = np.array(value, dtype=np.float64)
    if column in (LABELS, EXEMPLAR_LABELS) and (array != np.round(array)).any():
        raise fault("a label that is not a whole number")
    return array


def _literal(text: str, fault: Any) -> object:
    if len(text) > _MAX_LITERAL:
        raise fault(f"{len(text)} characters, more than {_MAX_LITERAL}")
    try:
        return parse_numbers(text.strip())
    except LiteralError as error:
        raise fault(f"{causes.short(text)!r}, which is not a list of numbers{causes.of_prompt_text(text)}") from error


def _shape(value: list[Any] | tuple[Any, ...], fault: Any, column: str, depth: int = 0) -> tuple[int, ...]:
    """The shape of nested lists of numbers, all of one length at each depth."""
    if depth > 3:
        raise fault("a list nested too deeply")
    inner = set()
    for item in value:
        if isinstance(item, list | tuple):
            inner.add(_shape(item, fault, column, depth + 1))
        elif not isinstance(item, int | float) or isinstance(item, bool):
            raise fault(f"{causes.kind(item)} among the numbers{causes.of_number(item)}")
        elif not abs(item) <= _LARGEST:  # nor is NaN
            found = f"{item:g}" if isinstance(item, float) else "a number"  # which may have too many digits to show
            raise fault(f"{found}, which is not from -1e9 to 1e9")
        else:
            inner.add(())
    if len(inner) > 1:
        lengths = " and ".join(str(shape or "numbers") for shape in sorted(inner)[:3])
        raise fault(f"a ragged list of {lengths}{causes.of_ragged(column)}")
    return (len(value), *(inner.pop() if inner else ()))


def resolve_prompts(
    prompts: Prompts | None,
    size_hw: tuple[int, int],
    *,
    normalized: bool,
    row: int,
    absolute: bool = False,
    boxes_column: str = BOXES,
) -> Prompts | None:
    """Prompts in absolute pixels of an image of this size, with boxes that have an area within it; none of none.

    absolute: that they are pixels was said by name. Raises BadRequest for a reversed or empty box, for one wholly
    outside the image, and for what looks like fractions and was not said to be pixels.
    """
    if prompts is None:
        return None
    height, width = size_hw
    if not (normalized or absolute) and max(size_hw) > 1:
        _check_no_fractions(prompts, row, boxes_column)
    if normalized:
        size = np.array([width, height], np.float64)
        points, boxes = prompts.points_xy, prompts.boxes_xyxy
        prompts = Prompts(
            None if points is None else points * size,
            prompts.point_labels,
            None if boxes is None else boxes * np.tile(size, 2),
        )
    if prompts.boxes_xyxy is not None:
        for number, (x1, y1, x2, y2) in enumerate(prompts.boxes_xyxy):
            if x2 <= x1 or y2 <= y1:
                expected = "x1 < x2 and y1 < y2"
            elif x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
                expected = f"a box that meets the image of {width} x {height} (width x height)"
            else:
                continue
            found = ", ".join(f"{value:g}" for value in (x1, y1, x2, y2))
            cause = causes.of_box((x1, y1, x2, y2), size_hw, normalized=normalized)
            raise BadRequest(f"box {number}: expected {expected}, got [{found}]{cause}", row=row, column=boxes_column)
    return prompts


def _check_no_fractions(prompts: Prompts, row: int, boxes_column: str) -> None:
    """Raises BadRequest where every box, or every point, lies in the image's first pixel, as fractions do."""
    for column, array in ((boxes_column, prompts.boxes_xyxy), (POINTS, prompts.points_xy)):
        if array is None or array.min() < 0 or array.max() > 1:
            continue
        if column != POINTS or (array != np.round(array)).any():  # a click on the first pixel is nothing strange
            found = ", ".join(f"{value:g}" for value in array.reshape(-1, array.shape[-1])[0])
            raise BadRequest(f"expected pixels, got [{found}]{causes.of_fractions()}", row=row, column=column)
