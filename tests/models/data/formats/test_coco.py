"""COCO as other people write it, and what is said of it when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from models.data import DataError, load
from tests.models.data.without_photos import read


def coco(path: Path, *annotations: Any, **changes: Any) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8}],
        "categories": [{"id": 3, "name": "can"}, {"id": 1, "name": "carton"}],
        "annotations": [
            {"id": index, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]} | annotation
            for index, annotation in enumerate(annotations)
        ],
    }
    path.write_text(json.dumps(content | changes, indent=1))
    return path


def test_ids_of_text_and_classes_in_the_order_of_the_file(tmp_path):
    images = [{"id": "10", "file_name": "a.png", "height": 6, "width": 8}]
    path = coco(tmp_path / "x.json", {"image_id": "10", "category_id": 1, "iscrowd": 1}, images=images)
    dataset = load(path)
    assert dataset.class_names == ("can", "carton")
    [(image, one)] = dataset.annotations()
    assert (one.label, one.box_xyxy, one.crowd, one.has_mask) == ("carton", (1, 2, 4, 6), True, False)
    assert one.place.line == path.read_text().splitlines().index('   "id": 0,') and image.path == tmp_path / "a.png"


def test_both_kinds_of_run_lengths_are_the_same_mask(tmp_path):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:7] = 1
    mask[2, 3] = 0
    packed = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    path = coco(
        tmp_path / "x.json",
        {"segmentation": {"size": [6, 8], "counts": runs}},
        {"segmentation": {"size": [6, 8], "counts": packed}, "bbox": None},
    )
    first, second = (one for _, one in load(path).annotations())
    assert first.rle == second.rle == {"size": [6, 8], "counts": packed}
    assert second.box_xyxy == (2, 1, 7, 4)
    assert np.array_equal(first.mask((6, 8)), mask.astype(bool))


def test_a_size_that_is_not_stated_is_that_of_the_image_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.jpg", exif=exif)
    (tmp_path / "annotations").mkdir()
    coco(tmp_path / "annotations" / "x.json", images=[{"id": 7, "file_name": "a.jpg"}])
    [image] = load(tmp_path).images
    assert image.size_hw == (8, 6) and image.path.is_file()


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"image_id": 8}, "image_id: expected the id of an image, found 8"),
        ({"image_id": [8]}, "image_id: expected an integer or text, found [8]"),
        ({"category_id": 2}, "category_id: expected the id of a category, found 2"),
        ({"bbox": [1, 2, 3]}, "bbox: expected [x, y, width, height], found [1, 2, 3]"),
        ({"bbox": [1, 2, "3a", 4]}, "bbox: expected a number, found '3a'"),
        ({"bbox": [1, 2, "3,5", 4]}, "bbox: expected a number, found '3,5' (write the decimals after a point)"),
        ({"bbox": [1, 2, True, 4]}, "bbox: expected a number, found True"),
        ({"bbox": [1, 2, 1e300, 4]}, "bbox: expected coordinates of at most 1000000 pixels, found 1 2 1e+300 6"),
        ({"segmentation": [[1, 2, 2e8, 4, 5, 6]]}, "expected coordinates of at most 1000000 pixels, found 200000000"),
        ({"segmentation": [[0, 0, 9e5, 0] * 5]}, "expected an outline of at most 4000000 pixels, found 9000000"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "[0.1, 0.2, 0.3, 0.4] lies within the first pixel: are these fractions"),
        ({"bbox": [1, 2, float("nan"), 4]}, "bbox: expected a number, found nan"),
        ({"bbox": [1, 2, 10**400, 4]}, "bbox: expected a number, found 1000"),
        ({"bbox": [1, 2, -1, 4]}, "found 1 2 0 6 (inverted)"),
        ({"bbox": None}, "bbox: expected a box or a segmentation, found neither"),
        ({"iscrowd": "many"}, "iscrowd: expected 0 or 1, found 'many'"),
        ({"segmentation": [1, "two", 3, 4, 5, 6]}, "segmentation[0]: expected a number, found 'two'"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, "expected [6, 8], the image's, found [8, 6]"),
        ({"segmentation": {"size": [6, 8], "counts": [47]}}, "expected runs that fill 48 pixels, found [47]"),
        ({"segmentation": {"size": [6, 8], "counts": [49, -1]}}, "expected runs that fill 48 pixels, found [49, -1]"),
        ({"segmentation": {"size": [6, 8], "counts": [48, "0"]}}, "expected a list of lengths or text"),
        ({"segmentation": {"size": [6, 8], "counts": ""}}, "COCO's compressed text, whole, found ''"),
        ({"segmentation": {"size": [6, 8], "counts": "~"}}, "COCO's compressed text, found '~'"),
        ({"segmentation": {"size": [6, 8], "counts": "_"}}, "COCO's compressed text, whole, found '_'"),
        ({"segmentation": {"size": [6, 8], "counts": "5"}}, "expected runs that fill 48 pixels, found '"),
        ({"segmentation": {"size": [6, 8], "counts": "_7"}}, "expected runs that fill 48 pixels, found '"),
    ],
)
def test_an_annotation_that_is_wrong_is_named_and_the_others_stay(tmp_path, annotation, reason):
    path = coco(tmp_path / "x.json", {}, annotation, {})
    dataset, [problem] = read(path)
    assert sum(1 for _ in dataset.annotations()) == 2
    assert problem.place.file == path and problem.fatal
    lines = path.read_text().splitlines()
    assert '"id": 1' in lines[problem.place.line]  # the line after the one that the annotation starts on
    assert problem.reason.startswith("annotations[1] (id 1): ") and reason in problem.reason
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value) == f"{path}:{problem.place.line}: {problem.reason}"


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        (
            {"images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8.5}]},
            ["images[0] (id 7): width: expected a whole number", "annotations[0] (id 0): its image could not be read"],
        ),
        ({"images": [{"id": 7}]}, ["images[0] (id 7): file_name: expected text, found nothing", "its image"]),
        (
            {"images": [{"id": 7, "file_name": "a.png"}]},
            ["images[0] (id 7): the image file {tmp}/a.png is missing", "its image"],
        ),
        (
            {"images": [{"id": 7, "file_name": "s3://a.png", "height": 6, "width": 8}]},
            ["images[0] (id 7): file_name: expected a path", "its image"],
        ),
        ({"images": [3]}, ["images[0]: expected an object, found 3", "image_id: expected the id of an image"]),
        (
            {"categories": [{"id": 3, "name": "can"}, {"id": 3, "name": "carton"}]},
            ["categories[1] (id 3): id: expected each id once, found 3 again"],
        ),
    ],
)
def test_images_and_categories_that_are_wrong_are_named(tmp_path, changes, reasons):
    _, problems = read(coco(tmp_path / "x.json", {}, **changes))
    assert len(problems) == len(reasons)
    for problem, reason in zip(problems, reasons, strict=True):
        assert reason.format(tmp=tmp_path) in problem.reason
        assert problem.place.line


def test_an_id_that_is_there_twice_is_told_and_harms_nothing(tmp_path):
    path = coco(tmp_path / "x.json", {"id": 5}, {"id": 5})
    _, [problem] = read(path)
    assert "annotations[1] (id 5): id: expected each id once" in problem.reason and not problem.fatal
    assert sum(1 for _ in load(path).annotations()) == 2


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('{"images": [],\n "annotations": [}', 2, "not JSON: Expecting value"),
        ('{"images": [],\n "annotations": []\n', 3, "not JSON: Expecting ','"),
        ("[]", 1, "not JSON: Expecting '{'"),
        ('{"images": [], "annotations": {}}', None, "not COCO: expected lists images, annotations, categories"),
        ('{"a": ' + "[" * 100_000, None, "cannot be read"),
        ("\xff", None, "cannot be read"),
    ],
)
def test_a_file_that_is_not_coco_is_refused_with_its_line(tmp_path, content, line, reason):
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        read(path)
    [problem] = caught.value.problems
    assert (problem.place.file, problem.place.line) == (path, line) and problem.reason.startswith(reason)
