"""What a request's body may cost before a row of it is looked at."""

from __future__ import annotations

import json
import mmap

import pytest

from app.contract import schemas
from app.contract.schemas import SEGMENTER_COLUMNS, parse_request, segmenter_rows
from app.errors import BadRequest


@pytest.mark.parametrize("item", [b"[]", b"{}", b"1"])
def test_a_body_of_millions_of_values_is_not_parsed(item: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda *_: pytest.fail("the body was parsed"))
    body = b'{"input_data": {"columns": ["image"], "data": [' + item + (b"," + item) * 4_000_000 + b"]}}"
    with pytest.raises(BadRequest, match="^the body: expected at most 4000000 values, got more$"):
        parse_request(body, 256)


def test_a_large_body_of_few_values_is_parsed() -> None:
    """As images are: megabytes, and hardly a comma."""
    image = "A" * 5_000_000
    body = json.dumps({"input_data": {"columns": ["image"], "data": [image]}}).encode()
    assert parse_request(body, 1).data == [image]


def test_a_body_that_may_be_emptied_is() -> None:
    body = bytearray(json.dumps({"input_data": {"columns": ["image"], "data": ["é"]}}).encode())
    assert parse_request(body, 1).data == ["é"]
    assert body == b""


def test_a_body_in_pages_of_its_own_is_read_and_gives_them_back() -> None:
    content = json.dumps({"input_data": {"columns": ["image"], "data": ["é"]}}, ensure_ascii=False).encode()
    body = mmap.mmap(-1, len(content))
    body.write(content)
    assert parse_request(body, 1).data == ["é"]
    assert body.closed


def test_the_prompts_as_text_of_all_rows_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = "[[1, 2, 3, 4]]"
    table = {"columns": list(SEGMENTER_COLUMNS), "data": [["", "", boxes, "", True]] * 3}
    request = parse_request(json.dumps({"input_data": table}).encode(), 3)
    monkeypatch.setattr(schemas, "_MAX_LITERALS", 3 * len(boxes))
    assert len(segmenter_rows(request, 1)) == 3
    monkeypatch.setattr(schemas, "_MAX_LITERALS", 3 * len(boxes) - 1)
    with pytest.raises(BadRequest, match="^prompts as text: expected at most 41 characters in a request, got 42$"):
        segmenter_rows(request, 1)
