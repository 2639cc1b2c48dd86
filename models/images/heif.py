"""HEIC files, which pillow-heif reads where it is installed, and what HEIC and AVIF have in common: HEIF's boxes."""

from __future__ import annotations

import re
from functools import cache

from models.images.formats import CONVERT

LACKING = (
    "this installation lacks what reads it: "
    f"{CONVERT} (an iPhone takes JPEG by Settings > Camera > Formats > Most Compatible), "
    "or install it with pip install 'box2mask[heic]'"
)

# An item's entry: version and flags, its id of 2 or 4 bytes, 2 bytes of protection, its type.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)


@cache
def can_read() -> bool:
    """Whether pillow-heif is here; it is told to Pillow then, for files that are known to be HEIC."""
    try:
        import pillow_heif
    except ImportError:
        return False
    # One thread, as whoever decodes has one for each of several images; and the picture alone.
    pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return True


def without_exif(data: bytes) -> bytes:
    """The file, with its EXIF declared to be something else, of the same length."""
    return _EXIF_ITEM.sub(rb"\1none", data)
