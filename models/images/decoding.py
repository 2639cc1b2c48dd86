"""An encoded image file -> RGB uint8 (H, W, 3), within limits. Service, commands and training read all photos by it.

    decode_image    the encoded file -> pixels
    image_size_hw   the encoded file -> the size that these have, from its header
    one_page        the encoded file -> a file with one of its pages or frames

They raise ImageError, and the caller says where the image stood.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

# Pillow registers formats while it looks for one; importing ours here leaves threads nothing to race for.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from models.images import formats, heif, pages, samples
from models.images.bombs import READS_IN_ALL, CostlyImage, MeteredFile, MeteredPath, check
from models.images.orientation import SIDES_SWAPPED, is_sideways, turn_of
from models.images.samples import Reading, SampleError

# Pillow warns at one process-wide limit; `max_pixels` is asked for each image, and before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

# Whoever decodes has a thread for each of several images.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

MAX_PIXELS = 100_000_000


class ImageError(ValueError):
    """An image that cannot be had: says what was expected and what came."""


@dataclass(frozen=True)
class Decoded:
    """What a file holds, all of it read.

    picture: of mode RGB, before `turn`. size_hw: after it. stored_hw: before any turn by EXIF. reading: the rule by
    which samples of more than 8 bits were read. page_count: 1 where nobody asked.
    """

    picture: Image.Image
    turn: Image.Transpose | None
    size_hw: tuple[int, int]
    stored_hw: tuple[int, int]
    reading: Reading | None
    page_count: int

    def pixels(self) -> np.ndarray:
        """RGB uint8 (H, W, 3), C-contiguous and writable."""
        return np.array(self.picture if self.turn is None else self.picture.transpose(self.turn))


def decode_image(
    data: bytes, *, exif_orientation: bool = False, max_pixels: int = MAX_PIXELS, page: int = 1
) -> np.ndarray:
    """Decode a file of one of `formats.FORMATS` to RGB uint8 (H, W, 3), C-contiguous and writable.

    exif_orientation: False gives the pixels as they are stored, in TIFF too, which Pillow would turn by
        itself; True gives them as a viewer shows them. H and W are those of the array in either case. HEIC and AVIF
        have a turn of their own, which is a part of the picture: it is always applied, and EXIF's is not.
    page: of a file with several pages or frames, counted from 1. Of a file with one, that.

    Colours are those of Pillow's `convert("RGB")`: alpha is dropped, not blended with a background, and CMYK is
    converted without a colour profile. `models.images.samples` says what becomes of more than 8 bits. Raises
    ImageError for any other file, for one that is truncated or damaged or has fewer pages, and, before decoding, for
    more than `max_pixels`.
    """
    return decode(data, exif_orientation=exif_orientation, max_pixels=max_pixels, page=page).pixels()


def decode(
    data: bytes, *, exif_orientation: bool, max_pixels: int = MAX_PIXELS, page: int = 1, count_pages: bool = False
) -> Decoded:
    """As `decode_image`, with what else there is to know. count_pages: which takes reading on in some files."""
    with opened(data) as image:
        page_count = pages.count(image) if count_pages else 1
        if page != 1:
            pages.turn_to(image, page)
        check_pixels(image.size, max_pixels)
        deep = samples.may_need_low_bytes(image)  # before a turn is asked for, for which Pillow loads a PNG
        turn = turn_of(image, upright=exif_orientation)  # before load(), which forgets a TIFF's orientation
        sideways = is_sideways(image)
        image.load()
        picture, reading = samples.rgb(image)
        if deep and samples.are_all_low(high := np.asarray(picture)):
            with opened(data, page) as again:
                picture, reading = samples.of_low_bytes(again, high)
    width, height = picture.size
    size_hw = (width, height) if turn in SIDES_SWAPPED else (height, width)
    stored_hw = size_hw[::-1] if sideways and exif_orientation else size_hw
    return Decoded(picture, turn, size_hw, stored_hw, reading, page_count)


def image_size_hw(
    data: bytes | Path, *, exif_orientation: bool = False, max_pixels: int | None = None, page: int = 1
) -> tuple[int, int]:
    """(height, width) of what `decode_image` makes of the file, from its header. Raises ImageError.

    data: or the file's path, of which no more than the header is read. Raises OSError then, too.
    """
    with opened(data, page) as image:
        if max_pixels is not None:
            check_pixels(image.size, max_pixels)
        turned = turn_of(image, upright=exif_orientation) in SIDES_SWAPPED
        return (image.width, image.height) if turned else (image.height, image.width)


def one_page(data: bytes, page: int) -> bytes:
    """The file itself, if it has a single page or frame; else a PNG of one of them, upright. Raises ImageError."""
    with opened(data) as image:
        if pages.count(image) == 1:
            return data
    file = BytesIO()
    Image.fromarray(decode_image(data, exif_orientation=True, page=page)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def check_pixels(size_xy: tuple[int, int], max_pixels: int) -> None:
    """Raises ImageError for more pixels, or none."""
    width, height = size_xy
    if not 0 < width * height <= max_pixels:
        raise ImageError(f"expected an image of 1 to {max_pixels} pixels, got {width} x {height}")


@contextmanager
def opened(data: bytes | Path, page: int = 1) -> Iterator[Image.Image]:
    """The file, its header read; whatever Pillow trips over within the context becomes an ImageError.

    data: or the path of a file that is not to be decoded. Raises OSError for one that cannot be read.
    """
    if isinstance(data, bytes):
        with _opened(data, len(data), MeteredFile(data), page) as image:
            yield image
    else:
        with MeteredPath(data) as file:
            head = file.read(formats.HEAD)
            file.seek(0)
            with _opened(head, data.stat().st_size, file, page) as image:
                yield image


@contextmanager
def _opened(head: bytes, size: int, file: MeteredFile | MeteredPath, page: int) -> Iterator[Image.Image]:
    """head: all of the file, or enough of it to know the format by."""
    file_format = formats.file_format(head)
    if file_format is None:
        raise ImageError(_unknown(head, size))
    if file_format == "HEIF" and not heif.can_read():
        raise ImageError(f"expected a {formats.FORMATS}, got HEIC, and {heif.LACKING}")
    try:
        if len(head) == size:
            check(head, file_format)
        with _open(file, file_format) as image:
            file.reads = READS_IN_ALL
            if page != 1:
                pages.turn_to(image, page)
            yield image
    except ImageError:
        raise
    except (SampleError, pages.PageError) as error:
        raise ImageError(str(error)) from error
    except CostlyImage as error:
        raise ImageError(f"{error} ({size} bytes)") from error
    # Pillow's parsers end a hostile file with whatever they trip over: OSError, SyntaxError, struct.error,
    # KeyError, ZeroDivisionError, MemoryError... There is no list to keep; only Pillow and numpy run above.
    except Exception as error:
        raise ImageError(
            f"the {formats.name(file_format)} image is truncated, damaged or of an unsupported kind ({size} bytes)"
        ) from error


def _open(file: MeteredFile | MeteredPath, file_format: str) -> Image.Image:
    try:
        return Image.open(file, formats=(file_format,))
    except Exception:
        if file_format != "AVIF":
            raise
    # Alone of all formats, this one is refused for its EXIF, if that is damaged.
    file.seek(0)
    return Image.open(BytesIO(heif.without_exif(file.read())), formats=(file_format,))


def _unknown(head: bytes, size: int) -> str:
    other = formats.other_format(head)
    if other is not None:
        return f"expected a {formats.FORMATS}, got {other} ({size} bytes): {formats.CONVERT}"
    start = f" that start with {head[:16]!r}" if head else ""
    return f"expected a {formats.FORMATS}, got {size} bytes{start}"
