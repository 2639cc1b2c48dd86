"""The forms that a request may take, over HTTP."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.settings import Settings
from tests.app.conftest import web_server
from tests.app.same_answers import assert_same
from tests.app.scoring_requests import (
    COLUMNS,
    OTHER,
    PICTURE,
    converse,
    row,
    table,
    to_sam,
    to_yolof,
)

pytestmark = pytest.mark.any_dtype


def test_only_input_data_is_needed(answer: Callable[..., Any]) -> None:
    bare = {"input_data": {"columns": ["image"], "data": [[PICTURE]]}}
    expected = answer(bare)
    assert len(expected) == 1 and expected[0]["boxes"]
    for more in ({"params": None}, {"params": {}}, {"params": {"nobody_knows": 1}}, {"extra": [1], "params": {}}):
        assert answer(bare | more) == expected
    for index in ([0], ["a"], [None], None):
        assert answer(table(["image"], [[PICTURE]], index=index, more=1)) == expected


def test_a_single_column_may_be_flat(answer: Callable[..., Any]) -> None:
    flat = answer(table(["image"], [PICTURE, OTHER]))
    assert flat == answer(table(["image"], [[PICTURE], [OTHER]]))
    assert len(flat) == 2 and flat[0] != flat[1]


def test_no_rows_are_answered_with_none(answer: Callable[..., Any]) -> None:
    for path in ("/score", "/yolof/score", "/pipeline/score"):
        assert answer(table(["image"], [], index=[]), path) == []
    for path in ("/score", "/sam/score"):
        assert answer(table(COLUMNS, []), path) == []


def test_columns_come_in_any_order_among_others(answer: Callable[..., Any]) -> None:
    boxes = "[[10, 10, 90, 50]]"
    expected = answer(to_sam(row(boxes=boxes)))
    columns = ["multimask_output", "note", "input_labels", "input_boxes", "image", "input_points"]
    assert_same(answer(table(columns, [[False, {"any": 1}, "", boxes, PICTURE, ""]])), expected)
    expected = answer(to_yolof(PICTURE))
    assert answer(table(["note", "image"], [[1, PICTURE]])) == expected


def test_the_columns_decide_who_answers(answer: Callable[..., Any]) -> None:
    prompts, images = to_sam(row(boxes="[[10, 10, 90, 50]]")), to_yolof(PICTURE)
    assert_same(answer(prompts, "/score"), answer(prompts, "/sam/score"))
    assert answer(images, "/score") == answer(images, "/yolof/score")
    assert "boxes" in answer(prompts, "/yolof/score")[0]  # to which the prompts are extra columns


def test_prompts_are_lists_or_literals_of_lists(answer: Callable[..., Any]) -> None:
    points, boxes, labels = [[[20, 20], [90.5, 40]]], [[10, 10, 90, 50]], [[1, 0]]
    expected = answer(to_sam(row(points=points, boxes=boxes, labels=labels)))
    spellings: list[Callable[[Any], Any]] = [
        str,
        json.dumps,
        lambda value: f" {value}\n",
        lambda value: str(value).replace("[", "(").replace("]", ",)"),
    ]
    for spelt in spellings:
        assert_same(answer(to_sam(row(points=spelt(points), boxes=spelt(boxes), labels=spelt(labels)))), expected)
    with pytest.raises(AssertionError):  # the labels do arrive
        assert_same(answer(to_sam(row(points=points, boxes=boxes))), expected)


@pytest.mark.parametrize("nothing", ["", None, "None", "null", "nan", "NaN", "  ", float("nan")])
def test_no_prompt_has_many_spellings(http: httpx.Client, answer: Callable[..., Any], nothing: object) -> None:
    def post(**columns: Any) -> Any:
        # httpx refuses to write NaN, which pandas writes for a missing value.
        response = http.post("/score", content=json.dumps(to_sam(row(**columns))))
        assert response.status_code == 200, response.text
        return response.json()

    assert post(points=nothing, boxes="[[10, 10, 90, 50]]", labels=nothing) == post(boxes="[[10, 10, 90, 50]]")
    assert post(points="[[[20, 20]]]", boxes=nothing) == post(points="[[[20, 20]]]")
    unprompted = post(points=nothing, boxes=nothing, labels=nothing)
    assert len(unprompted[0]["predictions"]) == 1


@pytest.mark.parametrize(
    ("value", "count"), [(True, 3), (False, 1), (None, 3), ("False", 3), ("", 3), (0, 3), (1, 3), ([], 3)]
)
def test_multimask_output_is_three_masks_unless_it_is_false(
    answer: Callable[..., Any], value: object, count: int
) -> None:
    (answered,) = answer(to_sam(row(points="[[[20, 20]], [[90, 40]]]", multimask=value)))
    assert [len(one["mask_per_prediction"]) for one in answered["predictions"]] == [count, count]


def test_an_image_is_base64_in_any_wrapping_or_a_url(answer: Callable[..., Any], model_folders: Any) -> None:
    data = base64.b64decode(PICTURE)

    expected = answer(to_yolof(PICTURE))
    for image in (base64.encodebytes(data).decode(), f"data:image/png;base64,{PICTURE}"):
        assert answer(to_yolof(image)) == expected

    async def conversation(client: httpx.AsyncClient, app: FastAPI) -> None:
        response = await client.post("/score", json=to_yolof(url))
        assert response.status_code == 200, response.text
        assert_same(response.json(), expected)

    with web_server({"/picture.png": data}) as root:
        url = f"{root}/picture.png"
        detector = str(model_folders.detector)
        converse(Settings(detector=detector, segmenter="none", device="cpu", image_urls="any"), conversation)
