"""Photos as cameras, phones, scanners and laboratories write them: the service and the training see the same pixels.

Every file is written here, byte by byte where no library writes its kind, with the pixels that it means beside it.
"""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from app.cli import main
from app.folders.sources import find_images
from models.data import Dataset, LabelledImage
from models.data.image_files import examine, size_hw
from models.detector import mmcv_ops
from models.images import formats, heif
from models.images.decoding import ImageError, decode_image, image_size_hw, one_page
from models.images.notes import PhotoNotes
from tests.models.images.upright import UPRIGHT

with warnings.catch_warnings():  # torch deprecates what MMEngine imports
    warnings.simplefilter("ignore")
    mmcv_ops.install()
    from models.finetuning.images import LoadImage
    from models.finetuning.photos import check

as_served = pytest.mark.filterwarnings("ignore")  # Pillow's own, of damaged metadata


def encoded(image: Image.Image | np.ndarray, file_format: str, **options: object) -> bytes:
    buffer = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, file_format, **options)
    return buffer.getvalue()


def png(samples: np.ndarray, colour_type: int, *extra: tuple[bytes, bytes]) -> bytes:
    """16-bit samples (H, W) or (H, W, C)."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)


def tiff(*pages: np.ndarray, tags: Sequence[Mapping[int, int]] = (), packed: tuple[int, bytes] | None = None) -> bytes:
    """A TIFF without compression, of pages (H, W) or (H, W, 3); tags: of each page, by number, in place of the usual.

    packed: the bits of a sample and the samples, where they are not whole bytes.
    """
    data = b"II*\0"
    link = len(data)
    data += bytes(4)
    for number, page in enumerate(pages):
        bits, strip = packed or (8 * page.itemsize, page.tobytes())
        channels = page.shape[2] if page.ndim == 3 else 1
        kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        strip_at, bits_at = len(data), len(data) + len(strip)
        data += strip + struct.pack("<3H", bits, bits, bits)
        data += bytes(len(data) % 2)
        own = {256: page.shape[1], 257: page.shape[0], 258: bits if channels == 1 else bits_at, 259: 1}
        own |= {262: 1 if channels == 1 else 2, 273: strip_at, 277: channels, 278: page.shape[0], 279: len(strip)}
        own |= {339: kind, **(tags[number] if tags else {})}
        data = data[:link] + struct.pack("<I", len(data)) + data[link + 4 :]
        data += struct.pack("<H", len(own))
        for tag in sorted(own):
            count = channels if tag == 258 else 1
            short = tag in (258, 262, 281, 339) and count == 1
            data += struct.pack("<HHI", tag, 3 if short or tag == 258 else 4, count)
            data += struct.pack("<HH", own[tag], 0) if short else struct.pack("<I", own[tag])
        link = len(data)
        data += bytes(4)
    return data


def twelve_bits_packed(values: np.ndarray) -> bytes:
    bits = "".join("".join(format(value, "012b") for value in row) for row in values.tolist())
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def grey(*values: int) -> np.ndarray:
    return np.repeat(np.array(values, np.uint8).reshape(2, 2, 1), 3, axis=2)


def samples(*values: float, dtype: Any = np.uint16) -> np.ndarray:
    return np.array(values, dtype).reshape(2, 2)


TWELVE = samples(0, 2048, 100, 4095)
TWELVE_READ = grey(0, 128, 6, 255)
OPAQUE = np.full((2, 2, 1), 65535, np.uint16)
WHITE_IS_ZERO = [{262: 0}]

# What writes such files: the file, and the pixels that it means.
FILES: dict[str, tuple[bytes, np.ndarray]] = {
    "camera, 12 bits in PNG": (encoded(TWELVE, "PNG"), TWELVE_READ),
    "camera, 12 bits in TIFF": (encoded(TWELVE, "TIFF"), TWELVE_READ),
    "camera, 12 bits in LZW TIFF": (encoded(TWELVE, "TIFF", compression="tiff_lzw"), TWELVE_READ),
    "camera, 12 bits packed": (tiff(TWELVE, packed=(12, twelve_bits_packed(TWELVE))), TWELVE_READ),
    "camera, 12 bits, dark and packed": (
        tiff(TWELVE, packed=(12, twelve_bits_packed(TWELVE // 16))),
        TWELVE_READ // 16,
    ),
    "camera, 12 bits, dark and stated": (tiff(samples(0, 128, 160, 255), tags=[{281: 4095}]), grey(0, 8, 10, 15)),
    "camera, 10 bits": (encoded(samples(0, 512, 256, 1023), "PNG"), grey(0, 128, 64, 255)),
    "camera, 8 bits in 16": (encoded(samples(0, 128, 7, 255), "TIFF"), grey(0, 128, 7, 255)),
    "camera, 14 bits stated": (tiff(samples(0, 8192, 64, 16383), tags=[{281: 16383}]), grey(0, 128, 1, 255)),
    "camera, 14 bits unstated": (encoded(samples(0, 8192, 64, 16383), "PNG"), grey(0, 32, 0, 63)),
    "microscope, 12 bits, largest value stated": (
        tiff(samples(0, 2048, 16, 2080), tags=[{281: 2080}]),
        grey(0, 128, 1, 130),
    ),
    "microscope, all 16 bits stated": (tiff(samples(0, 256, 512, 4095), tags=[{281: 65535}]), grey(0, 1, 2, 15)),
    "microscope, stated too small": (tiff(samples(0, 32768, 512, 65535), tags=[{281: 4095}]), grey(0, 128, 2, 255)),
    "scanner, 16 bits": (encoded(samples(0, 32768, 4095, 65535), "PNG"), grey(0, 128, 15, 255)),
    "scanner, 16 bits of colour": (png(np.dstack([samples(0, 32768, 4095, 65535)] * 3), 2), grey(0, 128, 15, 255)),
    "scanner, sBIT": (png(samples(0, 32768, 16, 65520), 0, (b"sBIT", b"\x0c")), grey(0, 128, 0, 255)),
    "camera, 12 bits of colour in PNG": (png(np.dstack([TWELVE] * 3), 2), TWELVE_READ),
    "camera, 12 bits of colour and alpha": (png(np.dstack([TWELVE] * 3 + [OPAQUE]), 6), TWELVE_READ),
    "camera, 12 bits of grey and alpha": (png(np.dstack([TWELVE, OPAQUE]), 4), TWELVE_READ),
    "camera, 12 bits of colour in TIFF": (tiff(np.dstack([TWELVE] * 3)), TWELVE_READ),
    "CT, signed": (tiff(samples(0, 2048, 100, 4095, dtype=np.int16)), TWELVE_READ),
    "labelling tool, 32 bits": (tiff(samples(0, 32768, 256, 65535, dtype=np.int32)), grey(0, 128, 1, 255)),
    "simulation, 0 to 1": (tiff(samples(0, 0.5, 0.2, 1, dtype=np.float32)), grey(0, 128, 51, 255)),
    "simulation, 0 to 255": (tiff(samples(0, 127.6, 51, 255, dtype=np.float32)), grey(0, 128, 51, 255)),
    "simulation, 0 to 65535": (tiff(samples(0, 32768, 256, 65535, dtype=np.float32)), grey(0, 128, 1, 255)),
    "X-ray, WhiteIsZero": (tiff(samples(255, 127, 200, 0, dtype=np.uint8), tags=WHITE_IS_ZERO), grey(0, 128, 55, 255)),
    "X-ray, WhiteIsZero, 16 bits": (tiff(samples(65535, 32767, 65000, 0), tags=WHITE_IS_ZERO), grey(0, 128, 2, 255)),
    "X-ray, WhiteIsZero, 12 bits": (tiff(4095 - TWELVE, tags=WHITE_IS_ZERO), TWELVE_READ),
    "X-ray, WhiteIsZero, floats": (
        tiff(samples(1, 0.5, 0.8, 0, dtype=np.float32), tags=WHITE_IS_ZERO),
        grey(0, 128, 51, 255),
    ),
    "fax": (
        encoded(Image.fromarray(samples(0, 1, 1, 0, dtype=bool)), "TIFF", compression="group4"),
        grey(0, 255, 255, 0),
    ),
    "press, CMYK": (encoded(Image.fromarray(grey(0, 128, 51, 255)).convert("CMYK"), "TIFF"), grey(0, 128, 51, 255)),
    "drawing, palette": (encoded(Image.fromarray(grey(0, 128, 51, 255)).quantize(4), "PNG"), grey(0, 128, 51, 255)),
}


def as_trained(path: Path) -> np.ndarray:
    """What the training sees, as RGB."""
    height, width = size_hw(path)
    return LoadImage()({"img_path": str(path), "height": height, "width": width})["img"][..., ::-1]


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_what_the_file_means_in_the_service_and_in_training(name: str, tmp_path: Path) -> None:
    data, expected = FILES[name]
    (tmp_path / "photo").write_bytes(data)
    np.testing.assert_array_equal(decode_image(data), expected)
    np.testing.assert_array_equal(as_trained(tmp_path / "photo"), expected)
    assert examine(tmp_path / "photo").size_hw == size_hw(tmp_path / "photo") == (2, 2)


@settings(deadline=None, max_examples=60)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"]),
    file_format=st.sampled_from(["PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF", "AVIF"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    orientation=st.integers(1, 8),
    seed=st.integers(0, 9),
)
def test_service_and_training_agree_in_every_mode(
    tmp_path_factory: pytest.TempPathFactory,
    mode: str,
    file_format: str,
    size: tuple[int, int],
    orientation: int,
    seed: int,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))
    try:
        data = encoded(
            picture.convert("L").convert(mode) if mode[0] in "IF" else picture.convert(mode), file_format, exif=exif
        )
    except (OSError, ValueError):  # a mode that the format does not have
        return
    path = tmp_path_factory.mktemp("photo") / "photo"
    path.write_bytes(data)
    np.testing.assert_array_equal(as_trained(path), decode_image(data, exif_orientation=True))
    found = examine(path)
    assert found.stored_hw == decode_image(data).shape[:2] == image_size_hw(data)
    assert found.size_hw == size_hw(path) == image_size_hw(data, exif_orientation=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (samples(0, 1, 5, 70000, dtype=np.int32), "expected samples of 0 to 65535, got 0 to 70000"),
        (samples(-5, 1, 2, 3, dtype=np.int16), "got -5 to 3"),
        (samples(-0.5, 0, 0.2, 1, dtype=np.float32), "expected floating point of 0 to 1, 255 or 65535, got -0.5 to 1"),
        (samples(0, float("nan"), 0, 1, dtype=np.float32), "got nan to nan"),
    ],
)
def test_values_without_a_known_range_say_the_way_out(values: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        decode_image(tiff(values))
    assert str(caught.value).endswith("; save it with 8 bits per sample, as PNG for one")


# --- EXIF that is none

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)


def with_app1(content: bytes) -> bytes:
    jpeg = encoded(PHOTO, "JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def avif_with_damaged_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "camera"
    data = encoded(PHOTO, "AVIF", exif=exif)
    start = data.index(b"MM\0*")
    return data[:start] + b"no TIFF." + data[start + 8 :]


DAMAGED_EXIF: dict[str, bytes] = {
    "no TIFF": with_app1(b"Exif\0\0no TIFF structure"),
    "nothing": with_app1(b"Exif\0\0"),
    "half a header": with_app1(b"Exif\0\0II"),
    "directory outside": with_app1(b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "directory cut off": with_app1(b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"),
    "orientation 99": with_app1(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0"),
    "orientation as text": with_app1(b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x026\0\0\0\0\0\0\0"),
    "XMP without sense": with_app1(b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="9"/>'),
    "PNG": encoded(PHOTO, "PNG", exif=b"Exif\0\0no TIFF structure"),
    "WebP": encoded(PHOTO, "WEBP", exif=b"Exif\0\0no TIFF structure"),
    "AVIF": avif_with_damaged_exif(),
}


@as_served
@pytest.mark.parametrize("name", DAMAGED_EXIF)
def test_exif_that_is_none_is_no_orientation_everywhere(name: str, tmp_path: Path) -> None:
    data, path = DAMAGED_EXIF[name], tmp_path / "photo"
    path.write_bytes(data)
    np.testing.assert_array_equal(decode_image(data, exif_orientation=True), decode_image(data))
    np.testing.assert_array_equal(as_trained(path), decode_image(data))
    assert examine(path).size_hw == examine(path).stored_hw == size_hw(path) == image_size_hw(data) == (6, 10)


# --- pages and frames

PAGES = [np.full((4, 4 + number), 50 * number, np.uint8) for number in range(3)]


def animation(file_format: str, **options: object) -> bytes:
    """A black frame and a dark one."""
    frames = [Image.new("RGB", (4, 4), (level,) * 3) for level in (0, 50)]
    return encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)


SEVERAL = {
    "TIFF": tiff(*PAGES),
    "GIF": animation("GIF"),
    "PNG": animation("PNG"),
    "WebP": animation("WEBP", lossless=True),
    "AVIF": animation("AVIF"),
}
SINGLE = {
    "JPEG of a phone": encoded(PHOTO, "MPO", save_all=True, append_images=[Image.fromarray(PHOTO)]),
    "TIFF with an overview": tiff(*PAGES[:2], tags=[{}, {254: 1}]),
    "TIFF with a mask": tiff(*PAGES[:2], tags=[{}, {254: 4}]),
    "PNG": encoded(PHOTO, "PNG"),
}


def lines_about(files: Mapping[str, bytes], folder: Path, page: int = 1) -> list[str]:
    notes = PhotoNotes(page)
    for number, data in enumerate(files.values()):
        (folder / str(number)).write_bytes(data)
        notes.look(folder / str(number))
    return notes.lines()


def test_more_than_one_page_is_said_once(tmp_path: Path) -> None:
    (line,) = lines_about(SEVERAL, tmp_path)
    first = f"{tmp_path / '0'} (3)"
    assert line == f"5 images have more than one page or frame, {first}: the first is read; --page N reads another"
    assert lines_about(SINGLE, tmp_path) == []


@pytest.mark.parametrize("name", SEVERAL)
def test_a_page_is_read_by_its_number(name: str, tmp_path: Path) -> None:
    data = SEVERAL[name]
    assert decode_image(data).max() <= 1
    second = decode_image(data, page=2)
    assert np.abs(second.astype(int) - 50).max() <= 2
    (tmp_path / "photo").write_bytes(data)
    assert size_hw(tmp_path / "photo", 2) == examine(tmp_path / "photo", 2).size_hw == second.shape[:2]
    np.testing.assert_array_equal(decode_image(one_page(data, 2)), second)
    with pytest.raises(ImageError, match=r"^expected a page from 1 to \d, got 9$"):
        decode_image(data, page=9)


@pytest.mark.parametrize("name", SINGLE)
def test_a_file_with_one_page_is_read_whatever_the_number(name: str) -> None:
    np.testing.assert_array_equal(decode_image(SINGLE[name], page=2), decode_image(SINGLE[name]))
    assert one_page(SINGLE[name], 2) == SINGLE[name]


def test_a_page_behind_a_smaller_copy_is_the_second(tmp_path: Path) -> None:
    data = tiff(*PAGES, tags=[{}, {254: 1}, {}])
    assert decode_image(data, page=2).shape == (4, 6, 3)


def test_how_deep_images_were_read_is_said_once_for_each_rule(tmp_path: Path) -> None:
    twelve = ("camera, 12 bits in PNG", "camera, 12 bits of colour in TIFF")
    names = (*twelve, "camera, 14 bits unstated", "simulation, 0 to 1", "scanner, 16 bits", "press, CMYK")
    lines = lines_about({name: FILES[name][0] for name in names}, tmp_path)
    assert [line.partition(":")[0].partition(" in a ")[0] for line in lines] == [
        "2 images have values of at most 12 bits",
        "1 image has values below 16384",
        "1 image has floating point",
    ]


def test_the_training_is_told_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "stack.tif").write_bytes(SEVERAL["TIFF"])
    notes = PhotoNotes(page=3)
    check(Dataset((), (LabelledImage(tmp_path / "stack.tif", (4, 6), page=3),)), notes)
    (line,) = notes.lines()
    assert "1 image has more than one page or frame" in line and "number 3 is read" in line


def coco(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A data set that leaves the sizes to the images."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    images = [{"id": number, "file_name": name} for number, name in enumerate(files)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def test_data_check_says_pages_and_depths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco(tmp_path, {"stack.tif": SEVERAL["TIFF"], "deep.png": FILES["camera, 12 bits in PNG"][0]})
    assert main(["data", "check", str(source)]) == 0
    said = capsys.readouterr().out
    assert "note: 1 image has more than one page or frame" in said and "note: 1 image has values of at most 12" in said
    assert said.endswith("no problems\n")


def test_page_of_a_data_set_is_the_one_whose_size_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = coco(tmp_path, {"stack.tif": SEVERAL["TIFF"]}), tmp_path / "out.json"
    assert main(["data", "convert", str(source), str(out), "--to", "coco", "--images", "reference", "--page", "3"]) == 0
    assert json.loads(out.read_text())["images"][0]["width"] == 6
    assert main(["data", "check", str(source), "--page", "4"]) == 1
    assert "expected a page from 1 to 3, got 4" in capsys.readouterr().out


# --- phones: HEIC and AVIF

TILE = 16
COLOURS = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 255), (0, 0, 0), (255, 255, 0)]], np.uint8)


def of_a_phone(file_format: str, orientation: int, **options: object) -> bytes:
    """COLOURS as they were shot; the container has the turn that makes them upright, and EXIF says it once more."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "phone"
    picture = Image.fromarray(COLOURS.repeat(TILE, axis=0).repeat(TILE, axis=1))
    picture.info["exif"] = exif.tobytes()
    if file_format == "AVIF":
        options["exif"] = exif
    return encoded(picture, file_format, quality=95, **options)


