"""The words of errors: what a refused part of a request probably is, and the way out.

The functions `of_...` give the end of a sentence, or "" where the cause is unknown. They only look at what was refused
already, and no message grows with the request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

_SPLIT = 'pandas writes the right form by df.to_dict(orient="split")'
_TWICE = "it is JSON inside JSON: encode it once, by json=request or by data=json.dumps(request), not by both"

# How files begin that people send as a body.
_IMAGE_FILES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
# What other servers call a request's table.
_OTHER_TABLES = {
    "dataframe_split": "MLflow's name for it: call it input_data",
    "dataframe_records": f"MLflow's form of records; {_SPLIT}",
    "instances": f"the form of TensorFlow's and Google's servers; {_SPLIT}",
    "inputs": f"the form of Hugging Face's endpoints, which POST /score and POST / take; {_SPLIT}",
    "Inputs": f"the form of AzureML's older endpoints; {_SPLIT}",
    "data": f"the form of AzureML's older endpoints; {_SPLIT}",
}
_FORM = re.compile(rb"[\w.%\[\]-]+=")
_WITHOUT_COMMAS = re.compile(r"\d\.?\s+[-+.\d]|\]\s+\[|\.\.\.")
_CALL = re.compile(r"(?<![\w.])([A-Za-z][\w.]*)\(")
_BASE64 = re.compile(r"(?:data:[\w/+.-]+;base64,)?[A-Za-z0-9+/_\s-]{64,}={0,2}\s*")

# Each column's number of dimensions, and how one prompt is written.
_ONE = {
    "input_points": (3, "one point is [[[x, y]]], two of one object [[[x, y], [x, y]]], of two [[[x, y]], [[x, y]]]"),
    "input_boxes": (2, "one box is [[x1, y1, x2, y2]]"),
    "exemplar_boxes": (2, "one box is [[x1, y1, x2, y2]]"),
    "exemplar_labels": (1, "the label of one box is [1], those of two [1, 0]"),
    "input_labels": (2, "the label of one point is [[1]], those of two of one object [[1, 0]], of two [[1], [1]]"),
}  # fmt: skip
_PADDING = "every prompt needs as many {}: fill up the shorter ones with {}"


def of_body(start: bytes, error: Exception) -> str:
    """Of a body that is not JSON. start: its first bytes. error: what its parser said."""
    start = start.lstrip()
    if start.startswith(_IMAGE_FILES):
        return "; it is an image's file: send its base64 in input_data"
    if start.startswith(b"\x1f\x8b"):
        return "; it is compressed by gzip: add the header Content-Encoding: gzip"
    if start.startswith(b"--") or _FORM.match(start):
        return "; it is a form: send JSON"
    if start.startswith((b"{'", b"['", b"[{'")):
        return "; it is the text of a Python object, by str(): send json.dumps(request)"
    if start.startswith((b"iVBOR", b"/9j/", b"data:image")):
        return "; it is an image's base64 alone: send it in input_data"
    if start.startswith(b"@"):
        return "; it is the name of a file: curl sends the content by --data-binary @FILE, outside of other quotes"
    if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
        return "; it is more than one JSON value: send one request, with every row in data"
    return ""


def of_content(content: object) -> str:
    """Of a body's JSON that is no object."""
    if _holds_json(content):
        return f"; {_TWICE}"
    return f"; {_SPLIT}" if isinstance(content, list) else ""


def of_keys(content: dict[str, Any]) -> str:
    """Of a body's JSON object without input_data."""
    if "columns" in content and "data" in content:
        return '; put it in: {"input_data": {"columns": [...], "data": [...]}}'
    for key, said in _OTHER_TABLES.items():
        if key in content:
            return f"; {key} is {said}"
    if "image" in content or any(isinstance(value, dict | list) for value in content.values()):
        return f"; {_SPLIT}"
    return ""


def of_table(table: object) -> str:
    """Of input_data that has no columns and data, or of a list in it that is none."""
    if _holds_json(table):
        return f"; {_TWICE}"
    if isinstance(table, list):
        return f"; these are {'records' if any(isinstance(one, dict) for one in table) else 'rows alone'}: {_SPLIT}"
    return f"; {_SPLIT}" if isinstance(table, dict) and table else ""


def of_column_name(name: object) -> str:
    """Of a column that has no text for a name."""
    if isinstance(name, list):
        return "; is this pandas' MultiIndex? Give every column one name: df.columns = [...]"
    if isinstance(name, int):
        return "; a DataFrame without names has numbers: df.columns = [...]"
    return ""


def of_missing(missing: Sequence[str], found: Iterable[str]) -> str:
    """Of columns that are not among those found."""
    alike = {_bare(name): name for name in found}
    for name in missing:
        if _bare(name) in alike:
            return f"; write {name} in place of {short(alike[_bare(name)])!r}"
    return '; give all of them, with "" where there is nothing' if "image" not in missing else ""


def _bare(name: str) -> str:
    """A column's name as far as people agree about it: without case, marks and the plural."""
    return re.sub(r"[\W_]|(?:e|e?s)$", "", name.strip().lower())


