"""YOLO's text files: boxes and outlines, wherever their images, labels and names of classes are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.contract.masks import encode_polygons
from models.data import Annotation, DataError, Dataset, LabelledImage, find, load, read, write
from models.data.parsing.shapes import encoded

SIZE = (200, 100)  # width, height
BOX = (20.0, 10.0, 60.0, 50.0)
LINE = "1 0.2 0.3 0.2 0.4\n"  # BOX in 0..1
YAML = "names: [can, no]\n"


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE).save(path)
    return path


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("image", "label", "listed_in", "listed", "src"),
    [
        ("images/a.jpg", "labels/a.txt", "data.yaml", YAML + "train: images\n", "."),
        ("images/a.jpg", "labels/a.txt", "data.yaml", YAML + "train: images\n", "data.yaml"),
        ("images/train/a.jpg", "labels/train/a.txt", "x.yaml", YAML + "path: ../d\ntrain: images/train\n", "."),
        ("images/train/a.jpg", "labels/train/a.txt", "x.yaml", YAML + "nc: 2\n", "images/train"),
        ("images/train/a.jpg", "labels/train/a.txt", "x.yaml", YAML + "nc: 2\n", "labels/train"),
        ("train/images/a.jpg", "train/labels/a.txt", "data.yaml", YAML + "train: ../train/images\n", "."),
        ("train/images/a.jpg", "train/labels/a.txt", "data.yaml", YAML + "train: ../train/images\n", "train"),
        ("images/a.jpg", "labels/a.txt", "data.yaml", "names: {0: can, 1: no}\ntrain: train.txt\n", "."),
        ("images/a.jpg", "labels/a.txt", "classes.txt", "can\nno\n", "."),
        ("a.jpg", "a.txt", "classes.txt", "can\nno\n", "."),
        ("obj_train_data/a.jpg", "obj_train_data/a.txt", "obj.names", "can\nno\n", "."),
    ],
)
def test_every_tool_s_tree(tmp_path, image, label, listed_in, listed, src):
    folder = tmp_path / "d"
    photo(folder / image)
    text(folder / label, LINE)
    text(folder / listed_in, listed)
    if "train.txt" in listed:
        text(folder / "train.txt", f"./{image}\n")
    assert find(folder / src)[0] == "yolo"
    dataset, problems = read(folder / src)
    assert problems == []
    assert dataset.class_names == ("can", "no")  # and not False, which `no` is in YAML
    (only,) = dataset.images
    assert only.path.samefile(folder / image) and only.size_hw == (100, 200)
    assert only.annotations == (Annotation("no", BOX),)


def test_names_may_have_numbers_of_their_own(tmp_path):
    """labelformat 0.1.17 keeps COCO's ids, from 1 and with gaps."""
    photo(tmp_path / "images/a.jpg")
    text(tmp_path / "labels/a.txt", "9 0.25 0.5 0.1 0.2\n")
    text(tmp_path / "data.yaml", "names:\n  1: cup\n  9: can\nnc: 2\npath: .\ntrain: images\n")
    dataset, problems = read(tmp_path)
    assert problems == [] and dataset.class_names == ("cup", "can")
    assert [one.label for one in dataset.images[0].annotations] == ["can"]


def test_an_outline_is_a_polygon_and_its_box_the_one_around_it(tmp_path):
    photo(tmp_path / "images/a.jpg")
    text(tmp_path / "labels/a.txt", "0 0.1 0.1 0.5 0.1 0.5 0.9\n0 0.1,0.1,0.2,0.2\n")
    text(tmp_path / "classes.txt", "can\n")
    first, second = load(tmp_path).images[0].annotations
    assert first.polygons == ((20.0, 10.0, 100.0, 10.0, 100.0, 90.0),) and first.box_xyxy == (20.0, 10.0, 100.0, 90.0)
    assert second.box_xyxy == (0.0, 0.0, 40.0, 20.0)


