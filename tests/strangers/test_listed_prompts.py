"""Lists of results as boxes for `box2mask run --prompts`: which image and class a number means, and when to ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.folders.prompts import BoxPrompt, BoxPrompts, PromptsError, read_prompts
from app.folders.sources import SourceImage
from models.evaluation import Options

ENTRY = {"image_id": 7, "category_id": 18, "bbox": [10, 20, 30, 10], "score": 0.9}
BOX = (10, 20, 40, 30)
ANNOTATIONS = {
    "images": [
        {"id": 7, "file_name": "photos/dog.jpg", "height": 60, "width": 80},
        {"id": 8, "file_name": "7.jpg", "height": 60, "width": 80},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    "annotations": [],
}


def read(folder: Path, content: Any, *names: str, annotations: Any = None, **how: Any) -> BoxPrompts:
    path = folder / "results.json"
    path.write_text(json.dumps(content))
    annotation_file = None
    if annotations is not None:
        annotation_file = folder / "instances.json"
        annotation_file.write_text(json.dumps(annotations))
    images = [SourceImage(folder / name, name) for name in names]
    return read_prompts(path, images, annotation_file=annotation_file, **how)


def test_an_annotation_file_says_which_images_and_classes_the_ids_are(tmp_path):
    for identity, category in ((7, 18), ("7", "18"), (7.0, 18.0), ("007", 18)):
        entry = ENTRY | {"image_id": identity, "category_id": category}
        found = read(tmp_path, [entry], "dog.jpg", "7.jpg", annotations=ANNOTATIONS)
        assert found.of_image == {"dog.jpg": (BoxPrompt(BOX, "dog", 0.9),)}
        assert found.class_names == ("person", "dog")
    # A name in the entry, which Ultralytics writes, goes before the number.
    found = read(tmp_path, [ENTRY | {"file_name": "7.jpg"}], "dog.jpg", "7.jpg", annotations=ANNOTATIONS)
    assert list(found.of_image) == ["7.jpg"]


def test_a_number_without_an_annotation_file_is_asked_for_in_one_sentence(tmp_path):
    with pytest.raises(PromptsError) as caught:
        read(tmp_path, [ENTRY, ENTRY | {"image_id": 8}] * 50, "7.jpg", "8.jpg")
    assert str(caught.value).count("\n") == 0
    assert "image_id: found 7, 8, and nothing says which images these are: --prompts-images FILE" in str(caught.value)
    assert "--image-ids names" in str(caught.value)
    found = read(tmp_path, [ENTRY], "7.jpg", "8.jpg", options=Options(image_ids="names"))
    assert found.of_image == {"7.jpg": (BoxPrompt(BOX, "18", 0.9),)}
    with pytest.raises(PromptsError, match="image_id: expected one image of number 7, found 07.jpg and 7.jpg"):
        read(tmp_path, [ENTRY], "07.jpg", "7.jpg", options=Options(image_ids="names"))


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("000000000139.jpg", 139),
        ("COCO_val2014_000000000139.jpg", 139),
        ("sub/COCO_train2014_000000000139.png", "139"),
        ("000000000139.jpg", "000000000139"),
        ("000000000139.jpg", 139.0),
        ("IMG_0139.jpg", "IMG_0139"),
        ("IMG_0139.jpg", "IMG_0139.jpg"),
        ("0139.jpg", "0139"),
    ],
)
def test_names_that_are_ids_or_text_that_is_a_name_need_no_asking(tmp_path, name, identity):
    found = read(tmp_path, [ENTRY | {"image_id": identity}], name, "other.jpg")
    assert [len(boxes) for boxes in found.of_image.values()] == [1] and list(found.of_image) == [name]


@pytest.mark.parametrize("name", ["IMG_000000000139.jpg", "139.jpg", "COCO_val2014_139.jpg", "0000139.jpg"])
def test_any_other_number_in_a_name_may_be_anything(tmp_path, name):
    with pytest.raises(PromptsError, match="image_id: found 139, and nothing says"):
        read(tmp_path, [ENTRY | {"image_id": 139}], name)


def test_positions_in_place_of_category_ids(tmp_path):
    entries = [ENTRY | {"category_id": number} for number in (0, 1)]
    found = read(tmp_path, entries, "dog.jpg", annotations=ANNOTATIONS)
    assert [one.label for one in found.of_image["dog.jpg"]] == ["person", "dog"]
    assert any("positions from 0" in note and "--category-ids" in note for note in found.notes)
    unclear = ANNOTATIONS | {"categories": [{"id": id, "name": name} for id, name in ((10, "a"), (20, "b"), (30, "c"))]}
    with pytest.raises(PromptsError, match="category_id can be positions from 0 or positions from 1.*--category-ids"):
        read(tmp_path, [ENTRY | {"category_id": 1}], "dog.jpg", annotations=unclear)
    options = Options(category_ids="from-1")
    found = read(tmp_path, [ENTRY | {"category_id": 1}], "dog.jpg", annotations=unclear, options=options)
    assert found.of_image["dog.jpg"][0].label == "a"


@pytest.mark.parametrize(
    ("bbox", "form", "reason"),
    [
        ([0.125, 0.25, 0.375, 0.125], "xywh-fractions", "in 0..1: are these fractions"),
        ([0.125, 0.25, 0.5, 0.375], "xyxy-fractions", "in 0..1: are these fractions"),
        ([60, 50, 75, 58], "xyxy", "1 of 1 boxes end outside their image"),
    ],
)
def test_boxes_of_another_form_are_asked_for(tmp_path, bbox, form, reason):
    Image.new("RGB", (80, 60)).save(tmp_path / "dog.jpg")
    entry = ENTRY | {"image_id": "dog.jpg", "bbox": bbox}
    with pytest.raises(PromptsError, match=reason):
        read(tmp_path, [entry], "dog.jpg")
    expected = (60, 50, 75, 58) if form == "xyxy" else (10, 15, 40, 22.5)
    found = read(tmp_path, [entry], "dog.jpg", options=Options(boxes=form))
    assert found.of_image["dog.jpg"][0].box_xyxy == pytest.approx(expected)


def test_one_bad_entry_takes_none_of_the_others_if_it_may_be_skipped(tmp_path):
    entry = ENTRY | {"image_id": "a"}
    bad = [entry | {"score": 42}, entry | {"bbox": [1, 2, -3, 4]}, 7]
    with pytest.raises(PromptsError) as caught:
        read(tmp_path, [entry, *bad], "a.jpg")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["entry 1", "entry 2", "entry 3"]
    found = read(tmp_path, [entry, *bad], "a.jpg", skip_bad=True)
    assert [one.box_xyxy for one in found.of_image["a.jpg"]] == [BOX]
    assert "entry 1: image a: score" in found.notes[0] and "left out, as 2 more" in found.notes[0]


def test_empty_boxes_and_boxes_that_come_twice_are_left_out_and_counted(tmp_path):
    """The lists of boxes and of masks, one after the other, and a detection without an area."""
    entry = ENTRY | {"image_id": "a", "label": "dog"}
    mask = {"segmentation": [[10, 20, 40, 20, 40, 30]]}
    found = read(tmp_path, [entry, entry | mask, entry | {"bbox": [3, 3, 0, 5]}], "a.jpg")
    assert found.of_image["a.jpg"] == (BoxPrompt(BOX, "dog", 0.9),)
    assert [note.split("json: ")[1] for note in found.notes] == [
        "1 boxes of no width or height are left out",
        "1 boxes are there twice, of the same class and score: each is one object",
    ]
    only_mask = {"image_id": "a", "score": 0.5} | mask
    assert read(tmp_path, [only_mask], "a.jpg").of_image["a.jpg"] == (BoxPrompt((10, 20, 40, 30), None, 0.5),)


def test_an_annotation_file_is_for_lists_and_has_to_be_one(tmp_path):
    with pytest.raises(PromptsError, match="--prompts-images and what else is for lists of results"):
        read(tmp_path, {"a.jpg": []}, "a.jpg", annotations=ANNOTATIONS)
    with pytest.raises(PromptsError, match="instances.json: expected a COCO file with a list `images`"):
        read(tmp_path, [ENTRY], "a.jpg", annotations=[])
