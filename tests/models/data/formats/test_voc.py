"""VOC folders as odFridgeObjects comes, its variant with masks, and what is said of XML that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.data import DataError, load
from tests.models.data.without_photos import read

# As the published files are written: tabs, a relative path, no declaration.
SAMPLE = """\
<annotation>
	<folder>images</folder>
	<filename>{name}</filename>
	<path>../images/{name}</path>
	<source>
		<database>Unknown</database>
	</source>
	<size>
		<width>12</width>
		<height>10</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
	<object>
		<name>milk_bottle</name>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>1</xmin>
			<ymin>2</ymin>
			<xmax>5</xmax>
			<ymax>6</ymax>
		</bndbox>
	</object>
	<object>
		<name>can</name>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>1</difficult>
		<bndbox>
			<xmin>6.5</xmin>
			<ymin>2</ymin>
			<xmax>12</xmax>
			<ymax>10</ymax>
		</bndbox>
	</object>
</annotation>
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos, 1, 2 and 10."""
    for kind in ("images", "annotations"):
        (tmp_path / kind).mkdir()
    for name in ("1", "2", "10"):
        Image.new("RGB", (12, 10)).save(tmp_path / "images" / f"{name}.jpg")
        (tmp_path / "annotations" / f"{name}.xml").write_text(SAMPLE.format(name=f"{name}.jpg"))
    return tmp_path


def test_coordinates_are_as_they_stand_and_difficult_is_crowd(folder):
    dataset = load(folder)
    assert dataset.class_names == ("can", "milk_bottle")
    assert [image.name for image in dataset.images] == ["1.jpg", "2.jpg", "10.jpg"]
    first = dataset.images[0]
    assert first.path == folder / "images" / "1.jpg" and first.size_hw == (10, 12)
    bottle, can = first.annotations
    assert (bottle.label, bottle.box_xyxy, bottle.crowd) == ("milk_bottle", (1, 2, 5, 6), False)
    assert (can.label, can.box_xyxy, can.crowd) == ("can", (6.5, 2, 12, 10), True)
    assert (bottle.place.line, can.place.line) == (14, 26)


def test_the_original_names_of_folders_and_images_beside_the_xml(folder):
    (folder / "images").rename(folder / "JPEGImages")
    (folder / "annotations").rename(folder / "Annotations")
    assert all(image.path.is_file() for image in load(folder).images)
    flat = folder / "flat"
    flat.mkdir()
    for file in (*(folder / "JPEGImages").iterdir(), *(folder / "Annotations").iterdir()):
        file.rename(flat / file.name)
    dataset, problems = read(flat)
    assert problems == [] and all(image.path.parent == flat and image.path.is_file() for image in dataset.images)


def test_masks_are_the_values_of_the_picture_in_their_order(folder):
    (folder / "segmentation-masks").mkdir()
    pixels = np.zeros((10, 12), np.uint8)
    pixels[2:6, 1:5] = 40
    pixels[2:10, 7:12] = 200
    Image.fromarray(pixels).save(folder / "segmentation-masks" / "2.png")
    with_masks = {image.name: image for image in load(folder).images}
    assert not any(one.has_mask for one in with_masks["1.jpg"].annotations)
    bottle, can = with_masks["2.jpg"].annotations
    assert np.array_equal(bottle.mask((10, 12)), pixels == 40)
    assert np.array_equal(can.mask((10, 12)), pixels == 200)
    assert can.box_xyxy == (6.5, 2, 12, 10)


@pytest.mark.parametrize(
    ("pixels", "reason", "fatal"),
    [
        (np.zeros((10, 12), np.uint8), "expected 2, one for each object, found 0", True),
        (np.arange(120, dtype=np.uint8).reshape(10, 12) % 4, "3 masks for the 2 objects", False),
        (np.zeros((12, 10), np.uint8), "expected one channel of 12 x 10 pixels, found (12, 10)", True),
        (np.zeros((10, 12, 3), np.uint8), "found (10, 12, 3)", True),
    ],
)
def test_masks_that_do_not_fit_are_named(folder, pixels, reason, fatal):
    (folder / "segmentation-masks").mkdir()
    Image.fromarray(pixels).save(folder / "segmentation-masks" / "2.png")
    dataset, [problem] = read(folder)
    assert reason in problem.reason and problem.fatal == fatal
    assert len(dataset) == (2 if fatal else 3)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("<xmax>5</xmax>", "<xmax>five</xmax>", 22, "bndbox.xmax: expected a number, found 'five'"),
        ("<xmax>5</xmax>", "<xmax>nan</xmax>", 22, "bndbox.xmax: expected a number, found 'nan'"),
        ("\t\t\t<xmax>5</xmax>\n", "", 19, "bndbox.xmax: expected a number, found no such element"),
        ("<xmax>5</xmax>", "<xmax>1e300</xmax>", 14, "bndbox: expected coordinates of at most 1000000 pixels"),
        ("<xmax>5</xmax>", "<xmax>0</xmax>", 14, "bndbox: expected x1 < x2 and y1 < y2, found 1 2 0 6 (inverted)"),
        ("<name>can</name>", "<name> </name>", 26, "name: expected text, found ''"),
        ("<difficult>1", "<difficult>2", 30, "difficult: expected 0 or 1, found '2'"),
        ("</annotation>", "", 39, "not XML: no element found"),
        ("</size>", "</siez>", 12, "not XML: mismatched tag"),
        ("<width>12", "<width>1.5", 8, "size.width: expected a whole number of pixels, found '1.5'"),
        ("<width>12", "<width>wide", 8, "size.width: expected a number, found 'wide'"),
        ("annotation>", "note>", 1, "expected <annotation>, found <note>"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>', 1, "the definition of an entity 'b'"),
    ],
)
def test_xml_that_is_wrong_is_named_with_its_line_and_the_rest_stays(folder, old, new, line, reason):
    file = folder / "annotations" / "2.xml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    dataset, [problem] = read(folder)
    assert (problem.place.file, problem.place.line) == (file, line)
    assert reason in problem.reason
    assert 4 <= sum(1 for _ in dataset.annotations()) <= 5
    with pytest.raises(DataError, match=f"2.xml:{line}: "):
        load(folder)


def test_what_is_left_out_of_the_folder_is_told(folder):
    (folder / "annotations" / "notes.txt").write_text("hello")
    Image.new("RGB", (3, 3)).save(folder / "images" / "3.png")
    (folder / "images" / "Thumbs.db").write_bytes(b"")
    dataset, problems = read(folder)
    assert [(problem.place.file.name, problem.fatal) for problem in problems] == [
        ("notes.txt", False),
        ("3.png", False),
    ]
    assert len(load(folder)) == len(dataset) == 3


def test_a_size_that_is_not_stated_is_that_of_the_image(folder):
    file = folder / "annotations" / "2.xml"
    before, _, rest = file.read_text().partition("\t<size>")
    file.write_text(before + rest.partition("</size>")[2])
    assert load(folder).images[1].size_hw == (10, 12)
    (folder / "images" / "2.jpg").unlink()
    _, [problem] = read(folder)
    assert problem.place.line == 1 and "2.jpg is missing" in problem.reason


def test_a_class_that_the_list_lacks_is_named(folder):
    (folder / "classes.txt").write_text("milk_bottle\n")
    dataset, problems = read(folder)
    assert dataset.class_names == ("milk_bottle",) and len(problems) == 3
    assert problems[0].place.line == 26 and "found 'can'" in problems[0].reason
    (folder / "classes.txt").write_text("can\nmilk_bottle\ncan\n")
    with pytest.raises(DataError, match="classes.txt:3: expected each class once"):
        read(folder)
