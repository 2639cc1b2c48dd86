"""Requests as clients, pandas, numpy and other servers' users write them: the answer, or the sentence that helps."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import PureWindowsPath
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from tests.app.conftest import serving, write_models
from tests.app.same_answers import assert_same
from tests.app.scoring_requests import COLUMNS, OTHER, PICTURE, encoded, picture, row, table, to_sam, to_yolof

pandas = pytest.importorskip("pandas")

FILE = base64.b64decode(PICTURE)
BOX = "[[10, 10, 90, 50]]"
BOXES = np.array([[10, 10, 90, 50], [20, 5, 60, 40]])
ROWS = pandas.DataFrame([row(boxes=BOX), row(boxes=BOX)])
SPLIT = 'pandas writes the right form by df.to_dict(orient="split")'
TWICE = "it is JSON inside JSON: encode it once, by json=request or by data=json.dumps(request), not by both"
ENCODE = "send base64.b64encode(data).decode() of the file's bytes"
UNSEEN = "the service cannot see your files: send the content of the file, as base64"
BYTES_TEXT = f"; it is Python's text of bytes, b'...': {ENCODE}"
MISSING = 'give all of them, with "" where there is nothing'
XYWH = "; are these x, y, width, height? Send [x, y, x + width, y + height]"
FRACTIONS = (
    '; are these fractions? Send them with "params": {"coordinates": "normalized"}, or pixels as small as these '
    'with {"coordinates": "absolute"}'
)
POINT_FORMS = "one point is [[[x, y]]], two of one object [[[x, y], [x, y]]], of two [[[x, y]], [[x, y]]]"
NONE_ANSWER: dict[str, Any] = {"predictions": []}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service with both models and the default settings."""
    models = write_models(tmp_path_factory.mktemp("models"))
    settings = {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(models.detector),
        "BOX2MASK_SEGMENTER": str(models.segmenter),
    }
    with (
        serving(tmp_path_factory.mktemp("service") / "service.log", settings) as service,
        httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client,
    ):
        yield client


def post(client: httpx.Client, content: object, path: str = "/score") -> Any:
    response = client.post(path, content=json.dumps(content))  # as it is: NaN too, which httpx would refuse
    assert response.status_code == 200, response.text
    return response.json()


# An empty list is a row that wants no prediction; nothing at all is SAM's one prediction without a prompt.


@pytest.mark.parametrize(
    "empty",
    [[], "[]", "[ ]", "()", [[]], "[[]]", [[[]]], "[[[]]]", np.zeros((0, 4)).tolist(), str(np.zeros((0, 4)).tolist())],
    ids=str,
)
@pytest.mark.parametrize("column", ["boxes", "points"])
def test_an_empty_list_wants_no_prediction_and_the_other_rows_are_answered(
    client: httpx.Client, column: str, empty: object
) -> None:
    wanted = row(boxes=BOX)
    answered = post(client, to_sam(wanted, row(**{column: empty}), row(OTHER, boxes=BOX, **{}), wanted))
    assert answered[1] == NONE_ANSWER
    assert [len(one["predictions"]) for one in answered] == [1, 0, 1, 1]
    assert_same([answered[0]], post(client, to_sam(wanted)))
    live = post(client, to_sam(row(**{column: empty}), response_schema="live"))
    assert live == [{"response": NONE_ANSWER}]


def test_all_three_columns_may_be_empty_lists(client: httpx.Client) -> None:
    assert post(client, to_sam(row(points=[], boxes=[], labels=[]))) == [NONE_ANSWER]
    assert post(client, to_sam(row(points="[[[]]]", boxes="", labels="[]")), "/sam/score") == [NONE_ANSWER]


@pytest.mark.parametrize("nothing", ["", None, "null", "None", "nan", float("nan")], ids=repr)
def test_nothing_is_no_empty_list(client: httpx.Client, nothing: object) -> None:
    (answered,) = post(client, to_sam(row(points=nothing, boxes=nothing, labels=nothing)))
    assert len(answered["predictions"]) == 1


