"""Keeps an image for later requests of its client to name."""

from __future__ import annotations

from typing import Any

from app.errors import BadRequest
from app.images.store import reference_of
from app.scoring.row_image import image_file
from app.scoring.scorer import Scorer
from models.images.decoding import ImageError, image_size_hw


async def keep_image(scorer: Scorer, client: str, source: bytes | str) -> dict[str, Any]:
    """Keep an image, its file or the URL of one, for later requests of this client to name.

    Gives `{"image": "sha256:...", "width": W, "height": H, "upright": {"width": W, "height": H}}`, the size of the
    pixels as stored, and as they are with `exif_orientation`. Raises BadRequest.
    """

    def check(image: bytes) -> tuple[str, dict[str, int], dict[str, int]]:
        stored_hw = image_size_hw(image, max_pixels=scorer.limits.max_pixels)
        upright_hw = image_size_hw(image, exif_orientation=True)
        return reference_of(image), _width_and_height(stored_hw), _width_and_height(upright_hw)

    engine = scorer.engine
    try:
        image = source if isinstance(source, bytes) else await engine.fetch(image_file, source, scorer.limits)
        reference, stored, upright = await engine.aside(check, image)
    except ImageError as error:
        raise BadRequest(str(error)) from error
    try:
        scorer.store.put(client, reference, image)
    except ValueError as error:
        raise BadRequest(f"this service keeps no image of that size: {error}") from error
    return {"image": reference, **stored, "upright": upright}


def _width_and_height(size_hw: tuple[int, int]) -> dict[str, int]:
    height, width = size_hw
    return {"width": width, "height": height}
