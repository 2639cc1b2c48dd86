"""`box2mask data`: what each action prints, writes and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from app.cli import main
from models.data import load


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten photos of one can or carton each, as COCO, one with a mask as run lengths."""
    (tmp_path / "src" / "images").mkdir(parents=True)
    images, annotations = [], []
    for index in range(10):
        name = f"{index}.png"
        Image.new("RGB", (8, 6), (index, 0, 0)).save(tmp_path / "src" / "images" / name)
        images.append({"id": index, "file_name": name, "width": 8, "height": 6})
        annotations.append({"id": index, "image_id": index, "category_id": 1 + index % 2, "bbox": [1, 1, 3, 4]})
    annotations[3]["segmentation"] = {"size": [6, 8], "counts": [7, 4, 2, 4, 2, 4, 25]}
    categories = [{"id": 1, "name": "can"}, {"id": 2, "name": "carton"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "src" / "annotations.json").write_text(json.dumps(content, indent=0))
    return tmp_path / "src"


def damage(source: Path, **changes: object) -> None:
    """Changes annotation 2."""
    content = json.loads((source / "annotations.json").read_text())
    content["annotations"][2] |= changes
    (source / "annotations.json").write_text(json.dumps(content, indent=0))


def test_convert_says_what_it_wrote_and_what_was_lost(source, tmp_path, capsys):
    assert main(["data", "convert", str(source), str(tmp_path / "voc"), "--to", "voc"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'voc'}: 10 images, 10 objects, 2 classes, voc",
        f"{tmp_path / 'voc'}: 1 masks left out: VOC holds boxes only",
    ]
    target = str(tmp_path / "x.jsonl")
    assert main(["data", "convert", str(source), target, "--to", "jsonl", "--images", "reference"]) == 0
    assert "1 run-length encoded masks written as the polygons around their pixels\n" in capsys.readouterr().out
    masks = [one.mask(image.size_hw) for image, one in load(Path(target)).annotations() if one.has_mask]
    assert [mask.sum() for mask in masks] == [12]
    assert main(["data", "convert", str(source), target, "--to", "jsonl"]) == 1
    assert capsys.readouterr().err == f"box2mask: {target}: is there already: expected a new file\n"


def test_prefixes_come_from_the_command_line(source, tmp_path, capsys):
    start = "azureml://workspaces/w/paths"
    arguments = ["data", "convert", str(source), str(tmp_path / "up"), "--to", "mltable", "--url-prefix", start]
    assert main(arguments) == 0
    back = ["data", "convert", str(tmp_path / "up"), str(tmp_path / "back"), "--to", "coco"]
    assert main(back) == 1
    error = capsys.readouterr().err
    assert error.startswith("box2mask: 10 problems:\n") and "annotations.jsonl:1: image_url: expected" in error
    assert main([*back, "--prefix", f"{start}={source / 'images'}", "--prefix", "AmlDatastore://=unused"]) == 0
    assert all(image.path.is_file() for image in load(tmp_path / "back").images)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main([*back, "--prefix", "azureml://"])
    assert "argument --prefix: expected FROM=TO, found 'azureml://'" in capsys.readouterr().err


def test_split_by_the_samples_rule_and_at_random(source, tmp_path, capsys):
    assert main(["data", "split", str(source), str(tmp_path / "five"), "--every", "5"]) == 0
    validation, train = load(tmp_path / "five" / "validation"), load(tmp_path / "five" / "train")
    assert [image.name for image in validation.images] == ["0.png", "5.png"]
    assert len(train) == 8 and train.class_names == validation.class_names == ("can", "carton")
    assert (tmp_path / "five" / "train" / "annotations.json").is_file()
    drawn = ["data", "split", str(source), str(tmp_path / "drawn"), "--fraction", "0.3", "--seed", "7", "--to", "jsonl"]
    assert main(drawn) == 0
    assert len(load(tmp_path / "drawn" / "validation")) == 3
    assert (tmp_path / "drawn" / "train" / "annotations.jsonl").is_file()
    capsys.readouterr()
    assert main(drawn) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["data", "split", str(source), str(tmp_path / "one"), "--every", "1"]) == 1
    assert capsys.readouterr().err == "box2mask: every: expected 2 or more, found 1\n"


