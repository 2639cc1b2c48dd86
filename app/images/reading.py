"""Whatever stands in a request's `image` column (base64 text or a URL) -> RGB uint8 (H, W, 3), within limits.

Knows nothing of rows and columns: it raises ImageError, and the caller says where the image stood.

    image_bytes     base64, `data:` URL or http(s) URL -> the encoded file
    decode_image    the encoded file -> pixels
    image_size_hw   the encoded file -> the size that these have, from its header
    media_type      the encoded file -> what HTTP calls its format
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

# Pillow registers formats while it looks for one; importing ours here leaves threads nothing to race for.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401
)

from app.images.urls import UrlError, UrlMode, fetch
from models.images.bombs import READS_IN_ALL, CostlyImage, MeteredFile, check

if TYPE_CHECKING:
    from app.settings import Settings

# Pillow warns at one process-wide limit; `max_pixels` is asked for each image, and before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

FORMATS = "JPEG, PNG, WebP, BMP, GIF or TIFF image"
_EXPECTED = f"expected base64 or an http(s) URL of a {FORMATS}"

_SIGNATURE = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<WEBP>RIFF.{4}WEBP)"
    rb"|(?P<BMP>BM)|(?P<GIF>GIF8[79]a)|(?P<TIFF>II[*+]\0|MM\0[*+])",
    re.DOTALL,
)
_URLSAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = b" \t\r\n\v\f"
_JSON_NAMES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}

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
_SIDES_SWAPPED = (_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8])
_AS_STORED = _UPRIGHT | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_ORIENTATION_TAG = 0x0112
_MAX_EXIF_BYTES = 2**20  # a PNG may have any number, and each becomes a Python object; JPEG's limit is 64 KB
_LARGE_TEXT, _HEAD_TEXT = 2**20, 2**14  # characters of base64; four of them are three bytes
_PHOTOMETRIC_TAG = 0x0106
_WHITE_IS_ZERO = 0


class ImageError(ValueError):
    """A client's image that cannot be had: says what was expected and what came."""


@dataclass(frozen=True)
class ImageLimits:
    """What one image may cost.

    max_pixels: width x height, known from the header before decoding, which takes 7 to 11 bytes for each.
    max_bytes: the encoded file, posted or fetched.
    urls: which URLs are fetched: see `app.images.urls`.
    url_timeout_s: the whole of a fetch, from name look-up to last byte, redirects included.
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 64 * 2**20
    urls: UrlMode = "public"
    url_timeout_s: float = 10.0

    @classmethod
    def of(cls, settings: Settings) -> ImageLimits:
        """As the settings have them."""
        return cls(
            max_pixels=settings.max_image_pixels,
            max_bytes=int(settings.max_image_mb * 2**20),
            urls=settings.image_urls,
            url_timeout_s=settings.url_timeout_s,
        )


DEFAULT_LIMITS = ImageLimits()


def image_bytes(value: object, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The encoded file that `value` holds or points at.

    value: base64 text, in either alphabet, with or without white space, padding and a `data:...;base64,`
        prefix; or an http(s) URL. Raises ImageError for anything else, for more than `max_bytes`, and, without
        taking megabytes apart, for a large base64 text whose first bytes say that it has more than `max_pixels`.
    """
    if not isinstance(value, str):
        raise ImageError(f"{_EXPECTED}, got {_JSON_NAMES.get(type(value), type(value).__name__)}")
    head = value[:64].lstrip().lower()
    if is_url(value):
        try:
            data = fetch(value.strip(), limits.urls, max_bytes=limits.max_bytes, timeout_s=limits.url_timeout_s)
        except UrlError as error:
            raise ImageError(str(error)) from error
    else:
        text = value.partition(",")[2] if _is_base64_data_url(value, head) else value
        _check_head(text, limits.max_pixels)
        data = _from_base64(text)
    if len(data) > limits.max_bytes:
        raise ImageError(f"expected an image of at most {limits.max_bytes} bytes, got {len(data)}")
    return data


def is_url(value: object) -> bool:
    """Whether `image_bytes` would fetch it."""
    return isinstance(value, str) and value[:64].lstrip().lower().startswith(("http://", "https://"))


def decode_image(
    data: bytes, *, exif_orientation: bool = False, max_pixels: int = DEFAULT_LIMITS.max_pixels
) -> np.ndarray:
    """Decode a JPEG, PNG, WebP, BMP, GIF or TIFF file to RGB uint8 (H, W, 3), C-contiguous and writable.

    exif_orientation: False gives the pixels as they are stored, in TIFF too, which Pillow would turn by
        itself; True gives them as a viewer shows them. H and W are those of the array in either case.

    Of an animation the first frame is taken. Colours are those of Pillow's `convert("RGB")`: alpha is dropped,
    not blended with a background, and CMYK is converted without a colour profile. 16-bit grey keeps its high
    byte, as 16-bit colour does, so 65535 becomes 255. Raises ImageError for any other file, for one that is
    truncated or damaged, and, before decoding, for more than `max_pixels`.
    """
    with _opened(data) as image:
        _check_pixels(image.size, max_pixels)
        turn = _turn(image, upright=exif_orientation)  # before load(), which forgets a TIFF's orientation
        image.load()
        rgb = _rgb(image)
        return np.array(rgb if turn is None else rgb.transpose(turn))


