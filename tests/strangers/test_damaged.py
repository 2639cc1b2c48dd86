"""Files with one damaged place: what is said of it, and what the rest still says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from models.data.dataset import Place, Problem
from models.data.parsing.shapes import filled
from models.data.parsing.xml_tree import ElementError, parse
from tests.strangers.data_cases import Case, Photo, thing

CAN = thing("can", 10, 8, 60, 48)
LINE = "0 0.35 0.35 0.5 0.5\n"
LABEL = '[{"label": "can", "topX": 0.1, "topY": 0.1, "bottomX": 0.6, "bottomY": 0.6, "isCrowd": 0}]'
ROW = f'{{"image_url": "a.png", "image_details": {{"width": 100, "height": 80}}, "label": {LABEL}}}\n'
VALUE = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["can"]}


def region(value: dict[str, Any] = VALUE, **more: Any) -> dict[str, Any]:
    size = {"original_width": 100, "original_height": 80}
    return {"id": "r", "type": "rectanglelabels", **size, "value": value, **more}


def tasks(*regions: dict[str, Any], **data: Any) -> dict[str, Any]:
    entry = {"data": {"image": "a.png", **data}, "annotations": [{"result": list(regions)}]}
    return {"a.png": Photo(), "tasks.json": [entry]}


def yolo(label: str = LINE, **settings: str) -> dict[str, Any]:
    lines = {"train": "images", "names": "[can]", **settings}
    files = {"images/a.png": Photo(), "labels/a.txt": label}
    return {**files, "data.yaml": "".join(f"{name}: {value}\n" for name, value in lines.items())}


def table(paths: str, **more: str) -> dict[str, Any]:
    steps = "transformations: [read_json_lines: {encoding: utf8}]\n"
    return {"a.png": Photo(), "MLTable": f"paths: {paths}\n{steps}", **more}


CASES = {
    "a kind of result with a brace in it": Case(
        tasks(region(), region({"text": ["x"]}, id="s", type="a}{0")),
        {"a.png": [CAN]},
        noted=(r"1 results of type a\}\{0 are no boxes or masks",),
    ),
    "a text that is nearly an address": Case(tasks(region(), note="http://["), {"a.png": [CAN]}),
    "the date of an annotation that is a list": Case(
        {
            "a.png": Photo(),
            "tasks.json": [{"data": {"image": "a.png"}, "annotations": [{"result": [region()], "created_at": [[1]]}]}],
        },
        {"a.png": [CAN]},
    ),
    "a task that is no JSON in itself": Case(
        {"a.png": Photo(), "tasks.json": '[{"image": "a.png",\n"label": [], "rectanglelabels": 01}]'},
        bad=(r"tasks.json:2: not JSON: ",),
        options={"format": "label-studio"},
    ),
    "a number of 5,000 digits in a task": Case(
        {"a.png": Photo(), "tasks.json": f'[{{"image": "a.png", "rectanglelabels": {"1" * 5000}}}]'},
        bad=("tasks.json:1: not JSON: ",),
        options={"format": "label-studio"},
    ),
    "a number of 5,000 digits in COCO": Case(
        {"a.json": f'{{"images": [{{"id": {"1" * 5000}}}], "annotations": [], "categories": []}}'},
        bad=("a.json:1: not JSON: ",),
    ),
    "a count of classes of 5,000 digits": Case(yolo(nc="1" * 5000), {"a.png": [CAN]}),
    "keypoints of 5,000 digits": Case(yolo(kpt_shape=f"[{'1' * 5000}, 3]"), {"a.png": [CAN]}),
    "all folders there are": Case(yolo(val="/"), {"a.png": [CAN]}, noted=("val: there is no '/': it is left out",)),
    "a list of images with a zero and a long name in it": Case(
        {**yolo(train="train.txt"), "train.txt": f"images/a.png\n\0\n{'x' * 300}.png\n"},
        {"a.png": [CAN]},
        bad=("train.txt:2: expected the name of an image", "train.txt:3: expected the name of an image"),
    ),
    "a name that is nearly a date": Case(table("[file: 2001-99-99]", **{"2001-99-99": ROW}), {"a.png": [CAN]}),
    "a name with a tag": Case(table("[file: !!int a.jsonl]", **{"a.jsonl": ROW}), {"a.png": [CAN]}),
    "all folders there are, in a table": Case(
        table("[file: a.jsonl, folder: /]", **{"a.jsonl": ROW}),
        {"a.png": [CAN]},
        bad=(r"paths\[1\]: folder: expected a pattern of file names, found '/'",),
    ),
    "a name of 300 characters": Case(
        table(f"[file: a.jsonl, file: {'x' * 300}]", **{"a.jsonl": ROW}),
        {"a.png": [CAN]},
        bad=(r"paths\[1\]: file: expected the name of a file or folder, found 'xxx",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_damaged_place(tmp_path, name):
    CASES[name].check(tmp_path)


def test_the_text_of_an_element_is_what_stands_in_it_and_not_in_others(tmp_path):
    file = tmp_path / "a.xml"
    file.write_text("<r>one <a>two&amp;<b/>three</a>four<![CDATA[ <five>]]></r>")
    root = parse(file)
    assert (root.text, root.children[0].text) == ("one four <five>", "two&three")


@pytest.mark.parametrize("encoding", ["unicode_escape", "unicode-escape", "UNICODE:ESCAPE", "unicodeescape", "idna"])
def test_what_is_no_encoding_of_files_is_none_by_any_of_its_names(tmp_path, encoding):
    file = tmp_path / "a.xml"
    file.write_text(f'<?xml version="1.0" encoding="{encoding}"?><r>\\x41</r>')
    with pytest.raises(ElementError, match="expected an encoding that Python knows"):
        parse(file)


def test_a_box_is_filled_to_the_pixel():
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = rng.integers(1, 7, 2).tolist()
        (x1, x2), (y1, y2) = (sorted(rng.uniform(-3, 9, 2).tolist()) for _ in "xy")
        expected = np.zeros((height, width), bool)
        left, top, right, bottom = (max(0, round(value)) for value in (x1, y1, x2, y2))
        expected[top:bottom, left:right] = True
        found = coco_mask.decode(filled((x1, y1, x2, y2), (height, width)))
        assert np.array_equal(found, expected)


def test_a_long_reason_keeps_its_beginning_and_its_end():
    problem = Problem(Place(Path("a.json")), f"expected a name, found {'x' * 10_000}; --images-root says where it is")
    assert problem.reason.startswith("expected a name, found xxx")
    assert problem.reason.endswith("xxx; --images-root says where it is") and len(problem.reason) == 1005
