"""LabelMe's files: shapes of every type, groups of them, masks as pictures."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import Annotation, find, load, read, write
from models.data.parsing.shapes import encoded, mask_of

SIZE_HW = (100, 200)
GOOD = {"label": "can", "points": [[60, 50], [20, 10]], "group_id": None, "shape_type": "rectangle", "flags": {}}
BOX = (20.0, 10.0, 60.0, 50.0)
PICTURE = np.array([[0, 1, 1], [1, 0, 0]], bool)
MASK = np.zeros(SIZE_HW, bool)
MASK[10:12, 20:23] = PICTURE


def picture(mask: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "can", "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


@pytest.fixture
def labelled(tmp_path: Path):
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "a.jpg")

    def make(*shapes: Any, **more: Any) -> Path:
        content = {"version": "5", "flags": {}, "shapes": shapes, "imagePath": "a.jpg", "imageData": None}
        (tmp_path / "a.json").write_text(json.dumps({**content, "imageHeight": 100, "imageWidth": 200, **more}))
        return tmp_path

    return make


PART, OTHER = (20.0, 10.0, 60.0, 10.0, 60.0, 50.0), (80.0, 60.0, 90.0, 60.0, 90.0, 70.0)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([GOOD], Annotation("can", BOX)),
        ([shape("polygon", [[20, 10], [60, 10], [60, 50]])], Annotation("can", BOX, (PART,))),
        ([shape(None, [[20, 10], [60, 10], [60, 50]], flags=None)], Annotation("can", BOX, (PART,))),
        (
            [shape("polygon", np.reshape(part, (-1, 2)).tolist(), group_id=3) for part in (PART, OTHER)],
            Annotation("can", (20.0, 10.0, 90.0, 70.0), (PART, OTHER)),
        ),
        (
            [shape("mask", [[20, 10], [22, 11]], mask=picture(PICTURE))],
            Annotation("can", (20.0, 10.0, 23.0, 12.0), rle=encoded(MASK)),
        ),
    ],
)
def test_every_shape(labelled, shapes, expected):
    folder = labelled(*shapes)
    assert find(folder) == ("labelme", folder) and find(folder / "a.json")[0] == "labelme"
    dataset, problems = read(folder)
    assert dataset.class_names == ("can",) and dataset.images[0].path == folder / "a.jpg"
    assert dataset.images[0].annotations == (expected,) and problems == []


def test_a_circle_is_a_polygon_and_lines_are_counted(labelled):
    dataset, problems = read(labelled(shape("circle", [[50, 50], [50, 60]]), shape("line", [[1, 2], [3, 4]])))
    (circle,) = dataset.images[0].annotations
    assert circle.box_xyxy == (40.0, 40.0, 60.0, 60.0)
    assert abs(circle.mask(SIZE_HW).sum() - np.pi * 100) < 15
    assert [one.reason for one in problems] == [
        "1 circles are read as polygons",
        "1 shapes of type line are no boxes or masks: left out",
    ]


def test_classes_are_those_that_the_folder_lists(labelled):
    folder = labelled(GOOD)
    (folder / "labels.txt").write_text("__ignore__\n_background_\nzebra\ncan\n")
    assert load(folder).class_names == ("zebra", "can")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (3, "expected an object, found 3"),
        (shape("rectangle", [[1, 2]]), "points: expected 2 pairs of x and y"),
        (shape("rectangle", [[1, 2], [3]]), "points: expected 2 pairs of x and y"),
        (shape("rectangle", [[1, 2], [3, "x"]]), "points: expected a number, found 'x'"),
        (shape("rectangle", [[1, 2], [3, 1e300]]), "points: expected at most 1000000 pixels"),
        (shape("rectangle", None), "points: expected 2 pairs of x and y, found nothing"),
        (shape("circle", [[1, 2], [3, 1e300]]), "points: expected at most 1000000 pixels"),
        (shape("polygon", [[1, 2], [3, 4]]), "expected at least 3 points, found 2"),
        (shape("polygon", [[1, 2], [3, 4], [5, 1e300]]), "expected coordinates of at most"),
        (shape("polygon", [[1, 2], [3, 4], [5, float("nan")]]), "expected a number, found nan"),
        (shape("star", []), "shape_type: expected polygon, rectangle, circle or mask, found 'star'"),
        (shape("polygon", [[1, 2], [3, 4], [5, 9]], label=None), "label: expected text, found nothing"),
        (shape("mask", [[0, 0], [2, 1]]), "mask: expected a picture in base64, found nothing"),
        (shape("mask", [[0, 0], [2, 1]], mask="%%"), "mask: expected a picture in base64"),
        (shape("mask", [[0, 0], [2, 1]], mask="AAAA"), "mask: expected a picture"),
        (
            shape("mask", [[199, 0], [202, 1]], mask=picture(PICTURE)),
            "mask: expected one within the image of 200 x 100",
        ),
        (shape("mask", [[-1e6, 0], [2, 1]], mask=picture(PICTURE)), "mask: expected one within the image"),
    ],
)
def test_a_bad_shape_is_named_and_takes_no_other_with_it(labelled, bad, reason):
    dataset, problems = read(labelled(GOOD, bad))
    assert [one.box_xyxy for one in dataset.images[0].annotations] == [BOX]
    (problem,) = problems
    assert problem.fatal and problem.reason.startswith("shapes[1]: ") and reason in problem.reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("b.json", '{"shapes": [], "imagePath"', "not JSON"),
        ("b.json", '{"shapes": 3, "imagePath": "a.jpg"}', "shapes: expected a list, found 3"),
        ("b.json", '{"shapes": [], "imagePath": 3}', "imagePath: expected text, found 3"),
        ("b.json", '{"shapes": [], "imagePath": "c.jpg"}', "c.jpg is missing"),
        (
            "b.json",
            '{"shapes": [], "imagePath": "a.jpg", "imageHeight": 1e9, "imageWidth": 5}',
            "imageHeight: expected",
        ),
        ("c.json", "[]", "passed over"),
    ],
)
def test_a_bad_file_is_named_and_takes_no_other_with_it(labelled, name, content, reason):
    folder = labelled(GOOD)
    (folder / name).write_text(content)
    dataset, problems = read(folder)
    assert [image.name for image in dataset.images] == ["a.jpg"]
    (problem,) = [one for one in problems if one.place.file.name == name]
    assert reason in problem.reason


def test_an_image_that_is_only_inside_its_file(labelled, tmp_path):
    folder = labelled(GOOD, imageData="AAAA")
    (folder / "a.jpg").unlink()
    _, problems = read(folder)
    assert "1 images are only inside their JSON files" in problems[0].reason


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_comes_back(scatter, tmp_path, seed):
    dataset = scatter(seed)
    write(dataset, tmp_path / "out", "labelme")
    again = load(tmp_path / "out", crowds="as-crowds")
    assert again.class_names == dataset.class_names
    for before, after in zip(dataset.images, again.images, strict=True):
        assert (after.name, after.size_hw) == (before.name, before.size_hw)
        for one, other in zip(before.annotations, after.annotations, strict=True):
            mask = mask_of(one, before.size_hw)
            assert (other.label, other.crowd) == (one.label, one.crowd)
            if one.polygons is not None and other.has_mask:
                assert other.polygons == one.polygons
            elif one.rle is not None and mask is not None:
                assert np.array_equal(other.mask(after.size_hw), mask)
            else:
                assert (other.box_xyxy, other.has_mask) == (one.box_xyxy, False)
