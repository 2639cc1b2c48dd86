"""An encoded image file -> RGB uint8 (H, W, 3), within limits.

    decode_image    the encoded file -> pixels
    image_size_hw   the encoded file -> the size that these have, from its header

Raises ImageError, and the caller says where the image stood.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# Pillow registers formats while it looks for one; importing ours here leaves threads nothing to race for.
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from models.images import formats
from models.images.bombs import READS_IN_ALL, CostlyImage, MeteredFile, check
from models.images.orientation import SIDES_SWAPPED, turn_of
from models.images.samples import SampleError, rgb

# Pillow warns at one process-wide limit; `max_pixels` is asked for each image, and before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

MAX_PIXELS = 100_000_000


class ImageError(ValueError):
    """A client's image that cannot be had: says what was expected and what came."""


def decode_image(data: bytes, *, exif_orientation: bool = False, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a JPEG, PNG, WebP, BMP, GIF or TIFF file to RGB uint8 (H, W, 3), C-contiguous and writable.

    exif_orientation: False gives the pixels as they are stored, in TIFF too, which Pillow would turn by
        itself; True gives them as a viewer shows them. H and W are those of the array in either case.

    Of an animation the first frame is taken. Colours are those of Pillow's `convert("RGB")`: alpha is dropped,
    not blended with a background, and CMYK is converted without a colour profile. 16-bit grey keeps its high
    byte, as 16-bit colour does, so 65535 becomes 255. Raises ImageError for any other file, for one that is
    truncated or damaged, and, before decoding, for more than `max_pixels`.
    """
    with opened(data) as image:
        check_pixels(image.size, max_pixels)
        turn = turn_of(image, upright=exif_orientation)  # before load(), which forgets a TIFF's orientation
        image.load()
        upright = rgb(image)
        return np.array(upright if turn is None else upright.transpose(turn))


def image_size_hw(data: bytes, *, exif_orientation: bool = False, max_pixels: int | None = None) -> tuple[int, int]:
    """(height, width) of what `decode_image` makes of the file, from its header. Raises ImageError."""
    with opened(data) as image:
        if max_pixels is not None:
            check_pixels(image.size, max_pixels)
        turned = turn_of(image, upright=exif_orientation) in SIDES_SWAPPED
        return (image.width, image.height) if turned else (image.height, image.width)


def check_pixels(size_xy: tuple[int, int], max_pixels: int) -> None:
    width, height = size_xy
    if not 0 < width * height <= max_pixels:
        raise ImageError(f"expected an image of 1 to {max_pixels} pixels, got {width} x {height}")


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """The file, its header read; whatever Pillow trips over within the context becomes an ImageError."""
    file_format = formats.file_format(data)
    if file_format is None:
        start = f" that start with {data[:16]!r}" if data else ""
        raise ImageError(f"expected a {formats.FORMATS}, got {len(data)} bytes{start}")
    try:
        check(data, file_format)
        file = MeteredFile(data)
        with Image.open(file, formats=(file_format,)) as image:
            file.reads = READS_IN_ALL
            yield image
    except ImageError:
        raise
    except SampleError as error:
        raise ImageError(str(error)) from error
    except CostlyImage as error:
        raise ImageError(f"{error} ({len(data)} bytes)") from error
    # Pillow's parsers end a hostile file with whatever they trip over: OSError, SyntaxError, struct.error,
    # KeyError, ZeroDivisionError, MemoryError... There is no list to keep; only Pillow and numpy run above.
    except Exception as error:
        raise ImageError(
            f"the {file_format} image is truncated, damaged or of an unsupported kind ({len(data)} bytes)"
        ) from error