@pytest.mark.parametrize(
    ("with_empty", "without"),
    [
        ({"points": [], "boxes": BOX, "labels": []}, {"boxes": BOX}),
        ({"points": "[[], []]", "boxes": BOXES.tolist()}, {"boxes": BOXES.tolist()}),
        ({"points": [[[20, 20]]], "boxes": [], "labels": [[0]]}, {"points": [[[20, 20]]], "labels": [[0]]}),
        ({"points": [[[20, 20]]], "labels": []}, {"points": [[[20, 20]]]}),
    ],
)
def test_an_empty_list_beside_prompts_is_as_good_as_nothing(
    client: httpx.Client, with_empty: dict[str, Any], without: dict[str, Any]
) -> None:
    assert_same(post(client, to_sam(row(**with_empty))), post(client, to_sam(row(**without))))


def test_the_image_of_a_row_without_prompts_is_still_looked_at(client: httpx.Client) -> None:
    response = client.post("/score", json=to_sam(row(boxes=BOX), row("photo.jpg", boxes=[])))
    assert response.status_code == 400 and response.json()["message"].startswith("row 1, image: ")


@pytest.mark.parametrize("path", ["/yolof/score", "/pipeline/score"])
def test_prompts_are_other_columns_to_routes_that_find_boxes_themselves(client: httpx.Client, path: str) -> None:
    assert_same(post(client, to_sam(row(boxes=[])), path), post(client, to_yolof(PICTURE), path))


# Forms of a table


@pytest.mark.parametrize("orient", ["split", "tight"])
def test_pandas_split_and_tight_forms_are_read(client: httpx.Client, orient: str) -> None:
    expected = post(client, to_sam(row(boxes=BOX), row(boxes=BOX)))
    assert_same(post(client, {"input_data": ROWS.to_dict(orient=orient)}), expected)
    assert_same(post(client, {"input_data": ROWS.set_index([[7, 8], ["a", "b"]]).to_dict(orient=orient)}), expected)
    if orient == "split":
        assert_same(post(client, {"input_data": json.loads(ROWS.to_json(orient=orient))}), expected)


def in_table(**table: Any) -> dict[str, Any]:
    return {"input_data": table}


def of_column(column: str, value: Any) -> dict[str, Any]:
    """A request whose second row has that value."""
    return to_sam(row(boxes=BOX), row(**{column: value}))


def rows_of(orient: str) -> Any:
    return json.loads(ROWS.to_json(orient=orient))


