"""AzureML's JSONL and MLTable as its own labelling tool, its samples, pandas and spreadsheets write them; each with
the reading that it means beside it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.strangers.data_cases import Case, Photo, thing

CAT = thing("cat", 10, 20, 40, 60)
CORNERS = {"topX": 0.1, "topY": 0.25, "bottomX": 0.4, "bottomY": 0.75}
OUTLINE = [0.1, 0.25, 0.4, 0.25, 0.4, 0.75, 0.1, 0.75]
DETAILS = {"format": "jpg", "width": "100px", "height": "80px"}


def cat(**changes: Any) -> dict[str, Any]:
    return {"label": "cat", **CORNERS, "isCrowd": 0} | changes


def line(*label: Any, url: str = "a.jpg", details: Any = DETAILS, **more: Any) -> str:
    return json.dumps({"image_url": url, "image_details": details, "label": list(label), **more}) + "\n"


def one(*label: Any, **changes: Any) -> dict[str, Any]:
    return {"train.jsonl": line(*label, **changes), "a.jpg": Photo()}


OTHER = cat(topX=0.5, bottomX=0.6)
FAR = cat(topX=1e300)

CASES = {
    # its labelling tool and samples
    "AzureML: sizes with their unit": Case(one(cat()), {"a.jpg": [CAT]}),
    'AzureML: isCrowd as "0"': Case(one(cat(isCrowd="0")), {"a.jpg": [CAT]}),
    'AzureML: isCrowd as "true"': Case(one(cat(isCrowd="true")), {"a.jpg": [thing("cat", 10, 20, 40, 60, crowd=True)]}),
    "AzureML: isCrowd as text with Unspecified": Case(one(cat(isCrowd="Unspecified")), {"a.jpg": [CAT]}),
    "AzureML: an export's further fields": Case(one(cat(), label_confidence=[1.0]), {"a.jpg": [CAT]}),
    "AzureML: a polygon without corners": Case(
        one({"label": "cat", "isCrowd": 0, "polygon": [OUTLINE]}), {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]}
    ),
    "AzureML: a polygon and its bbox": Case(
        one({"label": "cat", "bbox": "null", "polygon": [OUTLINE]}), {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]}
    ),
    "AzureML: a flat polygon": Case(
        one({"label": "cat", "polygon": OUTLINE}), {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]}
    ),
    "AzureML: a part of two points": Case(
        one(cat(polygon=[OUTLINE, [0.1, 0.1, 0.2, 0.2]])),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]},
        noted=("this part is left out",),
    ),
    "AzureML: an empty polygon": Case(one(cat(polygon=[])), {"a.jpg": [CAT]}),
    "AzureML: [[]]": Case(one(cat(polygon=[[]])), {"a.jpg": [CAT]}, noted=("left out",)),
    "AzureML: no label": Case({"train.jsonl": line(), "a.jpg": Photo()}, {"a.jpg": []}),
    "AzureML: no image_details": Case(one(cat(), details=None), {"a.jpg": [CAT]}),
    "AzureML: sizes of 0": Case(one(cat(), details={"width": 0, "height": 0}), {"a.jpg": [CAT]}),
    "AzureML: a datastore's address": Case(
        one(cat(), url="AmlDatastore://images/a.jpg"),
        bad=("--prefix AmlDatastore://...=FOLDER",),
    ),
    "AzureML: a blob's percent-encoded name, with its prefix": Case(
        {"train.jsonl": line(cat(), url="azureml://s/paths/my%20cat.jpg"), "p/my cat.jpg": Photo()},
        {"my cat.jpg": [CAT]},
        options={"prefixes": {"azureml://s/paths": "p"}},
    ),
    "AzureML: a public URL": Case({"train.jsonl": line(cat(), url="https://example.org/a.jpg")}, {"a.jpg": [CAT]}),
    "AzureML: MLTable": Case(
        {
            "MLTable": "paths:\n  - file: ./train.jsonl\ntransformations:\n  - read_json_lines:\n      encoding: utf8\n"
            "  - convert_column_types:\n      - columns: image_url\n        column_type: stream_info\n",
            **one(cat()),
        },
        {"a.jpg": [CAT]},
    ),
    # others
    "pixels in place of fractions": Case(
        one(cat(topX=10, topY=20, bottomX=40, bottomY=60)), {"a.jpg": []}, bad=("--absolute reads them",)
    ),
    "pixels, where they are asked for": Case(
        one(cat(topX=10, topY=20, bottomX=40, bottomY=60)), {"a.jpg": [CAT]}, options={"normalized": False}
    ),
    "a coordinate of 1e300 beside a good object": Case(
        one(cat(bottomX=1e300), cat()), {"a.jpg": [CAT]}, bad=("expected fractions in 0..1",)
    ),
    "a polygon of 1e300 beside a good object": Case(
        one(cat(polygon=[[0.1, 0.1, 1e300, 0.2, 0.3, 0.3]]), cat()), {"a.jpg": [CAT]}, bad=("at most 1000000 pixels",)
    ),
    "a box of no height": Case(one(cat(bottomY=0.25), cat()), {"a.jpg": [CAT]}, noted=("empty.*left out",)),
    "pandas: corners as text": Case(one(cat(topX="0.1", bottomY="0.75")), {"a.jpg": [CAT]}),
    "pandas: missing corners beside a polygon": Case(
        one(cat(polygon=[OUTLINE], topX=None, topY=None, bottomX=None, bottomY=None)),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]},
    ),
    "pandas: NaN for a polygon that is not there": Case(
        {"train.jsonl": line(cat(polygon="?")).replace('"?"', "NaN"), "a.jpg": Photo()}, {"a.jpg": [CAT]}
    ),
    "pandas: 100.0 for the width": Case(one(cat(), details={"width": 100.0, "height": 80.0}), {"a.jpg": [CAT]}),
    "a spreadsheet: the list as its text": Case(
        {"train.jsonl": json.dumps({"image_url": "a.jpg", "label": json.dumps([cat()])}), "a.jpg": Photo()},
        {"a.jpg": [CAT]},
    ),
    "Windows: backslashes": Case(
        {"train.jsonl": line(cat(), url=".\\images\\a.jpg"), "images/a.jpg": Photo()}, {"a.jpg": [CAT]}
    ),
    "Windows: UTF-8 with a mark and CRLF": Case(
        {"train.jsonl": b"\xef\xbb\xbf" + line(cat()).replace("\n", "\r\n").encode(), "a.jpg": Photo()},
        {"a.jpg": [CAT]},
    ),
    "Windows: UTF-16 of PowerShell": Case(
        {"train.jsonl": line(cat()).encode("utf-16"), "a.jpg": Photo()}, {"a.jpg": [CAT]}
    ),
    "one bad line of two": Case(
        {"train.jsonl": line(cat()) + "{oops\n", "a.jpg": Photo()}, {"a.jpg": [CAT]}, bad=("train.jsonl:2: not JSON",)
    ),
    "macOS: companions": Case(
        {**one(cat()), "._train.jsonl": b"\0\5\x16\7", "__MACOSX/._train.jsonl": b"\0\5"}, {"a.jpg": [CAT]}
    ),
    "photos that are not there are said once": Case(
        {"train.jsonl": "".join(line(cat(), url=f"{n}.jpg") for n in range(20))},
        {f"{n}.jpg": [CAT] for n in range(20)},
        noted=("20 images were not found.*--images-root",),
        lost=True,
    ),
    # its SDK and its models
    "AzureML: an MLTable as the SDK saves it": Case(
        {
            "MLTable": "paths:\n- file: ./train.jsonl\ntransformations:\n- read_json_lines:\n    encoding: utf8\n"
            "    include_path_column: false\n    invalid_lines: error\n    partition_size: 20971520\n"
            "    path_column: Path\ntype: mltable\n",
            **one(cat()),
        },
        {"a.jpg": [CAT]},
    ),
    "AzureML: several parts, and no isCrowd": Case(
        one(
            {
                "label": "cat",
                "bbox": "null",
                "polygon": [[0.1, 0.25, 0.2, 0.25, 0.2, 0.75, 0.1, 0.75], [0.3, 0.25, 0.4, 0.25, 0.4, 0.75, 0.3, 0.75]],
            }
        ),
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 800)]},
    ),
    "AzureML: classes of whole images": Case(
        {"train.jsonl": json.dumps({"image_url": "a.jpg", "label": "cat"}) + "\n", "a.jpg": Photo()},
        bad=("classes of whole images, without boxes.*label objects",),
    ),
    "AzureML: several classes of whole images": Case(
        {"train.jsonl": (json.dumps({"image_url": "a.jpg", "label": ["cat", "dog"]}) + "\n") * 30, "a.jpg": Photo()},
        bad=("classes of whole images, without boxes.*label objects",),
    ),
    "AzureML: predictions of a batch": Case(
        {
            "predictions.jsonl": json.dumps(
                {"filename": "a.jpg", "boxes": [{"box": CORNERS, "label": "cat", "score": 0.9}]}
            )
        },
        bad=("predictions.*--prompts",),
    ),
    "AzureML: its labelling project's COCO export, with fractions": Case(
        {
            "labels.json": {
                "images": [
                    {
                        "id": 1,
                        "width": 100.0,
                        "height": 80.0,
                        "file_name": "UI/2026/a.jpg",
                        "coco_url": "AmlDatastore://data/UI/2026/a.jpg",
                        "absolute_url": "https://x.example/a.jpg",
                    }
                ],
                "annotations": [
                    {
                        "id": 1,
                        "category_id": 1,
                        "image_id": 1,
                        "area": 0.15,
                        "bbox": [0.1, 0.25, 0.3, 0.5],
                        "segmentation": [OUTLINE],
                    }
                ],
                "categories": [{"id": 1, "name": "cat"}],
            },
            "a.jpg": Photo(),
        },
        {"a.jpg": [thing("cat", 10, 20, 40, 60, 1200)]},
        noted=("found by name",),
        options={"normalized": True},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_jsonl_is_read_as_it_is_meant(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # where a prefix's folder starts
    CASES[name].check(tmp_path)
