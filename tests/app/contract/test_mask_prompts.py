"""Masks as prompts in a row: what is read, what belongs to which prompt, and what is refused."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.contract import schemas
from app.contract.mask_prompts import mask_logits
from app.contract.masks import encode_logits, encode_png
from app.contract.schemas import Row, parse_params, parse_request, segmenter_rows
from app.errors import BadRequest
from tests.app.scoring_requests import encoded

SIDE = 8
LOGITS = np.linspace(-20, 20, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.float16)
MASK = np.zeros((30, 40), bool)
MASK[5:20, 10:30] = True
COLUMNS = [*schemas.SEGMENTER_COLUMNS, "input_masks"]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def npy(array: np.ndarray) -> str:
    file = BytesIO()
    np.save(file, array)
    return b64(file.getvalue())


def picture(array: np.ndarray, mode: str | None = None, file_format: str = "PNG") -> str:
    image = Image.fromarray(array)
    return encoded(image if mode is None else image.convert(mode), file_format)


RAW = b64(LOGITS.tobytes())
GREY = MASK.astype(np.uint8) * 255
indexed = Image.fromarray(MASK.astype(np.uint8))
indexed.putpalette([0, 0, 0, 128, 0, 64])
PALETTE = encoded(indexed)


def rows(masks: object, points: object = "", boxes: object = "", most: int = 8, times: int = 1) -> list[Row]:
    data = [["image", points, boxes, "", True, masks]] * times
    body = json.dumps({"input_data": {"columns": COLUMNS, "data": data}}).encode()
    return segmenter_rows(parse_request(body, 100), most)


def logits_of(masks: object, **others: Any) -> tuple[np.ndarray | None, ...]:
    (row,) = rows(masks, **others)
    assert row.masks is not None
    return mask_logits(row.masks, MASK.shape, SIDE, lambda mask: mask.astype(np.float16), 0)


@pytest.mark.parametrize(
    "text",
    {
        "raw float16": RAW,
        "raw float32": b64(LOGITS.astype("<f4").tobytes()),
        "npy": npy(LOGITS),
        "npy of SamPredictor's shape": npy(LOGITS.astype(np.float32)[None]),
        "npy of transformers' shape": npy(LOGITS.astype(np.float64)[None, None]),
        "npy, columns first": npy(np.asfortranarray(LOGITS)),
        "npy, big-endian": npy(LOGITS.astype(">f4")),
        "what an answer has": encode_logits(LOGITS.astype(np.float32)),
        "in lines": base64.encodebytes(LOGITS.tobytes()).decode(),
        "a data: URL": "data:application/octet-stream;base64," + RAW,
        "for URLs, unpadded": RAW.replace("+", "-").replace("/", "_").rstrip("="),
    }.items(),
    ids=lambda item: item[0],
)
def test_logits_are_read_in_every_form(text: tuple[str, str]) -> None:
    for value in (text[1], [text[1]], json.dumps([text[1]]), str([text[1].replace("\n", "")])):
        (logits,) = logits_of(value, boxes=[[1, 2, 3, 4]])
        assert logits is not None and logits.shape == (SIDE, SIDE)
        np.testing.assert_array_equal(logits, LOGITS)


@pytest.mark.parametrize(
    "text",
    {
        "the service's own": encode_png(MASK),
        "of one bit": picture(GREY, "1"),
        "0 and 1": picture(MASK.astype(np.uint8)),
        "RGB": picture(GREY, "RGB"),
        "RGBA": picture(GREY, "RGBA"),
        "with a palette": PALETTE,
        "of 16 bits": picture(MASK.astype(np.uint16) * 300),
        "cut out": picture(np.stack([np.full_like(GREY, 255)] * 3 + [GREY], -1)),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_binary_mask_is_what_is_neither_black_nor_transparent(text: tuple[str, str]) -> None:
    (logits,) = logits_of(text[1])
    assert logits is not None
    np.testing.assert_array_equal(logits > 0, MASK)


def test_each_prompt_has_its_own_mask_or_none() -> None:
    found = logits_of([RAW, None, "", encode_png(MASK)], boxes=[[1, 2, 3, 4]] * 4)
    assert [None if one is None else one.shape for one in found] == [(SIDE, SIDE), None, None, MASK.shape]
    (text,) = rows(f"['{RAW}', None]", points=[[[1, 1]], [[2, 2]]])
    assert text.masks is not None and [one is None for one in text.masks] == [False, True]
    (alone,) = rows([RAW, RAW])
    assert alone.prompts is not None and alone.prompts.boxes_xyxy is None and len(alone.masks or ()) == 2


@pytest.mark.parametrize("nothing", ["", None, "null", [None, None], "[null, null]", [], "[]", "[[]]"], ids=repr)
def test_nothing_beside_prompts_changes_nothing(nothing: object) -> None:
    (row,) = rows(nothing, boxes=[[1, 2, 3, 4], [2, 3, 4, 5]])
    assert row.masks is None and row.prompts is not None and len(row.prompts) == 2


def test_an_empty_list_alone_wants_no_prediction_and_nothing_is_unprompted() -> None:
    assert [one.prompts for one in rows([])] == [None] == [one.prompts for one in rows("[]", boxes="[]")]
    assert [one.prompts is not None and one.masks is None for one in rows("") + rows(None)] == [True, True]
    (row,) = rows(RAW, boxes=[])  # a mask is a prompt, beside which the empty list is as good as nothing
    assert row.prompts is not None and len(row.masks or ()) == 1


def test_a_request_may_have_masks_without_other_columns_being_there() -> None:
    with pytest.raises(BadRequest, match="input_points, input_boxes, input_labels, multimask_output missing"):
        segmenter_rows(parse_request(b'{"input_data": {"columns": ["image", "input_masks"], "data": []}}', 1), 1)
    assert parse_request(b'{"input_data": {"columns": ["input_masks"], "data": []}}', 1).has_prompts


def test_logits_are_asked_for_by_a_flag() -> None:
    assert parse_params({"return_logits": True}).return_logits and not parse_params({}).return_logits
    with pytest.raises(BadRequest, match=r"^params\.return_logits: expected true or false, got 1$"):
        parse_params({"return_logits": 1})


FORM = "expected base64 of logits, or of a mask as a PNG file, one for each prompt, got"
OURS = "mask 0: expected logits of 8 x 8, as this segmenter gives them"
SIZES = r": 128 bytes \(float16\) or 256 bytes \(float32\), a .npy or a PNG file, got 100 bytes of something else"
TWO = GREY // 2 + np.arange(40, dtype=np.uint8)
BOX = [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("masks", "boxes", "message"),
    [
        ([RAW], BOX * 2, r"expected one mask for each prompt \(2\), got 1; null stands for none"),
        ([RAW] * 3, BOX * 2, r"expected one mask for each prompt \(2\), got 3; masks of other objects stand in"),
        ([RAW, None], "", "expected a mask for each prompt, as this row .* no boxes, got null for prompt 1"),
        (LOGITS.tolist(), BOX, FORM + r" a list of numbers; send base64 of array.astype\('float16'\).tobytes\(\)"),
        ([[RAW]], BOX, FORM + " a list within the list"),
        (7, BOX, FORM + " a number"),
        ({"size": [30, 40], "counts": "x"}, BOX, FORM + " run lengths; send the mask as a PNG file"),
        ("https://example.com/mask.png", BOX, FORM + " .*, which is not base64; URLs are fetched for images alone"),
        ("[1, 2", BOX, FORM + r" '\[1, 2', which is not a list of texts"),
        ("data:image/png;base64,", BOX, FORM + " no bytes"),
        (b64(b"x" * 100), BOX, OURS + SIZES),
        (npy(LOGITS[:4]), BOX, OURS + ", got 4 x 8"),
        (npy(np.stack([LOGITS] * 3)), BOX, OURS + ", got 3 x 8 x 8; choose one of them, and send one file for each"),
        (npy(LOGITS > 0), BOX, r"mask 0: expected float16, .*, got bool; send a binary mask as a PNG file"),
        (npy(LOGITS)[:-8], BOX, "mask 0: the .npy file is truncated: expected 64 numbers of float16"),
        (npy(LOGITS)[:20], BOX, "mask 0: the .npy file is damaged"),
        (npy(np.full((SIDE, SIDE), np.nan)), BOX, "mask 0: expected logits from -65504 to 65504, got others or NaN"),
        (npy(np.full((SIDE, SIDE), 1e6)), BOX, "mask 0: expected logits from -65504 to 65504"),
        (picture(GREY[:, :30]), BOX, r"mask 0: expected the image's size, 40 x 30 \(width x height\), got 30 x 30$"),
        (picture(GREY.T.copy()), BOX, r"mask 0: .*, got 30 x 40; was the photo turned\? See \"exif_orientation\""),
        (picture(GREY, None, "JPEG"), BOX, "mask 0: expected a PNG file, which keeps a mask's pixels, got JPEG"),
        (picture(0 * GREY), BOX, "mask 0: expected a mask of something, got black alone; null stands for no mask"),
        (picture(TWO), BOX, "mask 0: expected black and one other colour, got more"),
        (picture(GREY)[:72], BOX, "mask 0: the PNG image is truncated"),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_told_with_row_and_column(masks: object, boxes: object, message: str) -> None:
    with pytest.raises(BadRequest, match="^row 0, input_masks: " + message) as caught:
        logits_of(masks, boxes=boxes)
    assert caught.value.row == 0 and len(caught.value.message) < 400


def test_a_file_is_not_believed_about_its_size() -> None:
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})
    with pytest.raises(BadRequest, match="got 1000000000 x 1000000000"):
        logits_of(b64(file.getvalue()), boxes=BOX)


def test_masks_are_limited_by_row_and_by_request() -> None:
    with pytest.raises(BadRequest, match="^row 0, input_masks: expected at most 8 prompts, got 9$"):
        rows([RAW] * 9)
    assert len(rows([RAW] * 4, times=2)) == 2
    with pytest.raises(BadRequest, match="^input_masks: expected at most 8 masks in a request, got more$"):
        rows([RAW] * 4, times=3)
