"""What stands for a photo when a replica is chosen: the same for its bytes, their base64 and their reference."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from app.contract import schemas
from app.images.reading import ImageLimits, image_bytes, is_url
from app.images.store import is_reference, reference_of
from models.images.decoding import ImageError

if TYPE_CHECKING:
    from app.label_studio.asked import Asked

# Where there is no photo: any replica will do.
ANY = ""


def images(request: schemas.Request) -> list[object]:
    """What stands for a photo in each row; [] where the request has none."""
    if schemas.IMAGE not in request.columns:
        return []
    place = request.columns.index(schemas.IMAGE)
    # A single column may come in the flat form.
    rows = [row if isinstance(row, list) else [row] for row in request.data]
    return [row[place] if place < len(row) else None for row in rows]


def of_image(value: object, limits: ImageLimits) -> str:
    """Of what stands in a request for a photo. A URL stands for itself: what is there is not known yet."""
    if not isinstance(value, str):
        return ANY
    if is_reference(value):
        return value
    if is_url(value):
        return _of_text(value.strip())
    try:
        return reference_of(image_bytes(value, limits))
    except ImageError:  # whoever answers says why
        return ANY


def of_label_studio(asked: Asked) -> str:
    """Of the first task's photo, by its address: that of its pre-labels and of the smart tools' clicks."""
    data = asked.tasks[0].get("data")
    for tag in asked.interface.images:
        address = data.get(tag.field) if isinstance(data, dict) else None
        if isinstance(address, str):
            return _of_text(address)
    return ANY


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
