"""What `check` finds, each thing once, and nothing in a data set that is sound."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from models.data import Annotation, Dataset, LabelledImage, Place, check, counts, load

BOX = Annotation("can", (1.0, 1.0, 5.0, 6.0))
TRIANGLE = (0.0, 0.0, 8.0, 0.0, 8.0, 10.0)
RLE = {"size": [10, 8], "counts": "02c1"}


@pytest.fixture
def image(tmp_path: Path) -> LabelledImage:
    path = tmp_path / "1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (10, 8, 3), np.uint8)).save(path)
    return LabelledImage(path, (10, 8), (BOX,), Place(tmp_path / "x.jsonl", 3))


def reasons(*images: LabelledImage, classes: tuple[str, ...] | None = None) -> list[str]:
    problems = check(Dataset(("can", "carton"), images), classes)
    assert all(str(problem.place).endswith("x.jsonl:3") and not problem.fatal for problem in problems)
    return [problem.what for problem in problems]


def holding(image: LabelledImage, *annotations: Annotation) -> LabelledImage:
    return dataclasses.replace(image, annotations=annotations)


def test_a_sound_data_set_has_no_problems(image):
    whole = Annotation("can", (0.0, 0.0, 8.0, 10.0), polygons=(TRIANGLE,))
    other = dataclasses.replace(whole, label="carton")
    masked = Annotation("can", (0.0, 0.0, 8.0, 10.0), rle=RLE)
    url = LabelledImage("https://example.org/1.png", (10, 8), (BOX,))
    assert reasons(holding(image, BOX, whole, other, masked), url, classes=("can", "carton")) == []


def test_files_that_are_missing_or_unreadable(image, tmp_path):
    missing = dataclasses.replace(image, path=tmp_path / "2.png")
    cut = dataclasses.replace(image, path=tmp_path / "3.png")
    cut.path.write_bytes(image.path.read_bytes()[:-200])
    text = dataclasses.replace(image, path=tmp_path / "4.png")
    text.path.write_text("hello")
    found = reasons(image, missing, cut, text)
    assert found[0] == f"the image file {missing.path} is missing"
    assert found[1].startswith(f"the image file {cut.path} cannot be read (")
    assert found[2].startswith(f"the image file {text.path} cannot be read (expected a JPEG, PNG, ")
    assert found[2].endswith("HEIC image, got 5 bytes that start with b'hello')")
    assert len(found) == 3


def test_sizes_that_are_not_those_of_the_file(image, tmp_path):
    assert reasons(dataclasses.replace(image, size_hw=(8, 10), annotations=())) == [
        f"{image.path}: expected 10 x 8 pixels, as the data set says, found 8 x 10 pixels"
    ]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 10))  # 9 means nothing
def test_sizes_are_those_of_the_upright_picture(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"1{suffix}"
    Image.new("RGB", (8, 10)).save(path, exif=exif)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).size
    assert upright == ((10, 8) if 5 <= orientation <= 8 else (8, 10))
    entry = {"id": 1, "file_name": path.name}
    (tmp_path / "x.json").write_text(json.dumps({"images": [entry], "annotations": [], "categories": []}))
    dataset = load(tmp_path / "x.json")  # its size is taken from the file
    [image] = dataset.images
    assert image.size_hw == upright[::-1]
    assert check(dataset) == []
    [problem] = check(Dataset((), (dataclasses.replace(image, size_hw=upright),)))
    assert f"found {upright[0]} x {upright[1]} pixels" in problem.reason
    assert ("after the turn" in problem.reason) == (upright == (10, 8))


def test_boxes_and_polygons_that_cannot_be(image):
    boxes = [
        dataclasses.replace(BOX, box_xyxy=(5.0, 1.0, 1.0, 6.0)),
        dataclasses.replace(BOX, box_xyxy=(1.0, 1.0, 1.0, 6.0)),
        dataclasses.replace(BOX, box_xyxy=(-0.5, 1.0, 2.0, 6.0)),
        dataclasses.replace(BOX, box_xyxy=(1.0, 1.0, 8.5, 6.0)),
        dataclasses.replace(BOX, box_xyxy=(1.0, 1.0, 2.0, 10.5)),
        dataclasses.replace(BOX, polygons=(TRIANGLE, (1.0, 1.0, 2.0, 2.0))),
        dataclasses.replace(BOX, polygons=((0.0, 0.0, 8.25, 0.0, 8.0, 10.0),)),
    ]
    found = reasons(holding(image, *boxes))
    expected = [
        "1.png: can 5 1 1 6: expected x1 < x2 and y1 < y2, found an inverted box",
        "1.png: can 1 1 1 6: expected x1 < x2 and y1 < y2, found an empty box",
        "1.png: can -0.5 1 2 6: the box reaches outside the image of 8 x 10 pixels",
        "1.png: can 1 1 8.5 6: the box reaches outside the image of 8 x 10 pixels",
        "1.png: can 1 1 2 10.5: the box reaches outside the image of 8 x 10 pixels",
        "1.png: can 1 1 5 6: expected polygons of 3 points or more, found 2",
        "1.png: can 1 1 5 6: a polygon reaches outside the image of 8 x 10 pixels",
    ]
    assert found == expected


def test_what_is_there_twice(image, tmp_path):
    copy = dataclasses.replace(image, path=tmp_path / "copy.png")
    shutil.copyfile(image.path, copy.path)
    link = dataclasses.replace(image, path=tmp_path / "link.png")
    link.path.symlink_to(image.path)
    masked = dataclasses.replace(BOX, rle=RLE)
    found = reasons(holding(image, BOX, masked, BOX, masked), copy, link)
    assert found == [
        "1.png: can 1 1 5 6: the same object is there already",
        "1.png: can 1 1 5 6: the same object is there already",
        f"{copy.path}: the same content as {image.path}",
        f"{link.path}: the same image as in {image.place}",
    ]


def test_classes_that_are_not_expected(image):
    assert reasons(image, classes=("carton",)) == ["1.png: can 1 1 5 6: unknown class 'can': expected one of carton"]
    [problem] = check(Dataset(("can", "carton"), (image,)), ["can"])
    assert problem.reason == "unknown classes without objects, carton: expected one of can"


def test_counts(image):
    crowd = dataclasses.replace(BOX, crowd=True, polygons=(TRIANGLE,))
    can, carton = counts(Dataset(("can", "carton"), (image, holding(image, BOX, crowd), holding(image))))
    assert (can.name, can.objects, can.images, can.masks, can.crowds) == ("can", 3, 2, 1, 1)
    assert (carton.name, carton.objects, carton.images) == ("carton", 0, 0)
