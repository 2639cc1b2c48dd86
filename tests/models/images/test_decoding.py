"""Images of every format and mode decode to the right colours; hostile ones end in an ImageError and nothing else."""

from __future__ import annotations

import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageFile

from models.images.decoding import ImageError, decode_image, image_size_hw
from tests.models.images.upright import UPRIGHT

COLOURS = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 255), (0, 0, 0), (255, 255, 0)]], np.uint8)
LUMA = np.array([[76, 150, 29], [255, 0, 226]], np.uint8)  # of COLOURS, by ITU-R 601
TILE = 16


def tiled(tiles: np.ndarray) -> np.ndarray:
    """Every entry of (h, w[, C]) as a square that lossy formats cannot blur the middle of."""
    return tiles.repeat(TILE, axis=0).repeat(TILE, axis=1)


def middles(image: np.ndarray) -> np.ndarray:
    return image[TILE // 2 :: TILE, TILE // 2 :: TILE].astype(int)


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, pixels: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG from nothing but its specification: for the kinds that Pillow reads but does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    stride = len(pixels) // height
    rows = b"".join(b"\0" + pixels[row * stride : (row + 1) * stride] for row in range(height if pixels else 0))
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)


def grey(values: np.ndarray) -> np.ndarray:
    return np.stack([values] * 3, axis=-1)


# --- formats and modes


@pytest.mark.parametrize(
    ("file_format", "mode", "options", "tolerance"),
    [
        ("JPEG", "RGB", {"quality": 95, "subsampling": 0}, 3),
        ("JPEG", "RGB", {"quality": 90, "progressive": True}, 6),
        ("JPEG", "CMYK", {"quality": 95}, 6),
        ("PNG", "RGB", {}, 0),
        ("PNG", "RGBA", {}, 0),
        ("PNG", "P", {}, 0),
        ("PNG", "P", {"bits": 4}, 0),
        ("WEBP", "RGB", {"lossless": True}, 0),
        ("WEBP", "RGBA", {"lossless": True}, 0),
        ("WEBP", "RGB", {"quality": 95}, 12),
        ("BMP", "RGB", {}, 0),
        ("BMP", "RGBA", {}, 0),
        ("BMP", "P", {}, 0),
        ("GIF", "P", {}, 0),
        ("GIF", "P", {"interlace": False}, 0),
        ("TIFF", "RGB", {}, 0),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}, 0),
        ("TIFF", "RGB", {"compression": "tiff_deflate"}, 0),
        ("TIFF", "RGB", {"compression": "jpeg", "quality": 95}, 12),
        ("TIFF", "RGB", {"big_tiff": True}, 0),
        ("TIFF", "RGBA", {}, 0),
        ("TIFF", "CMYK", {}, 0),
        ("TIFF", "P", {}, 0),
        ("TIFF", "YCbCr", {}, 3),
        ("TIFF", "LAB", {}, 24),  # 8-bit Lab is coarse at the gamut's corners
    ],
)
def test_colours(file_format, mode, options, tolerance):
    picture = Image.fromarray(tiled(COLOURS))
    picture = picture.quantize(6) if mode == "P" else picture.convert(mode)
    image = decode_image(encoded(picture, file_format, **options))
    assert image.shape == (2 * TILE, 3 * TILE, 3)
    assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
    assert np.abs(middles(image) - COLOURS).max() <= tolerance


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [(file_format, "L") for file_format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")]
    + [("PNG", "LA"), ("TIFF", "LA"), ("WEBP", "LA")],
)
def test_grey_and_grey_alpha(file_format, mode):
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = decode_image(encoded(Image.fromarray(tiled(COLOURS)).convert(mode), file_format, **options))
    assert np.abs(middles(image) - grey(LUMA)).max() <= 1


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("PNG", {}), ("BMP", {}), ("GIF", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"})],
)
def test_one_bit(file_format, options):
    bits = np.random.default_rng(0).random((9, 13)) > 0.5
    image = decode_image(encoded(bits, file_format, **options))
    np.testing.assert_array_equal(image, grey(bits * np.uint8(255)))


SIXTEEN_BIT = np.array([[0, 255, 256, 4095], [32768, 65279, 65280, 65535]], np.uint16)
EIGHT_BIT = np.array([[0, 0, 1, 15], [128, 254, 255, 255]], np.uint8)


def tiff_i16_white_is_zero() -> bytes:
    """Pillow writes only BlackIsZero; flip tag 262 of what it wrote."""
    black_is_zero = struct.pack("<HHII", 262, 3, 1, 1)
    data = encoded(65535 - SIXTEEN_BIT, "TIFF")
    assert data.count(black_is_zero) == 1
    return data.replace(black_is_zero, struct.pack("<HHII", 262, 3, 1, 0))


