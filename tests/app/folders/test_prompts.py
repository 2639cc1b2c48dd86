"""Boxes from elsewhere: every form that `--prompts` takes, how images are found, and what is said of bad ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.folders.prompts import BoxPrompt, PromptsError, read_prompts
from app.folders.sources import SourceError, SourceImage, find_images


def images(*names: str, root: Path = Path("/pictures")) -> list[SourceImage]:
    return [SourceImage(root / name, name) for name in names]


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(content: object) -> Path:
        path = tmp_path / "boxes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_the_plain_form_has_boxes_with_or_without_labels(file: Any) -> None:
    path = file({"a.jpg": [[1, 2, 3.5, 4], {"box": [5, 6, 7, 8], "label": "can", "score": 0.5}], "sub/b.jpg": []})
    prompts = read_prompts(path, images("a.jpg", "sub/b.jpg"))
    assert prompts.of_image == {
        "a.jpg": (BoxPrompt((1, 2, 3.5, 4)), BoxPrompt((5, 6, 7, 8), "can", 0.5)),
        "sub/b.jpg": (),
    }
    assert prompts.notes == () and prompts.class_names == ()


def test_a_list_of_coco_results_finds_images_by_number_or_name(file: Any) -> None:
    entry = {"category_id": 3, "bbox": [10, 20, 5, 6], "score": 0.9}
    path = file([entry | {"image_id": 139}, entry | {"image_id": "b", "label": "can"}, entry | {"image_id": "b"}])
    prompts = read_prompts(path, images("000000000139.jpg", "b.png"))
    assert prompts.of_image == {
        "000000000139.jpg": (BoxPrompt((10, 20, 15, 26), "3", 0.9),),
        "b.png": (BoxPrompt((10, 20, 15, 26), "can", 0.9), BoxPrompt((10, 20, 15, 26), "3", 0.9)),
    }


def test_a_score_threshold_leaves_out_and_says_how_many(file: Any) -> None:
    path = file({"a.jpg": [{"box": [1, 2, 3, 4], "score": 0.4}, {"box": [1, 2, 3, 5], "score": 0.5}, [1, 2, 3, 6]]})
    prompts = read_prompts(path, images("a.jpg"), 0.5)
    assert [one.box_xyxy[3] for one in prompts.of_image["a.jpg"]] == [5, 6]
    assert prompts.notes == (f"{path}: 1 boxes that score less than 0.5 are left out",)


def test_a_coco_data_set_is_read_as_any_other(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 10, 20], "iscrowd": 0, "score": 0.4},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "can"}, {"id": 2, "name": "carton"}],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    for named in (path, tmp_path):
        prompts = read_prompts(named, images("a.png", root=tmp_path))
        assert prompts.of_image == {"a.png": (BoxPrompt((1, 2, 11, 22), "carton", 0.4),)}
        assert prompts.class_names == ("can", "carton")
        assert prompts.notes == (f"{named}: 1 regions of many objects (crowd) are left out",)
        prompts = read_prompts(named, images("a.png", root=tmp_path), 0.5)
        assert prompts.of_image == {"a.png": ()}
        assert prompts.notes[1] == f"{named}: 1 boxes that score less than 0.5 are left out"
    content["annotations"][0]["bbox"] = [1, 2, -10, 20]
    path.write_text(json.dumps(content))
    with pytest.raises(PromptsError, match=r"annotations.json.*annotations\[0\].*expected x1 < x2"):
        read_prompts(path, images("a.png", root=tmp_path))


def test_an_image_is_found_by_its_very_name_or_by_the_end_of_its_path(file: Any) -> None:
    box = [[1, 2, 3, 4]]
    path = file({"a.jpg": box, "/elsewhere/x/b.jpg": box, "http://host/y/c.jpg?size=1": box, "d": box})
    found = read_prompts(path, images("a.jpg", "sub/a.jpg", "x/b.jpg", "y/c.jpg", "z/d.webp"))
    assert set(found.of_image) == {"a.jpg", "x/b.jpg", "y/c.jpg", "z/d.webp"}
    assert found.notes == (f"{path}: has no entry for 1 of the images; they get no objects",)
    found = read_prompts(file({"one/a.jpg": box, "two/a.jpg": []}), images("a.jpg", root=Path("/data/one")))
    assert len(found.of_image["a.jpg"]) == 1
    assert "1 of its images are not among these: two/a.jpg" in found.notes[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{\n "a.jpg": [[1,]]}', r"boxes.json:2: not JSON"),
        ("3", r"boxes.json: expected an object or a list, found 3"),
        ("[" + "9" * 5000 + "]", r"boxes.json: cannot be read"),
        ({"a.jpg": {}}, r"boxes.json: a.jpg: expected a list of boxes, found \{\}"),
        (
            {"a.jpg": [[1, 2, 3, 4], [1, 2, 3]]},
            r"boxes.json: a.jpg, box 1: expected \[x1, y1, x2, y2\], found \[1, 2, 3\]",
        ),
        ({"a.jpg": [[3, 2, 1, 4]]}, r"a.jpg, box 0: expected .* with x1 < x2 and y1 < y2, found \[3, 2, 1, 4\]"),
        ({"a.jpg": [[1, 2, "3", 4]]}, r"a.jpg, box 0: expected \[x1, y1, x2, y2\], found \[1, 2, \"3\", 4\]"),
        ({"a.jpg": [[1, 2, True, 4]]}, r"a.jpg, box 0: expected"),
        ('{"a.jpg": [[1, 2, NaN, 4]]}', r"a.jpg, box 0: expected .*, found \[1, 2, NaN, 4\]"),
        ({"a.jpg": [{"label": "x"}]}, r"a.jpg, box 0: expected \{\"box\": .*, found \{\"label\": \"x\"\}"),
        ({"a.jpg": [{"box": [1, 2, 3, 4], "label": []}]}, r"a.jpg, box 0: label: expected text, found \[\]"),
        ({"a.jpg": [{"box": [1, 2, 3, 4], "score": "x"}]}, r"a.jpg, box 0: score: expected a number, found \"x\""),
        ([{"image_id": "a", "bbox": [1, 2, -1, 4]}], r"entry 0: image a: bbox: expected a width and a height above 0"),
        ([{"image_id": "a"}], r"entry 0: image a: bbox: expected \[x, y, w.*, found nothing"),
        ([{"bbox": [1, 2, 3, 4]}], r"entry 0: image_id: expected a number or text, found nothing"),
        ([7], r"entry 0: expected an object with image_id, category_id, bbox and score, found 7"),
        ({"b.jpg": []}, r"expected boxes for the images \(a.jpg\), found those of b.jpg"),
        ({}, r"expected boxes for the images \(a.jpg\), found those of none"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(file: Any, content: object, reason: str) -> None:
    with pytest.raises(PromptsError, match=reason):
        read_prompts(file(content), images("a.jpg"))


def test_every_bad_box_is_said(file: Any) -> None:
    with pytest.raises(PromptsError) as raised:
        read_prompts(file({"a.jpg": [[0], [1, 2, 3, 4], [2]], "b.jpg": [[9]] * 30}), images("a.jpg"))
    lines = str(raised.value).splitlines()
    assert len(lines) == 21 and "a.jpg, box 0" in lines[0] and "a.jpg, box 2" in lines[1]
    assert lines[-1] == "... and 12 more"


def test_names_that_fit_two_are_not_guessed_at(file: Any) -> None:
    with pytest.raises(PromptsError, match="a.jpg: expected one image of that name, found x/a.jpg and y/a.jpg"):
        read_prompts(file({"a.jpg": []}), images("x/a.jpg", "y/a.jpg"))
    with pytest.raises(PromptsError, match="expected one entry for a.jpg, found u/a.jpg and v/a.jpg"):
        read_prompts(file({"u/a.jpg": [], "v/a.jpg": []}), images("a.jpg"))
    with pytest.raises(PromptsError, match="boxes.json: expected one entry for a.jpg, found ./a.jpg too"):
        read_prompts(file({"a.jpg": [], "./a.jpg": []}), images("a.jpg"))
    with pytest.raises(PromptsError, match="boxes.json: expected one entry for a.jpg, found another"):
        read_prompts(file('{"a.jpg": [[1, 2, 3, 4]], "a.jpg": []}'), images("a.jpg"))


# The images of a run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("b.JPG", "a.png", "sub/a.png", "sub/deep/c.tiff", "notes.txt", "out/masks/x.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def test_a_folder_gives_its_images_and_says_what_it_does_not(folder: Path) -> None:
    found = find_images([folder], recursive=False, leave_out=folder / "out")
    assert [one.name for one in found.images] == ["a.png", "b.JPG"]
    assert [one.path for one in found.images] == [folder / "a.png", folder / "b.JPG"]
    assert found.notes == (
        "notes.txt: left out, as it has no image's suffix",
        "sub: not gone into; --recursive does",
    )
    found = find_images([folder], recursive=True, leave_out=folder / "out")
    assert [one.name for one in found.images] == ["a.png", "b.JPG", "sub/a.png", "sub/deep/c.tiff"]
    assert found.root == folder


def test_several_paths_are_named_from_what_they_share_and_none_comes_twice(folder: Path) -> None:
    paths = [folder / "sub", folder / "a.png", folder / "sub" / "a.png", folder / "notes.txt"]
    found = find_images(paths, recursive=False, leave_out=folder / "out")
    assert [one.name for one in found.images] == ["a.png", "notes.txt", "sub/a.png"]  # a file that is named is taken
    assert found.root == folder


def test_a_link_that_leads_back_is_gone_into_once(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    found = find_images([folder / "sub"], recursive=True, leave_out=folder / "out")
    assert sorted(one.path.name for one in found.images) == ["a.png", "a.png", "b.JPG", "c.tiff"]


def test_nothing_to_do_is_an_error(folder: Path) -> None:
    shutil.rmtree(folder / "sub" / "deep")
    (folder / "sub" / "a.png").unlink()
    with pytest.raises(SourceError, match=r"sub: expected images \(.jpg, .*\), found none$"):
        find_images([folder / "sub"], recursive=True, leave_out=folder / "out")
    with pytest.raises(SourceError, match="found none; --recursive looks into its 1 folder too"):
        find_images([folder / "out"], recursive=False, leave_out=folder)
    with pytest.raises(SourceError, match="gone: there is no such file or folder"):
        find_images([folder / "gone"], recursive=False, leave_out=folder)
    (folder / "sub" / "bad\udcff.png").touch()
    with pytest.raises(SourceError, match=r"expected a name in UTF-8"):
        find_images([folder / "sub"], recursive=False, leave_out=folder / "out")


def test_voc_and_jsonl_data_sets_are_prompts_too(tmp_path: Path) -> None:
    from models.data import Annotation, Dataset, LabelledImage, write

    (tmp_path / "photos").mkdir()
    path = tmp_path / "photos" / "one.jpg"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(path)
    image = LabelledImage(path, (30, 40), (Annotation("can", (4.0, 5.0, 24.0, 25.0)),))
    for form, target in (
        ("voc", tmp_path / "voc"),
        ("jsonl", tmp_path / "lines.jsonl"),
        ("mltable", tmp_path / "table"),
    ):
        write(Dataset(("can",), (image,)), target, form)
        found = read_prompts(target, images("one.jpg", root=path.parent))
        (box,) = found.of_image["one.jpg"]
        assert (box.label, box.score) == ("can", None) and box.box_xyxy == pytest.approx((4, 5, 24, 25), abs=1e-6)


def test_the_scores_of_yolos_predictions_are_read(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "images" / "a.png")
    (tmp_path / "classes.txt").write_text("can\n")
    outline = "0 0.5 0.25 0.8 0.25 0.8 0.75 0.5 0.75"
    (tmp_path / "labels" / "a.txt").write_text(f"0 0.25 0.5 0.3 0.5 0.9\n{outline} 0.2\n{outline}\n")
    found = read_prompts(tmp_path, images("images/a.png", root=tmp_path), 0.5).of_image["images/a.png"]
    assert [(one.box_xyxy, one.score) for one in found] == [((10, 20, 40, 60), 0.9), ((50, 20, 80, 60), None)]
