"""Which data set is meant where a folder has several files, and what files of other tools are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.data import DataError, find, load, read
from models.data.parsing.contents import glance

COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "iscrowd": 0}],
    "categories": [{"id": 1, "name": "can"}],
}
CAPTIONS = COCO | {"annotations": [{"id": 1, "image_id": 1, "caption": "a can"}]}
PANOPTIC = COCO | {"annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}]}
KEYPOINTS = COCO | {"annotations": [{**COCO["annotations"][0], "keypoints": [1, 1, 2], "num_keypoints": 1}]}


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_the_instances_are_chosen_among_coco_s_files(tmp_path):
    instances = put(tmp_path / "annotations/instances_val2017.json", COCO)
    put(tmp_path / "annotations/captions_val2017.json", CAPTIONS)
    put(tmp_path / "annotations/person_keypoints_val2017.json", KEYPOINTS)
    put(tmp_path / "annotations/panoptic_val2017.json", PANOPTIC)
    put(tmp_path / "annotations/stuff_val2017.json", COCO)
    assert find(tmp_path) == ("coco", instances)
    _, problems = read(tmp_path)
    over = [one.place.file.name for one in problems if "the objects are in instances_val2017.json" in one.reason]
    assert len(over) == 4
    put(tmp_path / "annotations/instances_train2017.json", COCO)
    with pytest.raises(DataError, match=r"instances_train2017.json, [^,]*instances_val2017.json; name one of them"):
        find(tmp_path)


def test_what_annotations_are_shows_far_inside_a_file(tmp_path):
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(20_000)]
    put(tmp_path / "one.json", {"images": images, **{key: CAPTIONS[key] for key in ("annotations", "categories")}})
    keypoints = put(tmp_path / "keypoints.json", KEYPOINTS)
    assert find(tmp_path) == ("coco", keypoints)
    with pytest.raises(DataError, match="COCO's captions, which have no boxes"):
        find(tmp_path / "one.json")


def test_roboflow_s_parts_are_named(tmp_path):
    train = put(tmp_path / "train/_annotations.coco.json", COCO)
    (tmp_path / "README.roboflow.txt").write_text("hello")
    assert find(tmp_path) == ("coco", train)
    put(tmp_path / "valid/_annotations.coco.json", COCO)
    with pytest.raises(DataError, match="found several: .*train/_annotations.coco.json, .*valid/.*; name one of them"):
        find(tmp_path)
    assert find(tmp_path / "valid")[0] == "coco"


@pytest.mark.parametrize(
    "left_behind", ["._a.json", "__MACOSX/a.json", ".ipynb_checkpoints/a-checkpoint.json", ".DS_Store", "Thumbs.db"]
)
def test_what_systems_leave_behind_is_passed_over(tmp_path, left_behind):
    good = put(tmp_path / "a.json", COCO)
    put(tmp_path / left_behind, COCO)
    assert find(tmp_path) == ("coco", good)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}], "detector's results .*--predictions"),
        ({"project": {"pname": "a"}, "config": {}, "attribute": {}}, "VIA 3.*export it as COCO"),
        ({"tags": [], "size": {"height": 1, "width": 1}, "objects": []}, "Supervisely's: name the folder around ann/"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}], "categories": []}, "no annotations.*take the instances file"),
        ([{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {"x": 1}}]}], "Create ML's"),
        ({"samples": []}, "FiftyOne's"),
        ({"version": "2.0", "item": {"name": "a"}, "annotations": []}, "V7 Darwin's"),
        ([{"name": "a.jpg", "labels": [{"box2d": {}}]}], "BDD100K's"),
        ({"metainfo": {}, "data_list": []}, "MMDetection's own"),
        ({"type": "FeatureCollection", "features": []}, "GeoJSON"),
        (CAPTIONS, "captions"),
        (PANOPTIC, "panoptic"),
    ],
)
def test_files_of_other_tools_are_called_by_name_with_the_way_out(tmp_path, content, reason):
    path = put(tmp_path / "d/x.json", content)
    for src in (path, path.parent):
        with pytest.raises(DataError, match=reason):
            load(src)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.zip", "", "an archive: unpack it"),
        ("x.csv", "", "a table: export COCO"),
        ("x.txt", "", "name the folder around images/"),
        ("x.xml", "<annotation></annotation>", "one of the files of a Pascal VOC folder: name the folder"),
        ("x.json", "{", "not JSON"),
        ("x.json", "{}", "not COCO"),
        ("x.bin", "", "found another file; say which with --format"),
    ],
)
def test_other_files_have_the_way_out(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        load(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"a', b'{"a": "\\', b'["' + b'\\"' * 200_000, b"[" * 300_000, b"\xff\xfe{\0", b"}]:,", b"3"],
)
def test_a_glance_at_what_is_no_json_is_quick_and_finds_little(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    assert len(glance(tmp_path / "x").paths) < 2