def test_what_is_odd_is_said_once(tmp_path):
    for name in ("a", "b", "c"):
        photo(tmp_path / f"images/{name}.jpg")
    text(tmp_path / "labels/a.txt", "0 0.2 0.3 0.2 0.4 0.9\n\n3 0.2 0.3 0.2 0.4 0.8\n")
    dataset, problems = read(tmp_path)
    assert dataset.class_names == ("0", "1", "2", "3")
    assert [problem.reason for problem in problems if not problem.fatal] == [
        "no data.yaml, classes.txt or obj.names says what the classes are called: they are called by their numbers",
        "2 lines end with one more number, a detector's score: it is left out",
        "2 images have no label file: they are taken as images without objects",
    ]
    assert not any(problem.fatal for problem in problems)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2 0.2 0.3 0.2 0.4", "expected one of the 2 classes of .*classes.txt, counted from 0, found 2"),
        ("can 0.2 0.3 0.2 0.4", "expected the number of a class first, found 'can'"),
        ("-1 0.2 0.3 0.2 0.4", "expected the number of a class first, found '-1'"),
        ("1e300 0.2 0.3 0.2 0.4", "counted from 0, found 1"),
        ("0 0.2 0.3 nan 0.4", "number 4: expected a number, found 'nan'"),
        ("0 0.2 0.3 0.4", "expected a class and x y width height, .* found 4 numbers"),
        ("0 20 30 40 50", "expected fractions in 0..1, found 50 \\(pixels\\? --absolute"),
        ("0 1e300 0.3 0.4 0.2", "expected fractions in 0..1, found 1"),
        ("0 0.2 0.3 -0.2 -0.4", "inverted"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.9 0.4", "found 8 numbers .keypoints"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.1", "empty"),
    ],
)
def test_a_bad_line_is_named_and_takes_no_other_with_it(tmp_path, line, reason):
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", f"{LINE}{line}\n{LINE}")
    text(tmp_path / "classes.txt", "can\nno\n")
    dataset, problems = read(tmp_path)
    assert len(dataset.images[0].annotations) == 2
    (problem,) = problems
    assert (problem.place.file, problem.place.line) == (tmp_path / "a.txt", 2)
    with pytest.raises(AssertionError if "empty" in reason else DataError, match=reason):
        assert not problem.fatal or load(tmp_path) is None
        raise AssertionError(problem.reason)


def test_pixels_are_read_where_they_are_asked_for(tmp_path):
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", "0 40 30 40 40\n")
    assert load(tmp_path, normalized=False).images[0].annotations[0].box_xyxy == BOX


def test_turned_boxes_are_refused_with_a_sentence(tmp_path):
    photo(tmp_path / "a.jpg")
    text(tmp_path / "a.txt", "0 0.2 0.2 0.3 0.4 0.25 0.5 0.15 0.3\n")
    with pytest.raises(DataError, match="all 1 objects are turned boxes of four corners .YOLO OBB"):
        load(tmp_path)


def test_keypoints_are_left_out_where_the_yaml_says_how_many(tmp_path):
    photo(tmp_path / "images/a.jpg")
    text(tmp_path / "labels/a.txt", "1 0.2 0.3 0.2 0.4 0.1 0.1 2 0.2 0.2 2\n")
    text(tmp_path / "data.yaml", YAML + "train: images\nkpt_shape: [2, 3]\n")
    dataset, problems = read(tmp_path)
    assert dataset.images[0].annotations == (Annotation("no", BOX),)
    assert "keypoints of 1 objects" in problems[0].reason


def test_labels_whose_images_are_elsewhere(tmp_path):
    text(tmp_path / "d/labels/a.txt", LINE)
    text(tmp_path / "d/classes.txt", "can\nno\n")
    _, problems = read(tmp_path / "d")
    assert any("a is missing" in problem.reason for problem in problems if problem.fatal)
    assert any("--images-root" in problem.reason for problem in problems)
    photo(tmp_path / "photos/a.jpg")
    assert load(tmp_path / "d", images=tmp_path / "photos").images[0].annotations[0].box_xyxy == BOX


