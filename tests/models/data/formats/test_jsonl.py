"""AzureML's JSONL as its samples and documentation write it, and lines that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from models.data import DataError, load
from tests.models.data.without_photos import read

DETAILS = {"format": "jpg", "width": 499, "height": 666}
BOX = {"label": "can", "topX": 0.5, "topY": 0.25, "bottomX": 1.0, "bottomY": 0.75, "isCrowd": 0}


def line(*label: Any, **changes: Any) -> str:
    return json.dumps({"image_url": "images/1.jpg", "image_details": DETAILS, "label": list(label)} | changes)


def lines(path: Path, *content: str) -> Path:
    path.write_text("".join(f"{one}\n" for one in content))
    return path


def test_boxes_and_polygons_become_pixels(tmp_path):
    polygon = {"label": "carton", "bbox": "null", "isCrowd": 1, "polygon": [[0.25, 0.5, 0.5, 0.5, 0.5, 1.0]]}
    path = lines(tmp_path / "x.jsonl", line(BOX, polygon), "", line(image_url="https://example.org/2.jpg"))
    dataset = load(path)
    assert dataset.class_names == ("can", "carton")
    first, second = dataset.images
    assert first.path == tmp_path / "images" / "1.jpg" and first.size_hw == (666, 499)
    box, outline = first.annotations
    assert (box.box_xyxy, box.polygons, box.crowd) == ((249.5, 166.5, 499, 499.5), None, False)
    assert outline.polygons == ((124.75, 333, 249.5, 333, 249.5, 666),) and outline.crowd
    assert outline.box_xyxy == (124.75, 333, 249.5, 666)
    assert second.path == "https://example.org/2.jpg" and second.annotations == ()
    assert (first.place.line, second.place.line) == (1, 3)


def test_whole_pixels_come_back_whole_from_what_the_sample_writes(tmp_path):
    for width in (499, 666, 97, 1013):
        entry = BOX | {"topX": float("3") / width, "bottomX": float(width - 1) / width}
        path = lines(tmp_path / "x.jsonl", line(entry, image_details={"width": width, "height": 666}))
        x1, _, x2, _ = load(path).images[0].annotations[0].box_xyxy
        assert (x1, x2) == (3, width - 1)


def test_an_object_that_polygons_describe_is_written_as_azure_does(tmp_path):
    from models.data import Annotation, Dataset, LabelledImage, write

    triangle = (10.0, 20.0, 30.0, 20.0, 30.0, 60.0)
    own_box = Annotation("can", (9.0, 20.0, 30.0, 60.0), polygons=(triangle,))
    around = Annotation("can", (10.0, 20.0, 30.0, 60.0), polygons=(triangle,))
    boxed = Annotation("can", (10.0, 20.0, 30.0, 60.0))
    image = LabelledImage("https://example.org/1.JPG", (80, 100), (around, own_box, boxed))
    write(Dataset(("can",), (image,)), tmp_path / "x.jsonl", "jsonl")
    entry = json.loads((tmp_path / "x.jsonl").read_text())
    assert entry["image_details"] == {"format": "jpg", "width": 100, "height": 80}
    polygon = [[0.1, 0.25, 0.3, 0.25, 0.3, 0.75]]
    assert entry["label"][0] == {"label": "can", "isCrowd": 0, "polygon": polygon}
    corners = {"topX": 0.1, "topY": 0.25, "bottomX": 0.3, "bottomY": 0.75}
    assert entry["label"][1] == {"label": "can", **corners, "topX": 0.09, "isCrowd": 0, "polygon": polygon}
    assert entry["label"][2] == {"label": "can", **corners, "isCrowd": 0}


def test_sizes_as_text_and_sizes_from_the_image(tmp_path):
    (tmp_path / "elsewhere" / "images").mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "elsewhere" / "images" / "1.jpg")
    texts = line(image_details={"format": "jpg", "width": "400px", "height": "258px"})
    content = json.loads(line())
    del content["image_details"]
    path = lines(tmp_path / "x.jsonl", texts, json.dumps(content))
    first, second = load(path, images=tmp_path / "elsewhere").images
    assert first.size_hw == (258, 400) and second.size_hw == (20, 30)
    assert second.path == tmp_path / "elsewhere" / "images" / "1.jpg"


def without(entry: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != name}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes (column 2)"),
        ("[1]", "expected an object, found [1]"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        ('{"image_url": NaN}', "image_url: expected text, found nan"),
        (line(image_url=None), "image_url: expected text, found nothing"),
        (line(image_url=" "), "image_url: expected text, found ' '"),
        (line(image_url="azureml://a/b.jpg"), "found 'azureml://a/b.jpg' (say where it is with --prefix azureml://"),
        (line(image_details=[]).replace("[]", "[3]", 1), "image_details: expected an object, found [3]"),
        (line(image_details={"width": 5}), "images/1.jpg is missing"),
        (line(image_details={"width": 5, "height": "tall"}), "image_details.height: expected a number, found 'tall'"),
        (line(image_details={}), "images/1.jpg is missing"),
        (line(image_details={}, image_url="http://example.org/1.jpg"), "width and height: expected with an image"),
        (line(label="can"), "label: expected a list of objects, found 'can'"),
        (line("can"), "label[0]: expected an object, found 'can'"),
        (line(BOX, without(BOX, "label")), "label[1]: label: expected text, found nothing"),
        (line(without(BOX, "topX")), "label[0]: topX: expected a number, found nothing"),
        (line(BOX | {"topX": "0.1a"}), "label[0]: topX: expected a number, found '0.1a'"),
        (line(BOX | {"bottomX": 0.4}), "label[0]: topX topY bottomX bottomY, in pixels: expected x1 < x2"),
        (line(BOX | {"bottomX": 320}), "expected fractions in 0..1, found 320 (pixels? --absolute reads them)"),
        (line(BOX | {"isCrowd": 2}), "label[0]: isCrowd: expected 0 or 1, found 2"),
        (line({"label": "can"}), "label[0]: expected topX, topY, bottomX and bottomY or a polygon, found neither"),
        (line({"label": "can", "polygon": "zigzag"}), "polygon: expected a list of polygons, found 'zigzag'"),
        (line({"label": "can", "polygon": []}), "expected topX, topY, bottomX and bottomY or a polygon, found neither"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_the_others_stay(tmp_path, wrong, reason):
    path = lines(tmp_path / "x.jsonl", line(BOX), wrong, line(BOX))
    dataset, [problem] = read(path)
    assert (problem.place.file, problem.place.line) == (path, 2)
    assert reason in problem.reason
    assert sum(one.place.line != 2 for _, one in dataset.annotations()) == 2
    with pytest.raises(DataError, match="x.jsonl:2: "):
        load(path)


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(line(BOX).encode() + b"\n\n" + b'{"image_url": "\xff"}\n')
    with pytest.raises(DataError, match="x.jsonl:3: not utf-8"):
        read(path)