@pytest.mark.parametrize("file_format", ["AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_containers_turn_is_made_once(file_format: str, orientation: int, tmp_path: Path) -> None:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif")
        assert heif.can_read()
    options = {"chroma": 444} if file_format == "HEIF" else {"subsampling": "4:4:4"}
    data, expected = of_a_phone(file_format, orientation, **options), UPRIGHT[orientation](COLOURS)
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    (tmp_path / "photo").write_bytes(data)
    for pixels in (decode_image(data), decode_image(data, exif_orientation=True), as_trained(tmp_path / "photo")):
        assert np.abs(pixels[TILE // 2 :: TILE, TILE // 2 :: TILE].astype(int) - expected).max() <= 12
    assert image_size_hw(data) == image_size_hw(data, exif_orientation=True) == size_hw(tmp_path / "photo")


def test_a_heic_is_known_by_its_brands_and_counts_as_one_page(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    assert heif.can_read()
    data = encoded(PHOTO, "HEIF", save_all=True, append_images=[Image.fromarray(PHOTO)])
    assert formats.file_format(data) == "HEIF" and formats.media_type(data) == "image/heif"
    assert lines_about({"burst": data}, tmp_path) == []
    assert decode_image(data, page=2).shape == PHOTO.shape
    with pytest.raises(ImageError, match=r"^the HEIC image is truncated, damaged or of an unsupported kind"):
        decode_image(data[: len(data) // 2])
    with pytest.raises(ImageError, match="expected an image of 1 to 59 pixels, got 10 x 6"):
        decode_image(data, max_pixels=59)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_without_the_library_the_message_says_what_to_do(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "can_read", lambda: False)
    data = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(100)
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    said = str(caught.value)
    assert "got HEIC, and" in said and "convert it to JPEG or PNG" in said and "pip install 'box2mask[heic]'" in said


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "JPEG 2000"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01" + bytes(50), "a camera's raw file"),
        (b"\0\0\0\x18ftypmp42" + bytes(50), "a video"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (bytes(128) + b"DICM" + bytes(50), "DICOM"),
        (b"P6\n2 2\n255\n" + bytes(12), "PPM"),
    ],
)
def test_what_is_not_read_is_named_with_the_way_out(data: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=rf"^expected .* image, got {name} \(\d+ bytes\): convert it to JPEG or PNG$"):
        decode_image(data)


def test_folders_know_the_suffixes_of_phones_and_browsers(tmp_path: Path) -> None:
    names = ["a.HEIC", "b.heif", "c.avif", "d.jfif", "e.jpe", "f.hif", "g.tif"]
    for name in (*names, "notes.txt"):
        (tmp_path / name).touch()
    assert [one.name for one in find_images([tmp_path], recursive=False, leave_out=tmp_path / "out").images] == names