def test_two_parts_are_read_as_one_and_said_and_each_can_be_read_alone(tmp_path):
    for part in ("train", "val"):
        photo(tmp_path / f"images/{part}/{part}.jpg")
        text(tmp_path / f"labels/{part}/{part}.txt", LINE)
    text(tmp_path / "data.yaml", YAML + "train: images/train\nval: images/val\n")
    dataset, problems = read(tmp_path)
    assert len(dataset) == 2 and "2 parts are read as one data set" in problems[0].reason
    assert [image.name for image in load(tmp_path / "images/val").images] == ["val.jpg"]


def boxes(tmp_path: Path, *annotations: Annotation) -> Dataset:
    images = [LabelledImage(photo(tmp_path / f"in/{name}.png"), (100, 200), ()) for name in ("b", "a")]
    images[0] = LabelledImage(images[0].path, (100, 200), annotations)
    return Dataset(("zebra", "can", "nothing"), tuple(images))


THIRD = (20 / 3, 10.123457, 66.6, 50.0)
RING = (20.0, 10.0, 100.5, 10.25, 99.0, 90.123456)


@pytest.mark.parametrize("images", ["copy", "link", "reference"])
@pytest.mark.parametrize(
    "one",
    [
        Annotation("can", tuple(round(value, 6) for value in THIRD)),
        Annotation("can", (20.0, 10.0, 100.5, 90.123456), polygons=(RING,)),
    ],
)
def test_what_is_written_comes_back(tmp_path, one, images):
    dataset = boxes(tmp_path, one)
    notes = write(dataset, tmp_path / "out", "yolo", images=images)
    assert len(notes) == (images == "reference")
    again = load(tmp_path / "out")
    assert again.class_names == dataset.class_names
    assert [(image.name, image.annotations) for image in again.images] == [("b.png", (one,)), ("a.png", ())]


def test_what_yolo_cannot_hold_is_counted(tmp_path):
    mask = np.zeros((100, 200), bool)
    mask[10:20, 10:30] = mask[40:50, 10:30] = True
    box = (10.0, 10.0, 30.0, 50.0)
    dataset = boxes(
        tmp_path,
        Annotation("can", box, crowd=True),
        Annotation("can", box),
        Annotation("can", box, rle=encoded(mask)),
        Annotation("can", (0.0, 0.0, 1.0, 1.0), polygons=(RING,)),
    )
    with pytest.raises(ValueError, match="needs an outline"):
        write(dataset, tmp_path / "none", "yolo")
    notes = write(dataset, tmp_path / "out", "yolo", outline=encode_polygons)
    assert sorted(notes) == [
        "1 boxes are not the ones around their masks, which YOLO takes for them",
        "1 boxes written as outlines of four corners, as Ultralytics wants outlines for all or none",
        "1 crowds left out: YOLO has no mark for them",
        "1 outlines of several parts joined to one ring each, of the same pixels",
        "1 run-length encoded masks written as the rings around their pixels",
    ]
    first, second, third = load(tmp_path / "out").images[0].annotations
    assert first.box_xyxy == box and third.polygons == (RING,)
    assert np.array_equal(second.mask((100, 200)), mask)
    outside = boxes(tmp_path, Annotation("can", (-5.0, 0.0, 10.0, 10.0)), Annotation("can", (-5.0, 0.0, -1.0, 10.0)))
    assert len(write(outside, tmp_path / "cut", "yolo")) == 2
    assert [one.box_xyxy for one in load(tmp_path / "cut").images[0].annotations] == [(0.0, 0.0, 10.0, 10.0)]
    address = Dataset(("can",), (LabelledImage("http://host/a.jpg", (1, 1)),))
    with pytest.raises(ValueError, match="no place for an address"):
        write(address, tmp_path / "address", "yolo")