def test_what_was_trained_on_is_not_measured_on_when_images_have_come_between(source, tmp_path, capsys):
    content = json.loads((source / "annotations.json").read_text())
    few = content | {"images": [one for one in content["images"] if one["id"] % 2]}
    ids = {one["id"] for one in few["images"]}
    few["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    (source / "few.json").write_text(json.dumps(few))
    assert main(["data", "split", str(source / "few.json"), str(tmp_path / "first"), "--every", "4"]) == 0
    again = ["data", "split", str(source / "annotations.json"), str(tmp_path / "second"), "--every", "4"]
    assert main([*again, "--keep", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "second").exists()
    assert main([*again, "--keep", str(tmp_path / "first")]) == 0
    names = {
        (run, part): {image.name for image in load(tmp_path / run / part).images}
        for run in ("first", "second")
        for part in ("train", "validation")
    }
    assert all(names["first", part] < names["second", part] for part in ("train", "validation"))
    assert len(names["second", "train"] | names["second", "validation"]) == len(content["images"]) == 10


def test_a_split_that_lacks_an_image_of_its_second_part_writes_neither(source, tmp_path, capsys):
    (source / "images" / "5.png").unlink()
    assert main(["data", "split", str(source), str(tmp_path / "parts"), "--every", "5"]) == 1
    assert "5.png is missing" in capsys.readouterr().err
    assert not (tmp_path / "parts").exists()


def test_check_is_content_with_a_sound_data_set(source, capsys):
    assert main(["data", "check", str(source), "--classes", "can, carton"]) == 0
    assert capsys.readouterr().out == (
        "CLASS   OBJECTS  IMAGES  MASKS  CROWDS\n"
        "can     5        5       0      0\n"
        "carton  5        5       1      0\n\n"
        "10 images, 0 of them without an object\nno problems\n"
    )


def test_check_shows_file_line_and_reason_and_fails(source, capsys):
    damage(source, category_id=9)
    (source / "images" / "4.png").unlink()
    assert main(["data", "check", str(source)]) == 1
    table, rest = capsys.readouterr().out.split("\n\n", 1)
    head, *rows = table.splitlines()
    assert head.split() == ["FILE", "LINE", "REASON"]
    looked = rows.pop(1)
    assert f"4.png was looked for in {source}, {source / 'images'}" in looked and "--images-root DIR" in looked
    lines = (source / "annotations.json").read_text().splitlines()
    where = [lines.index('"category_id": 9,') - 2, lines.index('"file_name": "4.png",') - 1]
    assert [row.split(maxsplit=2)[:2] for row in rows] == [
        [str(source / "annotations.json"), str(line)] for line in where
    ]
    assert rows[0].endswith("annotations[2] (id 2): category_id: expected the id of a category, found 9")
    assert rows[1].endswith(f"the image file {source / '4.png'} is missing")
    assert rest.endswith("3 problems\n")


def test_what_cannot_be_read_stops_a_conversion_unless_it_is_to_be_skipped(source, tmp_path, capsys):
    damage(source, bbox=[1, 1, -1, 4])
    arguments = ["data", "convert", str(source), str(tmp_path / "out"), "--to", "coco"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"box2mask: {source / 'annotations.json'}:") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--skip-bad"]) == 0
    out, error = capsys.readouterr()
    assert "left out: " in error and "(inverted)" in error and "10 images, 9 objects" in out


def test_many_problems_are_summed_up(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text("{\n" * 25)
    assert main(["data", "convert", str(tmp_path / "x.jsonl"), str(tmp_path / "out"), "--to", "coco"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "box2mask: 25 problems:" and len(lines) == 5
    assert lines[-1] == "  ... and 22 more like this; `box2mask data check --all` shows each"


def test_check_counts_problems_of_one_kind_and_shows_the_first_ten(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text("{\n" * 25 + "[]\n")
    assert main(["data", "check", str(tmp_path / "x.jsonl")]) == 1
    out = capsys.readouterr().out
    assert out.count("not JSON") == 10 and "... and 15 more like this (--all shows each)" in out
    assert "expected an object, found []" in out and out.endswith("26 problems\n")
    assert main(["data", "check", str(tmp_path / "x.jsonl"), "--all"]) == 1
    assert capsys.readouterr().out.count("not JSON") == 25


def test_pull_reports_and_fails_with_a_sentence(tmp_path, capsys):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    arguments = ["data", "pull", "odFridgeObjects", "--to", str(tmp_path), "--from", str(tmp_path / "x.zip")]
    assert main(arguments) == 1
    assert capsys.readouterr().err == "box2mask: x.zip is no sound zip file (File is not a zip file)\n"


def test_help_is_instant_and_its_lists_are_those_of_the_package():
    from app.commands import arguments, data
    from models.data import CROWDS, FORMATS, ORIENTATIONS, PLACINGS, WRITTEN
    from models.data.pull import KNOWN

    assert (PLACINGS, tuple(KNOWN)) == (data.PLACINGS, data.KNOWN)
    assert (FORMATS, WRITTEN) == (arguments.FORMATS, arguments.WRITTEN)
    assert (CROWDS, ORIENTATIONS) == (arguments.CROWDS, arguments.ORIENTATIONS)
    code = (
        "import sys; from app.cli import main\ntry: main(['data', 'convert', '--help'])\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--url-prefix" in done.stdout
    assert not {"numpy", "torch", "PIL"} & set(done.stdout.splitlines()[-1].split())


def test_a_conversion_that_died_does_not_stop_the_next(source, tmp_path, capsys):
    from models.atomic_files import UNFINISHED

    for command in (["convert", "--to", "voc"], ["split", "--every", "5"]):
        out = tmp_path / command[0]
        (out / UNFINISHED / "images").mkdir(parents=True)
        (out / UNFINISHED / "images" / "0.png").touch()
        assert main(["data", command[0], str(source), str(out), *command[1:]]) == 0
        assert not (out / UNFINISHED).exists()
    assert len(load(tmp_path / "convert")) == 10 and len(load(tmp_path / "split" / "train")) == 8