EXPECTED_TABLE = "input_data: expected an object with columns and data"
EXPECTED_COLUMNS = "input_data: expected columns and data"
BODIES: dict[str, tuple[Any, str]] = {
    "json.dumps twice": (
        json.dumps(to_yolof(PICTURE)),
        f"expected a JSON object with input_data, got a string; {TWICE}",
    ),
    "records": (rows_of("records"), f"expected a JSON object with input_data, got a list; {SPLIT}"),
    "records in input_data": (
        {"input_data": rows_of("records")},
        f"{EXPECTED_TABLE}, got a list; these are records: {SPLIT}",
    ),
    "values in input_data": (
        {"input_data": rows_of("values")},
        f"{EXPECTED_TABLE}, got a list; these are rows alone: {SPLIT}",
    ),
    "df.to_json in input_data": (
        {"input_data": ROWS.to_json(orient="split")},
        f"{EXPECTED_TABLE}, got a string; {TWICE}",
    ),
    "pandas columns": (
        {"input_data": ROWS.iloc[:1, :2].to_dict()},
        f"{EXPECTED_COLUMNS}, got image, input_points; {SPLIT}",
    ),
    "pandas index": ({"input_data": rows_of("index")}, f"{EXPECTED_COLUMNS}, got 0, 1; {SPLIT}"),
    "pandas table": ({"input_data": rows_of("table")}, f"{EXPECTED_COLUMNS}, got schema, data; {SPLIT}"),
    "records in data": (
        in_table(columns=COLUMNS, data=rows_of("records")),
        f'row 0: expected one value per column (5), got an object; a row is a list in the order of "columns": {SPLIT}',
    ),
    "a row as text": (
        in_table(columns=COLUMNS, data=[json.dumps([PICTURE, "", BOX, "", True])]),
        f"row 0: expected one value per column (5), got a string; {TWICE}",
    ),
    "data as text": (
        in_table(columns=COLUMNS, data=json.dumps([[PICTURE, "", BOX, "", True]])),
        f"input_data.data: expected a list, got a string; {TWICE}",
    ),
    "the table alone": (
        rows_of("split"),
        "expected input_data in the body, got columns, index, data; "
        'put it in: {"input_data": {"columns": [...], "data": [...]}}',
    ),
    "MLflow": (
        {"dataframe_split": rows_of("split")},
        "expected input_data in the body, got dataframe_split; "
        "dataframe_split is MLflow's name for it: call it input_data",
    ),
    "MLflow records": (
        {"dataframe_records": rows_of("records")},
        "expected input_data in the body, got dataframe_records; "
        f"dataframe_records is MLflow's form of records; {SPLIT}",
    ),
    "TensorFlow": (
        {"instances": rows_of("records")},
        "expected input_data in the body, got instances; "
        f"instances is the form of TensorFlow's and Google's servers; {SPLIT}",
    ),
    "TensorFlow, in columns": (
        {"inputs": {"image": PICTURE}},
        'inputs: expected "<base64 or URL of an image>", or a list of such, got an object',
    ),
    "AutoML": (
        {"Inputs": {"data": rows_of("records")}, "GlobalParameters": 1.0},
        "expected input_data in the body, got Inputs, GlobalParameters; "
        f"Inputs is the form of AzureML's older endpoints; {SPLIT}",
    ),
    "a record alone": (
        {"image": PICTURE},
        f"expected input_data in the body, got image; {SPLIT}",
    ),
    "a DataFrame without names": (
        in_table(columns=pandas.DataFrame([[PICTURE]]).columns.tolist(), data=[[PICTURE]]),
        "input_data.columns: expected names, got a number among them; "
        "a DataFrame without names has numbers: df.columns = [...]",
    ),
    "a MultiIndex": (
        in_table(columns=[["image", ""]], data=[[PICTURE]]),
        "input_data.columns: expected names, got a list among them; "
        "is this pandas' MultiIndex? Give every column one name: df.columns = [...]",
    ),
    "another case": (
        table(["Image"], [[PICTURE]]),
        "input_data.columns: expected image, got Image: image missing; write image in place of 'Image'",
    ),
    "a plural": (
        table([name.replace("boxes", "box") for name in COLUMNS], [[PICTURE, "", BOX, "", True]]),
        "input_data.columns: expected image, input_points, input_boxes, input_labels, multimask_output, "
        "got image, input_points, input_box, input_labels, multimask_output: input_boxes missing; "
        "write input_boxes in place of 'input_box'",
    ),
    "only the columns in use": (
        table(["image", "input_boxes"], [[PICTURE, BOX]]),
        "input_data.columns: expected image, input_points, input_boxes, input_labels, multimask_output, "
        f"got image, input_boxes: input_points, input_labels, multimask_output missing; {MISSING}",
    ),
    "pixels in place of rows": (
        table(["image"], np.asarray(picture(4, 4)).tolist()),
        "row 0: expected one value per column (1), got 4; "
        "are these bytes or pixels? Send the base64 of the image's file",
    ),
    "an index of other rows": (
        table(["image"], [[PICTURE]], index=[3, 4]),
        "input_data.index: expected one entry per row (1), got 2 entries",
    ),
}  # fmt: skip

