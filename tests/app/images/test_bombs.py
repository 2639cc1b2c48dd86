"""Files that are cheap to send and dear to read are refused, and what real programs write is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageFile

from app.images import reading
from app.images.reading import image_bytes
from benchmarks.reliability.bomb_files import DECODED, REFUSED, decompression_bomb, progressive_scans
from models.images import bombs
from models.images.bombs import CostlyImage, MeteredFile, check
from models.images.decoding import ImageError, decode_image, image_size_hw

as_served = pytest.mark.filterwarnings("ignore")


def test_a_large_bomb_is_refused_by_its_first_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = base64.b64encode(decompression_bomb()).decode()
    monkeypatch.setattr(reading, "_from_base64", lambda text: pytest.fail("all of it was taken apart"))
    with pytest.raises(ImageError, match="^expected an image of 1 to 100000000 pixels, got 50000 x 50000$"):
        image_bytes(text)


@pytest.mark.parametrize("changed", [lambda text: text, lambda text: "\n" + text, lambda text: "!" + text[1:]])
def test_what_the_first_bytes_do_not_say_is_found_out_later(changed: Callable[[str], str]) -> None:
    """A JPEG whose size comes after megabytes of comments; base64 that is not plain; what is none at all."""
    file = BytesIO()
    Image.new("RGB", (9, 7)).save(file, "JPEG")
    comments = (b"\xff\xfe\xff\xff" + bytes(65533)) * 20
    data = file.getvalue()[:2] + comments + file.getvalue()[2:]
    text = changed(base64.b64encode(data).decode())
    if text.startswith("!"):
        with pytest.raises(ImageError, match="^expected base64"):
            image_bytes(text)
    else:
        assert image_bytes(text) == data
        assert image_size_hw(data) == (7, 9)


@as_served
@pytest.mark.parametrize("name", [name for name in REFUSED if not name.startswith("BMP")])
def test_bombs_are_refused_by_their_header(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = REFUSED[name](6 * 2**20)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("the image was decoded"))
    with pytest.raises(ImageError, match="^expected a|^the PNG image is truncated"):
        decode_image(bomb, exif_orientation=True)


def test_runs_of_a_bmp_are_counted_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.images.decoding.READS_IN_ALL", 10_000)
    with pytest.raises(ImageError, match=r"^expected an image in fewer pieces \(\d+ bytes\)$"):
        decode_image(REFUSED["BMP, runs"](2**20))


@as_served
@pytest.mark.parametrize("name", [name for name in DECODED if not name.startswith("JPEG")])
def test_what_costs_little_is_decoded(name: str) -> None:
    assert decode_image(DECODED[name](2**20), exif_orientation=True).shape[2] == 3


def test_scans_are_counted_by_the_pixels_they_go_over() -> None:
    for scans, side in ((20, 10_000), (2_000, 1_000), (9_000, 64)):
        check(progressive_scans(scans, side), "JPEG")
    for scans, side in ((21, 10_000), (2_001, 1_000), (10_000, 64)):
        with pytest.raises(CostlyImage):
            check(progressive_scans(scans, side), "JPEG")
    assert decode_image(progressive_scans(20, 64)).shape == (64, 64, 3)


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (300, 200, 3), dtype=np.uint8))


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_what_looks_like_a_scan_in_the_metadata_is_none() -> None:
    """A thumbnail is a JPEG within the JPEG, and a profile may hold any bytes."""
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 10
    marks = {"comment": b"\xff\xda\0\x02" * 10_000, "icc_profile": b"\xff\xda" * 50_000}
    data = saved(photo(), "JPEG", progressive=True, exif=exif, **marks)
    check(data, "JPEG")
    assert decode_image(data).shape == (300, 200, 3)


@pytest.mark.parametrize("strips", [300, 20_000])
def test_a_tiff_of_a_strip_to_each_line_is_decoded(strips: int) -> None:
    image = photo().resize((8, strips))
    data = saved(image, "TIFF", tiffinfo={278: 1}, strip_size=1)
    np.testing.assert_array_equal(decode_image(data), np.asarray(image))


def test_no_file_is_read_without_end() -> None:
    file = MeteredFile(b"abc", reads=2)
    assert (file.read(1), file.read()) == (b"a", b"bc")
    with pytest.raises(CostlyImage, match="^expected an image in fewer pieces$"):
        file.read(1)
    assert bombs.READS_OF_HEADER < bombs.READS_IN_ALL


def peak_mb(pid: int, *, reset: bool = False) -> float:
    """The most memory that a process has had since the last reset, in MB (2^20 bytes)."""
    process = Path(f"/proc/{pid}")
    if reset:
        (process / "clear_refs").write_text("5")
    return int((process / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def test_a_decompression_bomb_costs_the_service_little_more_than_its_own_size(service: Any) -> None:
    bomb = decompression_bomb()
    assert 5e6 < len(bomb) < 6e6
    content = {"input_data": {"columns": ["image"], "data": [base64.b64encode(bomb).decode()]}}
    body = json.dumps(content).encode()
    del content
    with httpx.Client(base_url=service.url, timeout=60) as http:
        http.get("/health/ready").raise_for_status()
        before = peak_mb(service.process.pid, reset=True)
        response = http.post("/yolof/score", content=body)
    assert response.status_code == 400
    assert response.json() == {"message": "row 0, image: expected an image of 1 to 100000000 pixels, got 50000 x 50000"}
    assert peak_mb(service.process.pid) - before < 40  # twice the goal: what Python gives back to the system varies
