"""Exemplars in a row of a request to a detector: boxes around objects that show it what to find, or what not.

The columns stand beside the image: `exemplar_boxes`, and `exemplar_labels` with 1 (like this) or 0 (not like this) for
each box. Their lists, or the text of these, are read as those of SAM's prompts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from app.contract.prompts import EXEMPLAR_BOXES, EXEMPLAR_LABELS, read_list, resolve_prompts
from app.errors import BadRequest
from models.types import Exemplars, Prompts

EXEMPLAR_COLUMNS = (EXEMPLAR_BOXES, EXEMPLAR_LABELS)
MOST_EXEMPLARS = 64  # of a row: each is a token that the image attends to


def read_exemplars(values: dict[str, Any], row: int) -> Exemplars | None:
    """A row's exemplars, in the frame in which they were sent; None where it has none. Raises BadRequest."""

    def fault(column: str, expected: str, found: object) -> BadRequest:
        return BadRequest(f"expected {expected}, got {found}", row=row, column=column)

    boxes = read_list(values.get(EXEMPLAR_BOXES), row, EXEMPLAR_BOXES)
    labels = read_list(values.get(EXEMPLAR_LABELS), row, EXEMPLAR_LABELS)
    if labels is not None and not labels.size:
        labels = None
    if boxes is None or not boxes.size:
        if labels is not None:
            raise fault(EXEMPLAR_LABELS, f"{EXEMPLAR_BOXES} to go with the labels", "none")
        return None
    if boxes.shape[1] != 4:
        raise fault(EXEMPLAR_BOXES, "(num_boxes, 4)", boxes.shape)
    if len(boxes) > MOST_EXEMPLARS:
        raise fault(EXEMPLAR_BOXES, f"at most {MOST_EXEMPLARS} boxes", len(boxes))
    if labels is None:
        labels = np.ones(len(boxes))
    if len(labels) != len(boxes):
        raise fault(EXEMPLAR_LABELS, f"one label per box ({len(boxes)})", len(labels))
    for label in np.setdiff1d(labels, (0, 1))[:1]:
        raise fault(EXEMPLAR_LABELS, "labels 1 (like this) or 0 (not like this)", f"{label:g}")
    return _exemplars(boxes, labels)


def resolve_exemplars(
    exemplars: Exemplars | None, size_hw: tuple[int, int], *, normalized: bool, absolute: bool, row: int
) -> Exemplars | None:
    """Exemplars in pixels of an image of this size, see `app.contract.prompts.resolve_prompts`. Raises BadRequest."""
    if exemplars is None:
        return None
    boxes = Prompts(boxes_xyxy=np.array(exemplars.boxes_xyxy))
    found = resolve_prompts(
        boxes, size_hw, normalized=normalized, absolute=absolute, row=row, boxes_column=EXEMPLAR_BOXES
    )
    assert found is not None and found.boxes_xyxy is not None
    return _exemplars(found.boxes_xyxy, np.array(exemplars.labels))


def _exemplars(boxes: np.ndarray, labels: np.ndarray) -> Exemplars:
    return Exemplars(tuple(tuple(box) for box in boxes.tolist()), tuple(int(label) for label in labels.tolist()))
