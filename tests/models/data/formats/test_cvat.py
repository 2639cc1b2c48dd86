"""CVAT for images 1.1: boxes, outlines, masks; what is turned, and what is no object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.data import Annotation, DataError, find, load, read, write
from models.data.parsing.shapes import encoded, mask_of, ring_of

SIZE_HW = (100, 200)
BOX = (20.0, 10.0, 60.0, 50.0)
GOOD = '<box label="can" source="manual" occluded="1" xtl="20.00" ytl="10.00" xbr="60.00" ybr="50.00" z_order="0"/>'
MASK = np.zeros(SIZE_HW, bool)
MASK[10:12, 20:23] = [[0, 1, 1], [1, 0, 0]]
LABELS = "<label><name>zebra</name></label><label><name>can</name></label>"
HEAD = f"<version>1.1</version><meta><task><labels>{LABELS}</labels></task></meta>"


@pytest.fixture
def export(tmp_path: Path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", SIZE_HW[::-1]).save(tmp_path / "images/a.jpg")

    def make(*shapes: str, image: str = 'name="a.jpg" width="200" height="100"', after: str = "") -> Path:
        lines = "\n".join(shapes)
        text = (
            f'<?xml version="1.0"?>\n<annotations>{HEAD}<image id="0" {image}>\n{lines}\n</image>{after}</annotations>'
        )
        (tmp_path / "annotations.xml").write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (GOOD, Annotation("can", BOX)),
        (
            '<polygon label="can" points="20.00,10.00;60.00,10.00;60,50"></polygon>',
            Annotation("can", BOX, ((20.0, 10.0, 60.0, 10.0, 60.0, 50.0),)),
        ),
        (
            '<mask label="can" rle="1, 3, 2" left="20" top="10" width="3" height="2"/>',
            Annotation("can", (20.0, 10.0, 23.0, 12.0), rle=encoded(MASK)),
        ),
        (
            '<box label="can" xtl="20" ytl="10" xbr="60" ybr="30" rotation="90.00"/>',
            Annotation("can", (30.0, 0.0, 50.0, 40.0), ((50.0, 0.0, 50.0, 40.0, 30.0, 40.0, 30.0, 0.0),)),
        ),
    ],
)
def test_every_shape(export, shape, expected):
    folder = export(shape)
    assert find(folder) == ("cvat", folder / "annotations.xml")
    dataset, problems = read(folder)
    assert dataset.class_names == ("zebra", "can")
    (image,) = dataset.images
    assert image.path == folder / "images/a.jpg" and image.annotations == (expected,)
    assert [one.reason for one in problems] == (
        ["1 turned boxes are read as polygons of four corners"] if "rotation" in shape else []
    )


def test_what_is_no_object_is_counted(export):
    others = ('<points label="can" points="1,2"/>', '<tag label="can"/>', '<tag label="can"/>')
    dataset, problems = read(export(GOOD, *others, '<ellipse label="can" cx="50" cy="50" rx="10" ry="20"/>'))
    assert [one.box_xyxy for one in dataset.images[0].annotations] == [BOX, (40.0, 30.0, 60.0, 70.0)]
    assert [one.reason for one in problems] == [
        "1 shapes of type points are no boxes or masks: left out",
        "2 shapes of type tag are no boxes or masks: left out",
        "1 ellipses are read as polygons",
    ]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<box label="can" xtl="x" ytl="1" xbr="6" ybr="5"/>', "box: xtl: expected a number, found 'x'"),
        ('<box label="can" ytl="1" xbr="6" ybr="5"/>', "box: xtl: expected a number, found nothing"),
        ('<box label="can" xtl="nan" ytl="1" xbr="6" ybr="5"/>', "expected a number, found 'nan'"),
        ('<box label="can" xtl="1" ytl="1" xbr="1e300" ybr="5"/>', "expected coordinates of at most"),
        ('<box label="can" xtl="9" ytl="1" xbr="6" ybr="5"/>', "inverted"),
        ('<box label="can" xtl="1" ytl="1" xbr="6" ybr="5" rotation="x"/>', "rotation: expected a number"),
        ('<box xtl="1" ytl="1" xbr="6" ybr="5"/>', "label: expected text, found nothing"),
        ('<box label="cat" xtl="1" ytl="1" xbr="6" ybr="5"/>', "expected a class of .*zebra, can.*, found 'cat'"),
        ('<polygon label="can" points="1,2;3"/>', "points: expected x,y of three points"),
        ('<polygon label="can"/>', "points: expected x,y of three points or more, .* found nothing"),
        ('<polygon label="can" points="1,2;3,1e300;4,5"/>', "expected coordinates of at most"),
        (
            '<mask label="can" rle="1, 3" left="0" top="0" width="3" height="2"/>',
            "expected runs that fill 6 pixels, found 4",
        ),
        ('<mask label="can" rle="1, -3, 8" left="0" top="0" width="3" height="2"/>', "rle: expected a whole number"),
        ('<mask label="can" rle="" left="0" top="0" width="3" height="2"/>', "rle: expected a number"),
        ('<mask label="can" rle="6" left="0" top="0" width="3" height="2"/>', "rle: expected x1 < x2"),
        ('<mask label="can" rle="1" left="199" top="0" width="3" height="2"/>', "expected a mask within the image"),
        ('<mask label="can" rle="1" left="0" top="0" width="1e9" height="1e9"/>', "expected a mask within the image"),
        ("<thing/>", "thing: expected box, polygon, mask or ellipse"),
    ],
)
def test_a_bad_shape_is_named_and_takes_no_other_with_it(export, shape, reason):
    dataset, problems = read(export(GOOD, shape, GOOD))
    assert len(dataset.images[0].annotations) == 2
    (problem,) = problems
    assert problem.place.line == 4
    with pytest.raises(ValueError, match=reason):
        raise ValueError(problem.reason)


def test_tracks_are_refused_with_the_way_out(export, tmp_path):
    track = '<track id="0" label="can"><box frame="0" outside="0" xtl="1" ytl="1" xbr="2" ybr="2"/></track>'
    (tmp_path / "annotations.xml").write_text(f"<annotations>{HEAD}{track}</annotations>")
    with pytest.raises(DataError, match="1 tracks of a video .* export the task as CVAT for images 1.1"):
        load(tmp_path)
    dataset, problems = read(export(GOOD, after=track))
    assert len(dataset.images[0].annotations) == 1 and ["a track" in one.reason for one in problems] == [True]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ('name="a.jpg" width="200" height="1e9"', "height: expected at most"),
        ('width="200" height="100"', "name: expected text"),
        ('name="gone.jpg" width="" height=""', "is missing"),
    ],
)
def test_a_bad_image_is_named(export, image, reason):
    _, problems = read(export(GOOD, image=image))
    assert any(reason in one.reason and one.place.line == 2 for one in problems if one.fatal)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_comes_back(scatter, tmp_path, seed):
    dataset = scatter(seed)
    notes = write(dataset, tmp_path / "out", "cvat")
    again = load(tmp_path / "out")
    assert again.class_names == dataset.class_names
    for before, after in zip(dataset.images, again.images, strict=True):
        assert (after.name, after.size_hw) == (before.name, before.size_hw)
        for one, other in zip(before.annotations, after.annotations, strict=True):
            mask = mask_of(one, before.size_hw)
            assert other.label == one.label
            if ring_of(one):
                assert other.polygons == one.polygons
            elif mask is not None:
                assert np.array_equal(other.mask(after.size_hw), mask)
            else:
                assert (other.box_xyxy, other.has_mask) == (one.box_xyxy, False)
    crowds = sum(one.crowd for _, one in dataset.annotations())
    assert (f"{crowds} crowds written as objects: CVAT has no mark for them" in notes) == bool(crowds)
