"""How an image is turned upright: what its EXIF orientation asks for, and which turn of its pixels that is."""

from __future__ import annotations

from PIL import AvifImagePlugin, Image, TiffImagePlugin

# EXIF orientation -> the transpose that shows the image upright, and the one that undoes it.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDES_SWAPPED = (_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8])
_AS_STORED = _UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_ORIENTATION_TAG = 0x0112
_MAX_EXIF_BYTES = 2**20  # a PNG may have any number, and each becomes a Python object; JPEG's limit is 64 KB


def turn_of(image: Image.Image, *, upright: bool) -> Image.Transpose | None:
    """What `image`, opened but not loaded, will need after load() to be upright, or to be as it is stored.

    Its `size` is that of before this turn: Pillow states a TIFF's as it will be after load().
    """
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    if isinstance(image, AvifImagePlugin.AvifImageFile):  # Pillow states the container's own turn as if it were EXIF's
        upright = True
    if upright == is_tiff:  # Pillow turns a TIFF upright as it loads, and no other format
        return None
    return (_AS_STORED if is_tiff else _UPRIGHT).get(orientation_of(image))


def is_sideways(image: Image.Image) -> bool:
    """Whether `image`, opened but not loaded, is stored with the sides exchanged that it is shown with."""
    as_shown, as_stored = (turn_of(image, upright=upright) in SIDES_SWAPPED for upright in (True, False))
    return as_shown != as_stored


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1..8 of an opened image; 1 where there is none, or none that can be read."""
    if len(image.info.get("exif") or b"") > _MAX_EXIF_BYTES:
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # as in decode_image: damaged metadata ends anyhow, and the pixels may be whole
        return 1
    return orientation if isinstance(orientation, int) else 1
