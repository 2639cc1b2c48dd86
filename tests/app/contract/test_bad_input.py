"""What is refused of a request, and how it is explained, over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.app.scoring_requests import (
    COLUMNS,
    PICTURE,
    check_headers,
    encoded,
    picture,
    row,
    table,
    to_sam,
    to_yolof,
)

SPLIT = '; pandas writes the right form by df.to_dict(orient="split")'
FORMATS = "JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"
IMAGE_EXPECTED = f"expected base64 or an http(s) URL of a {FORMATS}"
POINTS_EXPECTED = "row 0, input_points: expected (point_batch, points_per_prompt, 2)"
BOXES_EXPECTED = "row 0, input_boxes: expected (num_boxes, 4)"
LABELS_EXPECTED = "row 0, input_labels: expected (point_batch, points_per_prompt)"


NESTED = "[" * 900 + "]" * 900
JPEG = base64.b64decode(encoded(picture(128, 64), "JPEG"))
UNPICKLED = "__import__('os').system('touch harm')"


def column(**values: Any) -> dict[str, Any]:
    return to_sam(row(**values))


BAD: dict[str, tuple[bytes | dict[str, Any], str]] = {
    # the body
    "empty body": (
        b"",
        'expected a JSON body {"input_data": {"columns": [...], "data": [...]}}, got an empty one',
    ),
    "blank body": (
        b" \n",
        'expected a JSON body {"input_data": {"columns": [...], "data": [...]}}, got an empty one',
    ),
    "not JSON": (
        b"image=x",
        "the body is not JSON: Expecting value: line 1 column 1 (char 0); it is a form: send JSON",
    ),
    "bad UTF-8": (
        b'{"input_data": "\xff"}',
        "the body is not JSON: 'utf-8' codec can't decode byte 0xff in position 16: invalid start byte",
    ),
    "nested too deeply": (b"[" * 100_000, "the body is not JSON: it is nested too deeply"),
    "top-level list": (b"[]", f"expected a JSON object with input_data, got a list{SPLIT}"),
    "top-level string": (b'"x"', "expected a JSON object with input_data, got a string"),
    "dataframe_split": (
        {"dataframe_split": {"columns": ["image"], "data": [PICTURE]}},
        "expected input_data in the body, got dataframe_split; "
        "dataframe_split is MLflow's name for it: call it input_data",
    ),
    "instances": (
        {"instances": [PICTURE], "params": {}},
        "expected input_data in the body, got instances, params; "
        f"instances is the form of TensorFlow's and Google's servers{SPLIT}",
    ),
    "empty object": ({}, "expected input_data in the body, got an empty object"),
    "names that are no text": (b'{"\\ud800": 1}', "expected input_data in the body, got \ud800"),
    # the table
    "records": (
        {"input_data": [{"image": PICTURE}]},
        f"input_data: expected an object with columns and data, got a list; these are records{SPLIT.replace(';', ':')}",
    ),
    "no columns": ({"input_data": {"data": []}}, f"input_data: expected columns and data, got data{SPLIT}"),
    "no data": (
        {"input_data": {"columns": ["image"]}},
        f"input_data: expected columns and data, got columns{SPLIT}",
    ),
    "columns null": (table(None, []), "input_data.columns: expected a list, got null"),  # type: ignore[arg-type]
    "data text": (table(["image"], PICTURE), "input_data.data: expected a list, got a string"),  # type: ignore[arg-type]
    "a column's number": (
        table([0], []),  # type: ignore[list-item]
        "input_data.columns: expected names, got a number among them; "
        "a DataFrame without names has numbers: df.columns = [...]",
    ),
    "a column twice": (
        table(["image", "image"], []),
        "input_data.columns: expected every name once, got image more than once",
    ),
    "index too long": (
        table(["image"], [PICTURE], index=[0, 1]),
        "input_data.index: expected one entry per row (1), got 2 entries",
    ),
    "index no list": (
        table(["image"], [PICTURE], index="0"),
        "input_data.index: expected one entry per row (1), got a string",
    ),
    "too many rows": (table(["image"], [""] * 257), "input_data.data: expected at most 256 rows, got 257"),
    "no image column": (
        table(["picture"], [PICTURE]),
        "input_data.columns: expected image, got picture: image missing",
    ),
    "missing columns": (
        table(["image", "input_boxes"], [[PICTURE, ""]]),
        "input_data.columns: expected image, input_points, input_boxes, input_labels, multimask_output, "
        "got image, input_boxes: input_points, input_labels, multimask_output missing; "
        'give all of them, with "" where there is nothing',
    ),
    "a row too short": (table(COLUMNS, [[PICTURE]]), "row 0: expected one value per column (5), got 1"),
    "a row too long": (
        table(["image"], [PICTURE, [PICTURE, 1]]),
        "row 1: expected one value per column (1), got 2",
    ),
    "a row that is none": (table(COLUMNS, [PICTURE]), "row 0: expected one value per column (5), got a string"),
    # params
    "params list": (table(["image"], [], [1]), "params: expected an object, got a list"),
    "score_threshold text": (
        to_yolof(score_threshold="0.3"),
        'params.score_threshold: expected a number from 0 to 1, got "0.3"',
    ),
    "score_threshold too high": (
        to_yolof(score_threshold=30),
        "params.score_threshold: expected a number from 0 to 1, got 30",
    ),
    "iou_threshold boolean": (
        to_yolof(iou_threshold=True),
        "params.iou_threshold: expected a number from 0 to 1, got true",
    ),
    "iou_threshold deep": (
        b'{"input_data": {"columns": ["image"], "data": []}, "params": {"iou_threshold": %s}}' % NESTED.encode(),
        "params.iou_threshold: expected a number from 0 to 1, got a list",
    ),
    "max_detections": (
        to_yolof(max_detections=0),
        "params.max_detections: expected a whole number from 1 to 1000, got 0",
    ),
    "texts": (to_yolof(texts="can"), 'params.texts: expected a list of texts, as ["can", "milk carton"], got "can"'),
    "no texts": (to_yolof(texts=[]), "params.texts: expected 1 to 256 texts, got 0"),
    "too many texts": (to_yolof(texts=["can"] * 257), "params.texts: expected 1 to 256 texts, got 257"),
    "empty text": (
        to_yolof(texts=["can", " "]),
        "params.texts: expected texts of 1 to 256 characters, got an empty one",
    ),
    "long text": (
        to_yolof(texts=["c" * 257]),
        "params.texts: expected texts of 1 to 256 characters, got 257 characters",
    ),
    "a number for a text": (
        to_yolof(texts=["can", 7]),
        'params.texts: expected a list of texts, as ["can", "milk carton"], got a number among them',
    ),
    "texts twice": (to_yolof(texts=["can", "can "]), "params.texts: expected every text once, got can more than once"),
    "max_detections fraction": (
        to_yolof(max_detections=1.5),
        "params.max_detections: expected a whole number from 1 to 1000, got 1.5",
    ),
    "multimask_output": (
        to_yolof(multimask_output=1),
        "params.multimask_output: expected true or false, got 1",
    ),
    "exif_orientation": (
        to_yolof(exif_orientation="yes"),
        'params.exif_orientation: expected true or false, got "yes"',
    ),
    "coordinates": (
        to_sam(coordinates="relative"),
        'params.coordinates: expected "absolute" or "normalized", got "relative"',
    ),
    "mask_format": (
        to_sam(mask_format="PNG"),
        'params.mask_format: expected "png" or "rle" or "polygon", got "PNG"',
    ),
    "response_schema": (
        to_sam(response_schema={}),
        'params.response_schema: expected "card" or "live", got an object',
    ),
    # prompts
    "box of three, row 3": (
        to_sam(row(), row(), row(), row(boxes="[[1, 2, 3], [4, 5, 6]]")),
        "row 3, input_boxes: expected (num_boxes, 4), got (2, 3)",
    ),
    "flat box": (column(boxes="[1, 2, 3, 4]"), f"{BOXES_EXPECTED}, got (4,); one box is [[x1, y1, x2, y2]]"),
    "empty boxes": (column(boxes="[[], []]"), f"{BOXES_EXPECTED}, got (2, 0); [] is none of them"),
    "flat points": (
        column(points="[[20, 20]]"),
        f"{POINTS_EXPECTED}, got (1, 2); "
        "one point is [[[x, y]]], two of one object [[[x, y], [x, y]]], of two [[[x, y]], [[x, y]]]",
    ),
    "points of three": (column(points="[[[1, 2, 3]]]"), f"{POINTS_EXPECTED}, got (1, 1, 3); a point is x and y alone"),
    "flat labels": (
        column(points="[[[1, 2]]]", labels="[1]"),
        f"{LABELS_EXPECTED}, got (1,); "
        "the label of one point is [[1]], those of two of one object [[1, 0]], of two [[1], [1]]",
    ),
    "ragged boxes": (
        column(boxes="[[1, 2, 3, 4], [1, 2, 3]]"),
        f"{BOXES_EXPECTED}, got a ragged list of (3,) and (4,)",
    ),
    "ragged points": (
        column(points="[[[1, 2], [3, 4]], [[5, 6]]]"),
        f"{POINTS_EXPECTED}, got a ragged list of (1, 2) and (2, 2); every prompt needs as many points: "
        "fill up the shorter ones with [0, 0], which has the label -10 in input_labels",
    ),
    "half-nested": (column(boxes="[[1, 2, 3, 4], 5]"), f"{BOXES_EXPECTED}, got a ragged list of numbers and (4,)"),
    "too deep": (column(boxes="[[[[[[1]]]]]]"), f"{BOXES_EXPECTED}, got a list nested too deeply"),
    "far too deep": (
        column(boxes="[" * 5000),
        f"{BOXES_EXPECTED}, got '{'[' * 60}...', which is not a list of numbers",
    ),
    "far too long": (
        column(boxes="1" * 1_000_001),
        f"{BOXES_EXPECTED}, got 1000001 characters, more than 1000000",
    ),
    "points against boxes": (
        column(points="[[[1, 2]], [[3, 4]], [[5, 6]]]", boxes="[[1, 2, 30, 40], [1, 2, 30, 40]]"),
        "row 0, input_boxes: expected one box per point prompt (3), got 2 boxes; "
        "what belongs to other objects stands in another row, which may have the same image",
    ),
    "points against labels": (
        column(points="[[[1, 2], [3, 4]]]", labels="[[1]]"),
        "row 0, input_labels: expected (1, 2), one per point, got (1, 1); "
        "-10 is the label of a point that only fills up the list",
    ),
    "labels without points": (
        column(boxes="[[1, 2, 30, 40]]", labels="[[1]]"),
        "row 0, input_labels: expected input_points to go with the labels, got none",
    ),
    "unknown label": (
        column(points="[[[1, 2]]]", labels="[[2]]"),
        "row 0, input_labels: expected labels 1, 0, -1 or -10, got 2",
    ),
    "half a label": (
        column(points="[[[1, 2]]]", labels="[[0.5]]"),
        f"{LABELS_EXPECTED}, got a label that is not a whole number",
    ),
    "NaN in text": (
        column(boxes="[[nan, 0, 1, 1]]"),
        f"{BOXES_EXPECTED}, got '[[nan, 0, 1, 1]]', which is not a list of numbers",
    ),
    "NaN in JSON": (
        json.dumps(column(boxes=[[float("nan"), 0, 1, 1]])).encode(),
        f"{BOXES_EXPECTED}, got nan, which is not from -1e9 to 1e9",
    ),
    "infinity": (column(boxes="[[1e999, 0, 1, 1]]"), f"{BOXES_EXPECTED}, got inf, which is not from -1e9 to 1e9"),
    "beyond float": (
        column(points=[[[10**400, 0]]]),
        f"{POINTS_EXPECTED}, got a number, which is not from -1e9 to 1e9",
    ),
    "text in a list": (
        column(boxes=[["1", 2, 3, 4]]),
        f"{BOXES_EXPECTED}, got a string among the numbers; write numbers without quotes",
    ),
    "null in a list": (column(boxes=[[None, 2, 3, 4]]), f"{BOXES_EXPECTED}, got null among the numbers"),
    "true in a list": (column(boxes=[[True, 2, 3, 4]]), f"{BOXES_EXPECTED}, got a boolean among the numbers"),
    "an object": (
        column(boxes={"x": 1}),
        f"{BOXES_EXPECTED}, got an object; write numbers in lists, and no objects",
    ),
    "a number": (column(points=5), f"{POINTS_EXPECTED}, got a number"),
    "a literal of a number": (column(points="5"), f"{POINTS_EXPECTED}, got a number"),
    "a boolean": (column(labels=True), f"{LABELS_EXPECTED}, got a boolean"),
    "code": (
        column(boxes=UNPICKLED),
        f'{BOXES_EXPECTED}, got "{UNPICKLED}", which is not a list of numbers',
    ),
    "arithmetic": (
        column(boxes="[[2 ** 99, 0, 1, 1]]"),
        f"{BOXES_EXPECTED}, got '[[2 ** 99, 0, 1, 1]]', which is not a list of numbers",
    ),
    "no text at all": (
        b'{"input_data": {"columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],'
        b' "data": [["", "", "\\ud800\\u0000", "", true]]}}',
        f"{BOXES_EXPECTED}, got '\\ud800\\x00', which is not a list of numbers",
    ),
    "reversed box": (
        column(boxes="[[1, 2, 30, 40], [90, 2, 30, 40]]"),
        "row 0, input_boxes: box 1: expected x1 < x2 and y1 < y2, got [90, 2, 30, 40]"
        "; are these x, y, width, height? Send [x, y, x + width, y + height]",
    ),
    "box of no area": (
        column(boxes="[[1, 2, 30, 2]]"),
        "row 0, input_boxes: box 0: expected x1 < x2 and y1 < y2, got [1, 2, 30, 2]"
        "; are these x, y, width, height? Send [x, y, x + width, y + height]",
    ),
    "box outside": (
        to_sam(row(), row(boxes="[[128, 2, 200, 40]]")),
        "row 1, input_boxes: box 0: expected a box that meets the image of 128 x 64 (width x height), "
        "got [128, 2, 200, 40]",
    ),
    "box outside, normalized": (
        to_sam(row(boxes="[[-0.5, 0, 0, 1]]"), coordinates="normalized"),
        "row 0, input_boxes: box 0: expected a box that meets the image of 128 x 64 (width x height), "
        "got [-64, 0, 0, 64]",
    ),
    "too many prompts": (
        column(points=[[[1, 2]]] * 1025),
        "row 0, input_points: expected at most 1024 prompts, got 1025",
    ),
    # images
    "image null": (to_yolof(PICTURE, None), f"row 1, image: {IMAGE_EXPECTED}, got null; every row needs an image"),
    "image an object": (
        to_yolof({"bytes": PICTURE}),
        f"row 0, image: {IMAGE_EXPECTED}, got an object; send the base64 of the file alone",
    ),
    "image empty": (to_yolof(""), f"row 0, image: expected a {FORMATS}, got 0 bytes"),
    "not base64": (
        to_yolof(PICTURE, "photo.jpg"),
        f"row 1, image: {IMAGE_EXPECTED}, got 9 characters, 'photo.jpg'; is this a path? "
        "The service cannot see your files: send the content of the file, as base64",
    ),
    "not an image": (
        column(image=base64.b64encode(b"%PDF-1.7 and more").decode()),
        f"row 0, image: expected a {FORMATS}, got PDF (17 bytes): convert it to JPEG or PNG",
    ),
    "not an image of any known kind": (
        column(image=base64.b64encode(b"nothing and more").decode()),
        f"row 0, image: expected a {FORMATS}, got 16 bytes that start with b'nothing and more'",
    ),
    "truncated image": (
        to_yolof(base64.b64encode(JPEG[: len(JPEG) // 2]).decode()),
        f"row 0, image: the JPEG image is truncated, damaged or of an unsupported kind ({len(JPEG) // 2} bytes)",
    ),
    "URL of an inner host": (
        to_yolof("http://127.0.0.1:9/photo.jpg"),
        "row 0, image: expected an image URL whose host has public addresses only, '127.0.0.1' has not",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_explained_and_harms_nobody(http: httpx.Client, answer: Callable[..., Any], case: str) -> None:
    content, message = BAD[case]
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = http.post("/score", content=body)
    assert (response.status_code, response.json()) == (400, {"message": message})
    assert response.headers["content-type"] == "application/json"
    check_headers(response)
    (answered,) = answer(to_sam(row(boxes="[[10, 10, 90, 50]]")))
    assert len(answered["predictions"]) == 1


@pytest.mark.parametrize("path", ["/yolof/score", "/sam/score", "/pipeline/score"])
def test_every_scoring_route_explains_bad_input(http: httpx.Client, path: str) -> None:
    columns = COLUMNS if path == "/sam/score" else ["image"]
    response = http.post(path, json=table(columns, [["hello"] + [""] * (len(columns) - 1)]))
    assert response.status_code == 400
    assert response.json()["message"].startswith(f"row 0, image: {IMAGE_EXPECTED}, got 5 characters, 'hello'")


def test_messages_do_not_grow_with_the_request(http: httpx.Client) -> None:
    many = [f"{'x' * 1000}{number}" for number in range(1000)]
    for content in (dict.fromkeys(many), {"input_data": dict.fromkeys(many)}, table(many, []), table(many * 2, [])):
        response = http.post("/score", json=content)
        assert response.status_code == 400 and len(response.text) < 1000
