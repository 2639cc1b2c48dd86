"""Draws boxes, masks and names of objects over an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from models.masks.boxes import box_around

COLORS = [(230, 57, 70), (29, 137, 228), (46, 178, 92), (244, 162, 40), (140, 82, 200), (0, 170, 170)]
_TINT = 0.55  # of a mask's colour; the rest is the image's own


@dataclass(frozen=True, eq=False)
class Outlined:
    """One object to draw.

    box_xyxy: absolute pixels. caption: what is written at the box. mask: (H, W) bool of the image's size, or None.
    """

    box_xyxy: tuple[float, float, float, float]
    caption: str
    mask: np.ndarray | None = None


def draw(image: Image.Image, objects: Sequence[Outlined]) -> Image.Image:
    """The image as RGB with every mask tinted, outlined by its box, and named."""
    picture = image.convert("RGB")
    width = picture.width
    for number, one in enumerate(objects):
        color = COLORS[number % len(COLORS)]
        if one.mask is not None:
            _tint(picture, one.mask, color)
        left, top, right, bottom = one.box_xyxy
        pen = ImageDraw.Draw(picture)
        pen.rectangle((left, top, right, bottom), outline=color, width=max(2, width // 250))
        size = max(12, width // 32)
        corner = (left, max(0, top - 1.3 * size))
        place = pen.textbbox(corner, one.caption, font_size=size)
        pen.rectangle((place[0] - 2, place[1] - 2, place[2] + 2, place[3] + 2), fill=color)
        pen.text(corner, one.caption, fill="white", font_size=size)
    return picture


def _tint(picture: Image.Image, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """Tint the pixels of the mask, and look at no more of the picture than the box around them."""
    box = box_around(mask)
    if box is None:
        return
    left, top, right, bottom = box
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert("RGB")
    tinted = np.asarray(Image.blend(ramp, Image.new("RGB", ramp.size, color), _TINT))  # (1, 256, 3)
    inside = np.ascontiguousarray(mask[top:bottom, left:right]).astype(np.uint8) * np.uint8(255)
    picture.paste(picture.crop(box).point(tinted[0].T.ravel().tolist()), box, Image.fromarray(inside))
