"""What a detector is to find in a row's image: its own classes, what texts name, or what exemplars show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.contract import causes
from app.contract.prompts import EXEMPLAR_BOXES, EXEMPLAR_LABELS
from app.contract.schemas import Params, Request, Row
from app.errors import BadRequest
from models.detector.protocol import Detector
from models.types import EXEMPLARS_ALONE

OPEN = "Grounding DINO, OWLv2 or SAM 3"


def names_of(
    detector: Detector[Any, Any], params: Params, texts: tuple[str, ...], row: Row, number: int
) -> Sequence[str]:
    """The name of each label that the detector may find in a row: texts, or its own classes'. Raises BadRequest.

    texts: what is found where a request names nothing.
    """
    if row.exemplars is not None:
        return _shown(detector, params, row.exemplars.labels, number)
    if detector.takes_texts:
        texts = params.texts or texts
        if not texts:
            raise BadRequest(
                'params.texts: expected what to find, as ["can", "milk carton"]: this detector has no classes of '
                "its own. BOX2MASK_TEXTS sets them for requests that name none"
            )
        return texts
    if params.texts is not None:
        classes = causes.names(detector.class_names)
        raise BadRequest(
            f"params.texts: this detector finds its own classes: {classes}. Leave texts out, or serve {OPEN} as "
            "BOX2MASK_DETECTOR"
        )
    return detector.class_names


def _shown(detector: Detector[Any, Any], params: Params, labels: tuple[int, ...], number: int) -> Sequence[str]:
    """The one text that exemplars go with, or what stands for it."""
    if not detector.takes_exemplars:
        raise BadRequest(
            "this detector takes no exemplars: leave them out, or serve SAM 3 as BOX2MASK_DETECTOR",
            row=number,
            column=EXEMPLAR_BOXES,
        )
    if params.tiling is not None:
        raise BadRequest(
            "expected none with params.tiles, as most tiles lack the objects that they show: leave one of the two out",
            row=number,
            column=EXEMPLAR_BOXES,
        )
    texts = params.texts or (EXEMPLARS_ALONE,)
    if len(texts) > 1:
        raise BadRequest(f"params.texts: expected one text with exemplars, which show one kind, got {len(texts)}")
    if params.texts is None and 1 not in labels:
        raise BadRequest(
            "expected a label 1, or a text in params.texts: 0 alone says only what not to find, got 0 alone",
            row=number,
            column=EXEMPLAR_LABELS,
        )
    return texts


def check_prompted(request: Request) -> None:
    """Raises BadRequest where a request to a segmenter says in words or by exemplars what to find."""
    way = f"ask /pipeline/score, with {OPEN} as BOX2MASK_DETECTOR, for masks of what they "
    if request.inputs is None and request.params.texts is not None:
        raise BadRequest(f"params.texts: SAM takes points, boxes and masks here: {way}name")
    if EXEMPLAR_BOXES in request.columns:
        way = way.replace(OPEN, "SAM 3")
        raise BadRequest(f"input_data.columns: {EXEMPLAR_BOXES} are no prompts of SAM's: {way}show")