@pytest.mark.parametrize(
    "data",
    [
        encoded(SIXTEEN_BIT, "PNG"),
        encoded(SIXTEEN_BIT, "TIFF"),
        encoded(SIXTEEN_BIT, "TIFF", compression="tiff_lzw"),
        encoded(Image.frombytes("I;16B", (4, 2), SIXTEEN_BIT.astype(">u2").tobytes()), "TIFF"),
        encoded(SIXTEEN_BIT.astype(np.int32), "TIFF"),
        tiff_i16_white_is_zero(),
        png(4, 2, 16, 2, SIXTEEN_BIT.repeat(3).astype(">u2").tobytes()),
        png(4, 2, 16, 4, np.stack([SIXTEEN_BIT, SIXTEEN_BIT[::-1]], -1).astype(">u2").tobytes()),
        png(4, 2, 16, 6, np.stack([SIXTEEN_BIT] * 3 + [SIXTEEN_BIT[::-1]], -1).astype(">u2").tobytes()),
    ],
    ids=["PNG", "TIFF", "TIFF-lzw", "TIFF-MM", "TIFF-32", "TIFF-white-is-zero", "PNG-rgb", "PNG-la", "PNG-rgba"],
)
def test_sixteen_bits_keep_the_high_byte(data):
    np.testing.assert_array_equal(decode_image(data), grey(EIGHT_BIT))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.array([[0.0, 1e6]], np.float32), "floating point of 0 to 1, 255 or 65535, got 0 to 1e\\+06"),
        (np.array([[0, 65536]], np.int32), "got 0 to 65536"),
        (np.array([[-1, 5]], np.int32), "got -1 to 5"),
    ],
)
def test_samples_without_a_known_range_are_refused(samples, message):
    with pytest.raises(ImageError, match=message):
        decode_image(encoded(samples, "TIFF"))


def test_alpha_is_dropped_not_blended():
    rgba = np.dstack([tiled(COLOURS), np.zeros(tiled(LUMA).shape, np.uint8)])
    np.testing.assert_array_equal(decode_image(encoded(rgba, "PNG")), tiled(COLOURS))


@pytest.mark.parametrize("transparency", [1, bytes([0, 128, 255])])
@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_palette_transparency_is_dropped_without_a_warning(file_format, transparency):
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.putdata([0, 1, 2])
    options = {"transparency": transparency} if isinstance(transparency, int) or file_format == "PNG" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_image(encoded(picture, file_format, **options))
    assert image.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.parametrize(("colour_type", "key"), [(0, b"\0\x07"), (2, b"\0\x07" * 3)])
def test_a_transparent_colour_is_kept_as_a_colour(colour_type, key):
    pixels = bytes([7, 9]) if colour_type == 0 else bytes([7, 7, 7, 9, 9, 9])
    image = decode_image(png(2, 1, 8, colour_type, pixels, (b"tRNS", key)))
    assert image.tolist() == [[[7, 7, 7], [9, 9, 9]]]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several(file_format):
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = decode_image(encoded(red, file_format, save_all=True, append_images=[blue], **options))
    np.testing.assert_array_equal(image, np.asarray(red))


@pytest.mark.parametrize(
    ("file_format", "longest"),
    [("JPEG", 20_000), ("PNG", 20_000), ("WEBP", 16_383), ("BMP", 20_000), ("GIF", 20_000), ("TIFF", 20_000)],
)
@pytest.mark.parametrize("shape", ["pixel", "wide", "tall", "odd"])
def test_sizes(file_format, longest, shape):
    size_hw = {"pixel": (1, 1), "wide": (1, longest), "tall": (longest, 1), "odd": (7, 3)}[shape]
    image = decode_image(encoded(np.full((*size_hw, 3), 200, np.uint8), file_format))
    assert image.shape == (*size_hw, 3)
    assert np.abs(image.astype(int) - 200).max() <= 2