def image_size_hw(data: bytes, *, exif_orientation: bool = False, max_pixels: int | None = None) -> tuple[int, int]:
    """(height, width) of what `decode_image` makes of the file, from its header. Raises ImageError."""
    with _opened(data) as image:
        if max_pixels is not None:
            _check_pixels(image.size, max_pixels)
        turned = _turn(image, upright=exif_orientation) in _SIDES_SWAPPED
        return (image.width, image.height) if turned else (image.height, image.width)


def media_type(data: bytes) -> str:
    """The media type of a file that `decode_image` takes, "image/jpeg" say, from its first bytes."""
    signature = _SIGNATURE.match(data)
    return f"image/{str(signature.lastgroup).lower()}" if signature else "application/octet-stream"


def _check_pixels(size_xy: tuple[int, int], max_pixels: int) -> None:
    width, height = size_xy
    if not 0 < width * height <= max_pixels:
        raise ImageError(f"expected an image of 1 to {max_pixels} pixels, got {width} x {height}")


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The file, its header read; whatever Pillow trips over within the context becomes an ImageError."""
    signature = _SIGNATURE.match(data)
    if signature is None:
        start = f" that start with {data[:16]!r}" if data else ""
        raise ImageError(f"expected a {FORMATS}, got {len(data)} bytes{start}")
    file_format = str(signature.lastgroup)
    try:
        check(data, file_format)
        file = MeteredFile(data)
        with Image.open(file, formats=(file_format,)) as image:
            file.reads = READS_IN_ALL
            yield image
    except ImageError:
        raise
    except CostlyImage as error:
        raise ImageError(f"{error} ({len(data)} bytes)") from error
    # Pillow's parsers end a hostile file with whatever they trip over: OSError, SyntaxError, struct.error,
    # KeyError, ZeroDivisionError, MemoryError... There is no list to keep; only Pillow and numpy run above.
    except Exception as error:
        raise ImageError(
            f"the {file_format} image is truncated, damaged or of an unsupported kind ({len(data)} bytes)"
        ) from error


def _turn(image: Image.Image, *, upright: bool) -> Image.Transpose | None:
    """What `image`, opened but not loaded, will need after load() to be upright, or to be as it is stored.

    Its `size` is that of before this turn: Pillow states a TIFF's as it will be after load().
    """
    is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    if upright == is_tiff:  # Pillow turns a TIFF upright as it loads, and no other format
        return None
    return (_AS_STORED if is_tiff else _UPRIGHT).get(_orientation(image))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 of an opened image; 1 where there is none, or none that can be read."""
    if len(image.info.get("exif") or b"") > _MAX_EXIF_BYTES:
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # as in decode_image: damaged metadata ends anyhow, and the pixels may be whole
        return 1
    return orientation if isinstance(orientation, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    """A decoded image of any mode as mode RGB."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise ImageError("expected 8 or 16 bits per sample, got floating point, which has no fixed range")
    if image.mode.startswith("I"):  # I;16 and I;16B, or I: integers of up to 32 bits
        return _high_byte(image).convert("RGB")
    # What is transparent is of no use to RGB, and Pillow spends time and a warning on carrying it over.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def _high_byte(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey, mode L; Pillow's own conversion clips at 255 instead of scaling."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError(f"expected samples of 0 to 65535, got {values.min()} to {values.max()}")
    grey = (values >> 8).astype(np.uint8)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        grey = 255 - grey
    return Image.fromarray(grey)


def _is_base64_data_url(value: str, head: str) -> bool:
    if not head.startswith("data:"):
        return False
    header = value[:256].partition(",")[0]
    if not header.rstrip().lower().endswith(";base64"):
        raise ImageError(f"{_EXPECTED}, got a data: URL that is not ;base64: {header[:64]!r}")
    return True


def _check_head(text: str, max_pixels: int) -> None:
    """Raises ImageError for more than `max_pixels`; what the beginning does not say is found out later."""
    if len(text) < _LARGE_TEXT:
        return
    try:
        with _opened(binascii.a2b_base64(text[:_HEAD_TEXT])) as image:
            size = image.size
    except ValueError:  # not plain base64, or the header goes on
        return
    _check_pixels(size, max_pixels)


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)  # most are plain, and megabytes need no copies
    except ValueError:
        pass
    try:
        encoded = text.encode("ascii").translate(_URLSAFE_TO_STANDARD, delete=_WHITESPACE)
        return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        reason = "" if isinstance(error, UnicodeEncodeError) else f" ({error})"
        raise ImageError(f"{_EXPECTED}, got {len(text)} characters, {shown!r}{reason}") from error
