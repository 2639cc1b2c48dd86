"""Cut-outs: pictures with an alpha channel, (h, w, 4) uint8 RGBA, which serve as clutter. None is needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np


def load_cutouts(folders: Sequence[Path], limit: int, longest: int = 128) -> list[np.ndarray]:
    """Read up to `limit` cut-outs, (h, w, 4) uint8 RGBA no longer than `longest`, from PNG files under `folders`.

    Pictures whose alpha channel cuts out nothing, or next to nothing, are left out.
    """
    files = sorted(file for folder in folders for file in folder.rglob("*.png"))
    order = np.random.default_rng(0).permutation(len(files))
    cutouts: list[np.ndarray] = []
    for index in order:
        picture = cv2.imread(str(files[index]), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
            continue
        picture = _trim(picture)
        scale = longest / max(picture.shape[:2])
        if min(picture.shape[:2]) * scale < 24:
            continue
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        filled = float((picture[..., 3] > 127).mean())
        if 0.15 < filled < 0.97:
            cutouts.append(np.ascontiguousarray(picture[..., [2, 1, 0, 3]]))
        if len(cutouts) == limit:
            break
    return cutouts


def emoji_cutouts(font: Path, limit: int, longest: int = 128) -> list[np.ndarray]:
    """Draw up to `limit` glyphs of a colour emoji font as cut-outs, as `load_cutouts` returns them."""
    from PIL import Image, ImageDraw, ImageFont

    face = ImageFont.truetype(str(font), 109)  # the one size that bitmap emoji fonts have
    codes = [*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F700), *range(0x1F900, 0x1FA00)]
    cutouts: list[np.ndarray] = []
    for code in codes[: limit * 2]:
        glyph = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(glyph).text((12, 12), chr(code), font=face, embedded_color=True)
        picture = _trim(np.asarray(glyph))
        if min(picture.shape[:2]) >= 48 and len(cutouts) < limit:
            scale = longest / max(picture.shape[:2])
            cutouts.append(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return cutouts


def _trim(picture: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(picture[..., 3] > 8)
    if not rows.size:
        return picture[:1, :1]
    return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@lru_cache(maxsize=1)
def system_cutouts(limit: int = 1200) -> tuple[np.ndarray, ...]:
    """Cut-outs of Debian's `openclipart-png` and `fonts-noto-color-emoji`, whichever is installed; else none."""
    emoji = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    found = load_cutouts([Path("/usr/share/openclipart/png")], limit)
    return (*found, *(emoji_cutouts(emoji, 400) if emoji.exists() else ()))
