"""Base64 in all its forms becomes the file that it is of; anything else is refused with what came."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image

from app.images.reading import ImageLimits, image_bytes
from models.images.decoding import ImageError, decode_image


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def load_image(value, *, exif_orientation=False, limits=ImageLimits()):  # noqa: B008 - it is frozen
    """Both steps, as the service takes them."""
    data = image_bytes(value, limits)
    return decode_image(data, exif_orientation=exif_orientation, max_pixels=limits.max_pixels)


PIXEL = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")
# Its base64 uses both characters in which the alphabets differ, and needs padding.
AWKWARD = PIXEL + b"\xfb\xff\xfe\xff"
BASE64 = base64.b64encode(AWKWARD).decode()


def test_awkward_bytes_are():
    assert "+" in BASE64 and "/" in BASE64 and BASE64.endswith("=")


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        base64.encodebytes(AWKWARD).decode(),
        base64.encodebytes(AWKWARD).decode().replace("\n", "\r\n"),
        f"  {BASE64}\n\n",
        base64.urlsafe_b64encode(AWKWARD).decode(),
        BASE64.rstrip("="),
        f"data:image/png;base64,{BASE64}",
        f"data:image/png;base64,{base64.encodebytes(AWKWARD).decode()}",
        f"\nDATA:image/png;name=a.png;BASE64,{BASE64}",
        f"data:;base64,{BASE64}",
    ],
)
def test_base64_in_all_its_forms(text):
    assert image_bytes(text) == AWKWARD
    assert decode_image(image_bytes(text)).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize("cut", range(1, 5))
def test_base64_cut_short_is_whole_or_refused(cut):
    text = base64.b64encode(PIXEL).decode().rstrip("=")[:-cut]
    try:
        data = image_bytes(text)
    except ImageError as error:
        assert len(text) % 4 == 1
        assert "characters" in str(error)
    else:
        assert PIXEL.startswith(data[:-1])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("photo.jpg", "got 9 characters, 'photo.jpg'"),
        ("file:///etc/passwd", "'file:///etc/passwd'"),
        ("ftp://host/a.png", "'ftp://host/a.png'"),
        ("b'iVBORw0KGgo='", "iVBORw0KGgo="),
        ("изображение", "got 11 characters"),
        ("data:image/png,abc", "not ;base64: 'data:image/png'"),
        ("data:image/png;base64", "got 0 bytes"),
        ("AAAA=AAA", "got 8 characters"),
        ("=", "got 1 characters"),
        ("", "got 0 bytes"),
        ("AAAA" * 100, r"got 300 bytes that start with b'\x00"),
        ("?" * 1_000_000, "got 1000000 characters, '" + "?" * 40 + "...'"),
    ],
)
def test_text_that_is_no_image(text, told):
    with pytest.raises(ImageError) as caught:
        decode_image(image_bytes(text))
    assert told in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "null"),
        (True, "a boolean"),
        (3, "a number"),
        (float("nan"), "a number"),
        ([BASE64], "a list"),
        ({"image": BASE64}, "an object"),
        (PIXEL, "bytes"),
    ],
)
def test_values_that_are_no_text(value, told):
    with pytest.raises(ImageError, match=rf"expected base64 or an http\(s\) URL of a JPEG.*image, got {told}(;.*)?$"):
        load_image(value)


def test_max_bytes_is_inclusive():
    text = base64.b64encode(PIXEL).decode()
    assert image_bytes(text, ImageLimits(max_bytes=len(PIXEL))) == PIXEL
    with pytest.raises(ImageError, match=f"at most {len(PIXEL) - 1} bytes, got {len(PIXEL)}"):
        image_bytes(text, ImageLimits(max_bytes=len(PIXEL) - 1))


def test_load_image_passes_its_limits_and_orientation_on():
    exif = Image.Exif()
    exif[0x0112] = 6
    text = base64.b64encode(encoded(Image.new("RGB", (56, 40)), "JPEG", exif=exif)).decode()
    assert decode_image(image_bytes(text)).shape == (40, 56, 3)
    assert load_image(text, exif_orientation=True).shape == (56, 40, 3)
    with pytest.raises(ImageError, match="1 to 2239 pixels, got 56 x 40"):
        load_image(text, limits=ImageLimits(max_pixels=2239))