# --- orientation


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_ignored_by_default_and_honoured_when_asked(file_format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(file_format, {})
    data = encoded(tiled(COLOURS), file_format, exif=exif, **options)
    stored = decode_image(data)
    upright = decode_image(data, exif_orientation=True)
    assert np.abs(middles(stored) - COLOURS).max() <= 3
    assert np.abs(middles(upright) - UPRIGHT[orientation](COLOURS)).max() <= 3
    assert stored.flags.c_contiguous and upright.flags.c_contiguous
    assert image_size_hw(data) == stored.shape[:2]
    assert image_size_hw(data, exif_orientation=True) == upright.shape[:2]


def test_orientation_of_sixteen_bit_tiff():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(SIXTEEN_BIT, "TIFF", exif=exif)
    np.testing.assert_array_equal(decode_image(data), grey(EIGHT_BIT))
    np.testing.assert_array_equal(decode_image(data, exif_orientation=True), np.rot90(grey(EIGHT_BIT), -1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tiff", [b"MM\0*\0\0", b"no TIFF header", b"II*\0\x08\0\0\0\xff\xff"])
def test_damaged_exif_does_not_cost_the_image(file_format, tiff):
    data = encoded(tiled(COLOURS), file_format, exif=b"Exif\0\0" + tiff)
    assert decode_image(data, exif_orientation=True).shape == (2 * TILE, 3 * TILE, 3)


# --- damaged and hostile files


def _photo() -> np.ndarray:
    rows, columns = np.mgrid[0:40, 0:56]
    noise = np.random.default_rng(3).integers(0, 24, (40, 56))
    return np.stack([rows * 5 + noise, columns * 4 + noise, 200 - rows - columns + noise], -1).astype(np.uint8)


PHOTO = Image.fromarray(_photo())
EXIF = Image.Exif()
EXIF[0x0112] = 6
FILES = {
    "JPEG": encoded(PHOTO, "JPEG", exif=EXIF),
    "JPEG progressive": encoded(PHOTO, "JPEG", progressive=True),
    "JPEG CMYK": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "PNG": encoded(PHOTO, "PNG", exif=EXIF),
    "PNG palette": encoded(PHOTO.quantize(200), "PNG", transparency=bytes(range(200))),
    "PNG 16": encoded(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257, "PNG"),
    "WebP": encoded(PHOTO, "WEBP", exif=EXIF),
    "AVIF": encoded(PHOTO, "AVIF", exif=EXIF.tobytes()),
    "WebP lossless": encoded(PHOTO.convert("RGBA"), "WEBP", lossless=True),
    "BMP": encoded(PHOTO, "BMP"),
    "BMP palette": encoded(PHOTO.quantize(200), "BMP"),
    "GIF": encoded(PHOTO, "GIF"),
    "TIFF": encoded(PHOTO, "TIFF", exif=EXIF),
    "TIFF lzw": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "TIFF jpeg": encoded(PHOTO, "TIFF", compression="jpeg"),
    "TIFF 16": encoded(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257, "TIFF", compression="tiff_deflate"),
}
every_file = pytest.mark.parametrize("name", FILES)
# What Pillow warns of in metadata is not under test, and must not become an exception inside it.
as_served = pytest.mark.filterwarnings("ignore")


def decoded_or_refused(data: bytes, *, exif_orientation: bool) -> np.ndarray | None:
    """The image, or None for ImageError; anything else fails the test."""
    try:
        image = decode_image(data, exif_orientation=exif_orientation, max_pixels=1_000_000)
    except ImageError as error:
        assert 10 < len(str(error)) < 250 and "object at 0x" not in str(error)
        return None
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    return image


@every_file
@as_served
def test_truncated_anywhere(name):
    data = FILES[name]
    whole = decode_image(data)
    for percent in range(0, 100, 2):
        for upright in (False, True):
            image = decoded_or_refused(data[: len(data) * percent // 100], exif_orientation=upright)
            # TIFF may keep its directory last or first, and thus lose only metadata; nobody else loses a tenth unseen.
            assert image is None or (percent > 90 and image.shape == whole.shape), f"{percent} %"


@every_file
@as_served
def test_truncated_says_so(name):
    half = FILES[name][: len(FILES[name]) // 2]
    with pytest.raises(ImageError, match=rf"the {name.split()[0].upper()} image is truncated.*\({len(half)} bytes"):
        decode_image(half)


@every_file
@as_served
def test_flipped_bytes(name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for _ in range(300):
        data = bytearray(FILES[name])
        # Headers hold what parsers trip over, so half of the hits go there.
        for _ in range(rng.integers(1, 6)):
            where = rng.integers(0, 160 if rng.random() < 0.5 else len(data))
            data[where % len(data)] = rng.integers(0, 256)
        decoded_or_refused(bytes(data), exif_orientation=bool(rng.random() < 0.5))


@as_served
def test_signatures_followed_by_noise():
    rng = np.random.default_rng(5)
    for data in FILES.values():
        for kept in (2, 4, 8, 12, 16, 30, 60):
            decoded_or_refused(data[:kept] + rng.bytes(500), exif_orientation=True)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello", b"<html><body>Not found</body></html>", b"PK\3\4" + bytes(64)],
)
def test_not_an_image_says_what_came(data):
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert str(caught.value).startswith("expected a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image, ")
    assert f"got {len(data)} bytes" in str(caught.value)
    assert repr(data[:16]) in str(caught.value) or not data


def test_errors_of_every_kind_are_the_images():
    """Pillow reports a chunk without a name, after the first pixels, by SyntaxError."""
    whole = zlib.compress(b"\0" + bytes(9))
    data = png(3, 1, 8, 2, b"", (b"IDAT", whole[:4]), (b"\xff\xfe\xfd\xfc", whole[4:]))
    with pytest.raises(ImageError, match="the PNG image is truncated, damaged") as caught:
        decode_image(data)
    assert isinstance(caught.value.__cause__, SyntaxError)


@as_served
def test_a_signature_does_not_open_the_way_to_other_parsers():
    """Pillow knows a Photo CD by a mark in its middle, so this would pass for one of 768 x 512 pixels."""
    data = bytearray(96 * 2048 + 768 * 512 * 3)
    data[:4], data[2048:2052] = b"II*\0", b"PCD_"
    with pytest.raises(ImageError, match="the TIFF image is truncated"):
        decode_image(bytes(data))


def test_other_formats_that_pillow_reads_are_refused():
    for file_format in ("PPM", "ICO", "PCX", "TGA", "ICNS", "EPS"):
        with pytest.raises(ImageError, match="expected a JPEG"):
            decode_image(encoded(PHOTO.resize((64, 64)), file_format))


def _patched(data: bytes, offset: int, layout: str, *values: int) -> bytes:
    return data[:offset] + struct.pack(layout, *values) + data[offset + struct.calcsize(layout) :]


def _tiff_of_claimed_size(side: int) -> bytes:
    data = encoded(Image.new("RGB", (2, 2)), "TIFF")
    for tag in (256, 257):
        for layout in ("<HHIH", "<HHII"):
            kind = 3 if layout.endswith("H") else 4
            claim = struct.pack(layout, tag, kind, 1, side)
            data = data.replace(struct.pack(layout, tag, kind, 1, 2), claim)
    return data


SMALL = Image.new("RGB", (2, 2))
JPEG_SMALL, GIF_SMALL = encoded(SMALL, "JPEG"), encoded(SMALL, "GIF")
AVIF_SMALL = encoded(SMALL, "AVIF")
BOMBS = {
    "AVIF": _patched(AVIF_SMALL, AVIF_SMALL.index(b"ispe") + 8, ">II", 16_000, 16_000),
    "PNG": png(50_000, 50_000, 8, 2, b""),
    "JPEG": _patched(JPEG_SMALL, JPEG_SMALL.index(b"\xff\xc0") + 5, ">HH", 50_000, 50_000),
    "WebP": _patched(encoded(SMALL, "WEBP"), 26, "<HH", 16_000, 16_000),
    "BMP": _patched(encoded(SMALL, "BMP"), 18, "<ii", 50_000, 50_000),
    "GIF screen": _patched(GIF_SMALL, 6, "<HH", 50_000, 50_000),
    "GIF frame": _patched(GIF_SMALL, GIF_SMALL.index(b",\0\0\0\0\2\0\2\0") + 5, "<HH", 50_000, 50_000),
    "TIFF": _tiff_of_claimed_size(50_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_pixels_are_refused_before_decoding(name, monkeypatch):
    def no_decoding(image: ImageFile.ImageFile) -> None:
        pytest.fail("the image was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_decoding)
    started = time.perf_counter()
    with pytest.raises(ImageError, match="at most|1 to 100000000 pixels, got (50000 x 50000|16000 x 16000)"):
        decode_image(BOMBS[name])
    assert time.perf_counter() - started < 1


def test_max_pixels_is_inclusive_and_alone_decides():
    data = encoded(Image.new("1", (20_000, 10_000)), "PNG")  # Pillow's own limit would refuse 200 megapixels
    with pytest.raises(ImageError, match="expected an image of 1 to 199999999 pixels, got 20000 x 10000"):
        decode_image(data, max_pixels=199_999_999)
    small = encoded(Image.new("L", (20, 10)), "PNG")
    assert decode_image(small, max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(ImageError, match="got 20 x 10"):
        decode_image(small, max_pixels=199)


def test_pillows_own_limit_is_off():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="truncated"):
            decode_image(png(20_000, 10_000, 1, 0, b""), max_pixels=200_000_000)


@as_served
def test_threads():
    """Whole and truncated files side by side: no thread's outcome depends on another's."""
    jobs = [(data, cut) for data in FILES.values() for cut in (False, True)] * 4

    def run(job: tuple[bytes, bool]) -> bool:
        data, cut = job
        return decoded_or_refused(data[: len(data) // 2] if cut else data, exif_orientation=False) is None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, jobs)) == [cut for _, cut in jobs]