def of_row(row: object) -> str:
    """Of a row that is no list of as many values as there are columns."""
    if isinstance(row, dict):
        return f'; a row is a list in the order of "columns": {_SPLIT}'
    if isinstance(row, list) and row and isinstance(row[0], int | list):
        return "; are these bytes or pixels? Send the base64 of the image's file"
    return f"; {_TWICE}" if _holds_json(row) else ""


def of_prompt_text(text: str) -> str:
    """Of a prompt's text that is no list of numbers."""
    if _BASE64.fullmatch(text[:1000]) and not text.strip().isdigit():
        return "; is this an image? The values of a row stand in the order of columns"
    if "{" in text:
        return "; write numbers in lists, [x1, y1, x2, y2] or [x, y], and no objects"
    call = _CALL.search(text)
    if call is not None:
        return f"; it is Python's text of {call[1][:40]}(...): send its .tolist()"
    if re.match(r"[\[(\s]+['\"]", text):
        return "; write numbers without quotes"
    if _WITHOUT_COMMAS.search(text):
        return "; numpy's text has no commas: send array.tolist()"
    return ""


def of_prompt(value: object) -> str:
    """Of a prompt that is no list."""
    if isinstance(value, str):
        return "; it is JSON inside JSON: send the list, or its text encoded once"
    return "; write numbers in lists, and no objects" if isinstance(value, dict) else ""


def of_number(value: object) -> str:
    """Of what stands among a prompt's numbers and is none."""
    if isinstance(value, str):
        return "; write numbers without quotes"
    return "; write [x1, y1, x2, y2] or [x, y], and no objects" if isinstance(value, dict) else ""


def of_ragged(column: str) -> str:
    """Of lists of several lengths."""
    if column == "input_points":
        return "; " + _PADDING.format("points", "[0, 0], which has the label -10 in input_labels")
    if column == "input_labels":
        return "; " + _PADDING.format("labels", "-10, whose points are not looked at")
    return ""


def of_shape(column: str, shape: tuple[int, ...]) -> str:
    """Of a list of numbers whose shape is not the column's."""
    dimensions, one = _ONE[column]
    if len(shape) > dimensions:
        if column.endswith("_boxes") and shape[-2:] == (2, 2):
            return "; a box is four numbers and not two corners: [[x1, y1, x2, y2]]"
        return "; it has a pair of brackets too many: this column is of one row, and " + one
    if len(shape) < dimensions:
        return f"; {one}"
    if column.endswith("_boxes") and shape[-1] in (5, 6):
        return "; leave out scores and classes"
    return "; a point is x and y alone" if column == "input_points" and shape[-1] == 3 else ""


def of_prompts(column: str, shapes: dict[str, tuple[int, ...]]) -> str:
    """Of prompts that a model could not use. shapes: of each column that has some."""
    cause = of_shape(column, shapes[column])
    if cause or "input_points" not in shapes:
        return cause
    if column == "input_boxes" and shapes[column][0] != shapes["input_points"][0]:
        return "; what belongs to other objects stands in another row, which may have the same image"
    if column == "input_labels" and shapes[column] != shapes["input_points"][:2]:
        return "; -10 is the label of a point that only fills up the list"
    return ""


def of_box(box: tuple[float, float, float, float], size_hw: tuple[int, int], *, normalized: bool) -> str:
    """Of a box in pixels that is reversed, empty or outside of the image."""
    x1, y1, x2, y2 = box
    height, width = size_hw
    if normalized and min(max(x1, x2) / width, max(y1, y2) / height) > 2:
        return '; are these pixels? They need no "coordinates": "normalized"'
    if x2 <= x1 or y2 <= y1:
        if x2 > 0 and y2 > 0 and x1 >= 0 and y1 >= 0 and x1 + x2 <= width + 1 and y1 + y2 <= height + 1:
            return "; are these x, y, width, height? Send [x, y, x + width, y + height]"
        if x1 != x2 and y1 != y2:
            return "; are the corners in another order? Send [left, top, right, bottom]"
    elif not normalized and y1 < width and y2 <= width + 1 and x1 < height and x2 <= height + 1:
        return "; are these y, x, y, x? Send [x1, y1, x2, y2]"
    return ""


def of_fractions() -> str:
    """Of coordinates that are all in 0..1."""
    return (
        '; are these fractions? Send them with "params": {"coordinates": "normalized"}, or pixels as small as these '
        'with {"coordinates": "absolute"}'
    )


def _holds_json(value: object) -> bool:
    return isinstance(value, str) and value[:64].lstrip().startswith(("{", "["))


def names(names: Iterable[str]) -> str:
    """The first few of the client's names for a message, which must not grow with the request."""
    shown = [short(name) for name in names]
    return ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "")


def short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def shown(value: object) -> str:
    """A value of JSON as it was sent, or of a list or an object that it is one."""
    return kind(value) if isinstance(value, list | dict) else short(json.dumps(value))


def kind(value: object) -> str:
    """What JSON calls a value of this kind."""
    words = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else words.get(type(value), f"a {type(value).__name__}")