NOT_JSON = "the body is not JSON: "
RAW: dict[str, tuple[bytes, str]] = {
    "a photo": (FILE, "; it is an image's file: send its base64 in input_data"),
    "a photo's base64": (PICTURE.encode(), "; it is an image's base64 alone: send it in input_data"),
    "str(request)": (
        str(to_yolof(PICTURE)).encode(),
        "; it is the text of a Python object, by str(): send json.dumps(request)",
    ),
    "data=request": (b"input_data=columns&input_data=data", "; it is a form: send JSON"),
    "files=...": (b'--83f1\r\nContent-Disposition: form-data; name="image"\r\n', "; it is a form: send JSON"),
    "JSON lines": (
        b"\n".join([json.dumps(to_yolof(PICTURE)).encode()] * 2),
        "; it is more than one JSON value: send one request, with every row in data",
    ),
    "gzip without its header": (
        gzip.compress(json.dumps(to_yolof(PICTURE)).encode()),
        "; it is compressed by gzip: add the header Content-Encoding: gzip",
    ),
    "a file's name for curl": (
        b"@request.json",
        "; it is the name of a file: curl sends the content by --data-binary @FILE, outside of other quotes",
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_in_another_form_is_told(client: httpx.Client, case: str) -> None:
    content, message = BODIES[case]
    response = client.post("/score", content=json.dumps(content))
    assert (response.status_code, response.json()["message"]) == (400, message)


@pytest.mark.parametrize("case", RAW)
def test_a_body_that_is_no_json_is_told(client: httpx.Client, case: str) -> None:
    body, cause = RAW[case]
    response = client.post("/score", content=body)
    said = response.json()["message"]
    assert response.status_code == 400 and said.startswith(NOT_JSON) and said.endswith(cause) and len(said) < 300


# Images

IMAGES: dict[str, tuple[Any, str]] = {
    "str(base64.b64encode(data))": (str(base64.b64encode(FILE)), BYTES_TEXT),
    "str(base64.encodebytes(data))": (str(base64.encodebytes(FILE)), BYTES_TEXT),
    "str(data)": (str(FILE), BYTES_TEXT),
    "a data URL of it": (f"data:image/png;base64,{base64.b64encode(FILE)!r}", BYTES_TEXT),
    "data.hex()": (FILE.hex(), f"; it is hexadecimal: {ENCODE}"),
    "PostgreSQL's bytea": (f"\\x{FILE.hex()}", f"; it is hexadecimal: {ENCODE}"),
    "base64 twice": (base64.b64encode(PICTURE.encode()).decode(), "; it is base64 of base64: encode it once"),
    "json.dumps of it": (json.dumps(PICTURE), "; it has quotes inside its quotes, of JSON inside JSON: encode it once"),
    "a request in it": (json.dumps({"image": PICTURE}), "; it is JSON inside JSON: send the base64 alone"),
    "line breaks written out": (
        base64.encodebytes(FILE).decode().replace("\n", "\\n"),
        "; its backslashes are of JSON inside JSON: encode it once",
    ),
    "percent-encoded": (
        base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\xff\xfb" * 40).decode().replace("/", "%2F").replace("+", "%2B"),
        "; it is percent-encoded, as in a URL: send the base64 as it is",
    ),
    "what print shows": (f"{PICTURE[:70]}...", "; it was cut short, as print() does with long text: send all of it"),
    "a name": ("photo.jpg", f"; is this a path? T{UNSEEN[1:]}"),
    "a path": ("/data/photos/one.JPEG", f"; is this a path? T{UNSEEN[1:]}"),
    "a path that is base64": ("data/photos/0001", f"; is this a path? T{UNSEEN[1:]}"),
    "a path of Windows": (
        str(PureWindowsPath("C:/Users/me/my photos/one.png")),
        f"; is this a path? T{UNSEEN[1:]}",
    ),
    "a file URL": ("file:///data/photos/one.jpg", f"; {UNSEEN}"),
    "a blob": (
        "wasbs://photos@store.blob.core.windows.net/one.jpg",
        "; of URLs only http(s) is fetched, not wasbs: send a signed https URL, or base64",
    ),
    "AzureML's own": (
        "azureml://subscriptions/1/datastores/two/paths/one.jpg",
        "; of URLs only http(s) is fetched, not azureml: send a signed https URL, or base64",
    ),
    "a placeholder": ("${image}", "; is this a placeholder, in which no image was put?"),
    "an object": (str(picture(2, 2)), f"; it is the text of a Python object, or of a web page: {ENCODE}"),
    "pixels as text": (str(np.asarray(picture(128, 64))), f"; are these pixels or bytes, as text? S{ENCODE[1:]}"),
    "pixels": (np.asarray(picture(4, 4)).tolist(), "; are these bytes or pixels? Send the file's bytes as base64"),
    "list(data)": (list(FILE[:99]), "; are these bytes or pixels? Send the file's bytes as base64"),
    "one list too many": ([PICTURE], "; leave out the list around it: a row has one image"),
    "Hugging Face's image": ({"bytes": PICTURE, "path": None}, "; send the base64 of the file alone"),
    "a missing cell": (float("nan"), "; every row needs an image"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize(
    "request_of", [lambda image: to_yolof([PICTURE], [image]), lambda image: of_column("image", image)]
)
def test_what_is_no_image_is_told(client: httpx.Client, case: str, request_of: Any) -> None:
    image, cause = IMAGES[case]
    response = client.post("/score", content=json.dumps(request_of(image)))
    said = response.json()["message"]
    assert response.status_code == 400
    assert said.startswith("row 1, image: expected base64 or an http(s) URL of a ") and said.endswith(cause), said
    assert len(said) < 350


@pytest.mark.parametrize(
    "image",
    [
        base64.encodebytes(FILE).decode(),
        f"data:image/png;base64,{PICTURE}",
        base64.urlsafe_b64encode(FILE).decode().rstrip("="),
        f" {PICTURE}\r\n",
    ],
)
def test_base64_of_every_kind_is_an_image(client: httpx.Client, image: str) -> None:
    assert_same(post(client, to_yolof(image)), post(client, to_yolof(PICTURE)))


# Prompts

NOT_NUMBERS = ", which is not a list of numbers"
WITHOUT_COMMAS = f"{NOT_NUMBERS}; numpy's text has no commas: send array.tolist()"
PAD_POINTS = (
    "; every prompt needs as many points: fill up the shorter ones with [0, 0], which has the label -10 in input_labels"
)
ORDER = "; is this an image? The values of a row stand in the order of columns"
PROMPTS: dict[str, tuple[dict[str, Any], str, str]] = {  # the row, the column, the message's end
    "str(array)": ({"boxes": str(BOXES[:1])}, "boxes", f"got '[[10 10 90 50]]'{WITHOUT_COMMAS}"),
    "str(array of floats)": ({"boxes": str(BOXES[:1] / 4)}, "boxes", WITHOUT_COMMAS),
    "str(array) of two lines": ({"boxes": str(BOXES)}, "boxes", WITHOUT_COMMAS),
    "str(points)": ({"points": str(np.array([[[20, 20]]]))}, "points", WITHOUT_COMMAS),
    "str(large array)": ({"boxes": str(np.arange(8000).reshape(-1, 4))}, "boxes", WITHOUT_COMMAS),
    "repr(array)": ({"boxes": repr(BOXES)}, "boxes", "; it is Python's text of array(...): send its .tolist()"),
    "repr(tensor)": (
        {"boxes": repr(torch.tensor(BOXES))},
        "boxes",
        "; it is Python's text of tensor(...): send its .tolist()",
    ),
    "str(tensor.unbind())": (
        {"boxes": str([list(torch.tensor(BOXES[0]))])},
        "boxes",
        "; it is Python's text of tensor(...): send its .tolist()",
    ),
    "str(list(array))": (
        {"boxes": "[[np.float64(10.0), np.float64(10.0), np.float64(90.0), np.float64(50.0)]]"},
        "boxes",
        "; it is Python's text of np.float64(...): send its .tolist()",
    ),
    "json.dumps twice": (
        {"boxes": json.dumps(json.dumps([[10, 10, 90, 50]]))},
        "boxes",
        "got a string; it is JSON inside JSON: send the list, or its text encoded once",
    ),
    "numbers as text": (
        {"boxes": [["10", "10", "90", "50"]]},
        "boxes",
        "got a string among the numbers; write numbers without quotes",
    ),
    "numbers as text, as text": (
        {"boxes": "[['10', '10', '90', '50']]"},
        "boxes",
        f"{NOT_NUMBERS}; write numbers without quotes",
    ),
    "boxes as objects": (
        {"boxes": [{"topX": 0.1, "topY": 0.1, "bottomX": 0.5, "bottomY": 0.5}]},
        "boxes",
        "got an object among the numbers; write [x1, y1, x2, y2] or [x, y], and no objects",
    ),
    "boxes as objects, as text": (
        {"boxes": "[{'x1': 10, 'y1': 10, 'x2': 90, 'y2': 50}]"},
        "boxes",
        f"{NOT_NUMBERS}; write numbers in lists, [x1, y1, x2, y2] or [x, y], and no objects",
    ),
    "one box": ({"boxes": "[10, 10, 90, 50]"}, "boxes", "got (4,); one box is [[x1, y1, x2, y2]]"),
    "transformers' boxes": (
        {"boxes": [[[10, 10, 90, 50]]]},
        "boxes",
        "got (1, 1, 4); it has a pair of brackets too many: this column is of one row, "
        "and one box is [[x1, y1, x2, y2]]",
    ),
    "corners": (
        {"boxes": [[[10, 10], [90, 50]]]},
        "boxes",
        "got (1, 2, 2); a box is four numbers and not two corners: [[x1, y1, x2, y2]]",
    ),
    "boxes with scores": ({"boxes": [[10, 10, 90, 50, 0.9]]}, "boxes", "got (1, 5); leave out scores and classes"),
    "one point": ({"points": [20, 20]}, "points", f"got (2,); {POINT_FORMS}"),
    "points of one object": ({"points": "[[20, 20], [30, 30]]"}, "points", f"got (2, 2); {POINT_FORMS}"),
    "transformers' points": (
        {"points": [[[[20, 20]]]]},
        "points",
        f"got (1, 1, 1, 2); it has a pair of brackets too many: this column is of one row, and {POINT_FORMS}",
    ),
    "points of several lengths": (
        {"points": [[[20, 20], [30, 30]], [[40, 40]]]},
        "points",
        f"got a ragged list of (1, 2) and (2, 2){PAD_POINTS}",
    ),
    "labels of several lengths": (
        {"points": [[[20, 20], [30, 30]], [[40, 40], [0, 0]]], "labels": [[1, 1], [1]]},
        "labels",
        "got a ragged list of (1,) and (2,); "
        "every prompt needs as many labels: fill up the shorter ones with -10, whose points are not looked at",
    ),
    "labels without brackets": (
        {"points": [[[20, 20]]], "labels": "[1]"},
        "labels",
        "got (1,); the label of one point is [[1]], those of two of one object [[1, 0]], of two [[1], [1]]",
    ),
    "fewer labels": (
        {"points": [[[20, 20], [30, 30]]], "labels": [[1]]},
        "labels",
        "expected (1, 2), one per point, got (1, 1); -10 is the label of a point that only fills up the list",
    ),
    "padding alone": (
        {"points": [[[20, 20]], [[0, 0]]], "labels": [[1], [-10]]},
        "labels",
        "prompt 1: expected a label that is no padding, got only -10; leave this prompt out",
    ),
    "other boxes than points": (
        {"points": [[[20, 20]]], "boxes": BOXES.tolist()},
        "boxes",
        "expected one box per point prompt (1), got 2 boxes; "
        "what belongs to other objects stands in another row, which may have the same image",
    ),
    "x, y, width, height": (
        {"boxes": [[90, 30, 20, 20]]},
        "boxes",
        f"box 0: expected x1 < x2 and y1 < y2, got [90, 30, 20, 20]{XYWH}",
    ),
    "corners in another order": (
        {"boxes": [[90, 50, 60, 30]]},
        "boxes",
        "box 0: expected x1 < x2 and y1 < y2, got [90, 50, 60, 30]; "
        "are the corners in another order? Send [left, top, right, bottom]",
    ),
    "y before x": (
        {"boxes": [[10, 100, 50, 120]]},
        "boxes",
        "box 0: expected a box that meets the image of 128 x 64 (width x height), got [10, 100, 50, 120]; "
        "are these y, x, y, x? Send [x1, y1, x2, y2]",
    ),
    "fractions": ({"boxes": [[0.1, 0.2, 0.7, 0.8]]}, "boxes", f"expected pixels, got [0.1, 0.2, 0.7, 0.8]{FRACTIONS}"),
    "all of the image": ({"boxes": "[[0, 0, 1, 1]]"}, "boxes", f"expected pixels, got [0, 0, 1, 1]{FRACTIONS}"),
    "points in fractions": ({"points": [[[0.5, 0.25]]]}, "points", f"expected pixels, got [0.5, 0.25]{FRACTIONS}"),
    "values in another order": ({"boxes": PICTURE}, "boxes", f"{NOT_NUMBERS}{ORDER}"),
    "prompts in place of the image": (
        {"image": "[[10, 10, 90, 50]]"},
        "image",
        "; are these points or boxes? The values of a row stand in the order of columns",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PROMPTS)
def test_what_is_wrong_with_prompts_is_told(client: httpx.Client, case: str) -> None:
    values, column, cause = PROMPTS[case]
    response = client.post("/score", json=to_sam(row(boxes=BOX), row(**values)))
    said = response.json()["message"]
    name = column if column == "image" else f"input_{column}"
    assert response.status_code == 400
    assert said.startswith(f"row 1, {name}: ") and said.endswith(cause), said
    assert len(said) < 350


def test_pixels_are_told_where_fractions_were_promised(client: httpx.Client) -> None:
    response = client.post("/score", json=to_sam(row(boxes=[[10, 10, 90, 50]]), coordinates="normalized"))
    assert response.json()["message"].endswith('; are these pixels? They need no "coordinates": "normalized"')


def test_what_looks_like_fractions_is_read_as_it_is_said(client: httpx.Client) -> None:
    tiny = to_sam(row(boxes=[[0.1, 0.2, 0.7, 0.8]]), coordinates="absolute")
    assert len(post(client, tiny)[0]["predictions"]) == 1
    fractions = to_sam(row(boxes=[[0.25, 0.25, 0.75, 0.75]]), coordinates="normalized")
    assert_same(post(client, fractions), post(client, to_sam(row(boxes=[[32, 16, 96, 48]]))))


@pytest.mark.parametrize(
    "values",
    [
        {"points": [[[0, 0]]]},  # a click on the first pixel
        {"points": [[[1, 1]]]},
        {"boxes": [[0, 0, 1.5, 1]]},
        {"points": [[[20, 20], [0, 0]], [[30, 30], [40, 40]]], "labels": [[1, -10], [1, 0]]},
        {"points": [[[0, 0]]], "boxes": BOX, "labels": [[-10]]},  # the box is the prompt
    ],
)
def test_what_only_resembles_a_mistake_is_answered(client: httpx.Client, values: dict[str, Any]) -> None:
    (answered,) = post(client, to_sam(row(**values)))
    assert len(answered["predictions"]) == len(values.get("points", values.get("boxes")))


def test_an_image_of_one_pixel_may_have_its_box(client: httpx.Client) -> None:
    (answered,) = post(client, to_sam(row(encoded(picture(1, 1)), boxes=[[0, 0, 1, 1]])))
    assert len(answered["predictions"]) == 1
