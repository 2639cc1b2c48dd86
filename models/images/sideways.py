"""Photos that a camera stored on their side, and the way of a point from there to where it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import AvifImagePlugin, TiffImagePlugin

from models.images.decoding import opened
from models.images.orientation import is_sideways, orientation_of

_HEAD = 2**16  # bytes in which a file says that it has EXIF; a JPEG in its first kilobyte
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Sideways:
    """A photo that is stored on its side. stored_hw, upright_hw: its (height, width) before and after the turn."""

    stored_hw: tuple[int, int]
    orientation: int

    @property
    def upright_hw(self) -> tuple[int, int]:
        return self.stored_hw[1], self.stored_hw[0]

    def upright(self, x: float, y: float) -> tuple[float, float]:
        """A point of the stored photo, in pixels from its top left corner -> the same point of the upright one."""
        height, width = self.stored_hw
        return {5: (y, x), 6: (height - y, x), 7: (height - y, width - x), 8: (y, width - x)}[self.orientation]

    def turn(self, mask: np.ndarray) -> np.ndarray:
        """A mask (H, W) of the stored photo -> (W, H), that of the upright one."""
        if self.orientation in (6, 8):
            return np.rot90(mask, -1 if self.orientation == 6 else 1)
        return mask.T if self.orientation == 5 else mask[::-1, ::-1].T


def stored_sideways(path: Path) -> Sideways | None:
    """How the image file is stored, if that is on its side by EXIF; None for all others, HEIC and AVIF among them.

    Most files are known by their first kilobytes to have no EXIF at all. Raises OSError, and ImageError for a file that
    is no image.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] not in _TIFF and b"Exif" not in head and b"eXIf" not in head and b"EXIF" not in head:
        return None
    with opened(path) as image:
        if isinstance(image, AvifImagePlugin.AvifImageFile) or not is_sideways(image):
            return None
        as_stored = (image.height, image.width)
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # stated as of after its turn
            as_stored = as_stored[::-1]
        orientation = orientation_of(image)
    return Sideways(as_stored, orientation) if orientation in (5, 6, 7, 8) else None
