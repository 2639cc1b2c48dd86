"""Generated input of every kind: the parsers raise nothing but their own errors, and the service answers nothing 5xx.

A few cases of each, the same every time; `python -m benchmarks.reliability fuzz` sends as many as one likes.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.contract import schemas
from app.contract.mask_prompts import mask_logits
from app.contract.prompts import resolve_prompts
from app.errors import BadRequest
from benchmarks.reliability.bad_requests import FILES, ROUTES, bad_requests, broken, good_request
from benchmarks.reliability.fuzz import send
from models.images.decoding import ImageError, decode_image
from tests.app.same_answers import assert_same

seeded = settings(
    max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
columns = st.permutations(schemas.SEGMENTER_COLUMNS) | st.lists(
    st.sampled_from(schemas.SEGMENTER_COLUMNS) | st.text(max_size=3)
)
prompts = (
    values
    | st.text("[](),0123456789.-e \n", max_size=40)
    | st.lists(st.lists(st.floats(-200, 200), max_size=5), max_size=3)
)
masks = (
    prompts
    | st.binary(max_size=300).map(lambda data: base64.b64encode(data).decode())
    | st.binary(min_size=128, max_size=128).map(lambda data: [base64.b64encode(data).decode()])
    | st.binary(max_size=60).map(lambda data: base64.b64encode(b"\x93NUMPY\1\0" + data).decode())
)
tables = st.fixed_dictionaries(
    {
        "columns": columns | values,
        "data": st.lists(st.lists(prompts, min_size=5, max_size=5) | values, max_size=3) | values,
    },
    optional={"index": values},
)
params = st.dictionaries(
    st.sampled_from(
        [
            *("score_threshold", "iou_threshold", "max_detections", "coordinates", "mask_format", "exif_orientation"),
            *("min_region_area", "fill_holes", "no_overlaps", "class_agnostic_nms", "tight_boxes"),
            *("tiles", "tile_overlap", "tile_merge"),
        ]
    ),
    values,
    max_size=3,
)
bodies = st.one_of(
    st.binary(max_size=100),
    values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"input_data": tables | values}, optional={"params": params | values}).map(
        lambda value: json.dumps(value).encode()
    ),
)


@seeded
@given(bodies)
def test_a_body_is_a_request_or_a_bad_one(body: bytes) -> None:
    try:
        request = schemas.parse_request(body, max_rows=8)
        schemas.detector_rows(request)
        rows = schemas.segmenter_rows(request, max_prompts=8)
        for number, row in enumerate(rows):
            resolve_prompts(row.prompts, (48, 64), normalized=request.params.coordinates == "normalized", row=number)
    except BadRequest as error:
        assert 0 < len(error.message) < 1000
        error.message.encode("ascii", "backslashreplace")


@seeded
@given(st.lists(prompts, min_size=3, max_size=3), st.booleans(), masks)
def test_prompts_are_prompts_or_a_bad_request(cells: list[Any], normalized: bool, mask: Any) -> None:
    table = {"columns": [*schemas.SEGMENTER_COLUMNS, "input_masks"], "data": [["", *cells, True, mask]]}
    request = schemas.parse_request(json.dumps({"input_data": table}).encode(), max_rows=1)
    try:
        (row,) = schemas.segmenter_rows(request, max_prompts=8)
        resolved = resolve_prompts(row.prompts, (48, 64), normalized=normalized, row=0)
        if resolved is not None and row.masks is not None:
            logits = mask_logits(row.masks, (48, 64), 8, lambda mask: np.zeros((8, 8)), 0)
            resolved = replace(resolved, mask_logits=logits)
    except BadRequest as error:
        assert error.row == 0 and error.message.startswith("row 0, input_")
    else:
        assert resolved is None or 1 <= len(resolved) <= 8


@pytest.mark.filterwarnings("ignore")  # Pillow's, of metadata
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_every_hundredth_or_with_changed_bytes_is_a_picture_or_an_image_error(name: str) -> None:
    data = FILES[name]
    rng = random.Random(name)
    for bad in [data[: len(data) * percent // 100] for percent in range(100)] + [broken(rng, data) for _ in range(200)]:
        try:
            image = decode_image(bad, exif_orientation=rng.random() < 0.5, max_pixels=1_000_000)
        except ImageError as error:
            assert 10 < len(str(error)) < 250
        else:
            assert image.ndim == 3 and image.shape[2] == 3 and image.size


@pytest.fixture
def good_answers(service: Any) -> Callable[..., list[Any]]:
    """What good requests are answered."""

    def ask(*paths: str) -> list[Any]:
        answers = []
        for path in paths:
            response = httpx.post(f"{service.url}{path}", content=good_request(path), timeout=60, trust_env=False)
            assert response.status_code == 200, response.text
            answers.append(response.json())
        return answers

    return ask


def test_bad_requests_are_answered_as_such_and_harm_nobody(
    service: Any, good_answers: Callable[..., list[Any]]
) -> None:
    expected = good_answers(*ROUTES)
    with httpx.Client(base_url=service.url, timeout=120, trust_env=False) as client:
        for number, request in zip(range(210), bad_requests(seed=1), strict=False):
            response = send(client, request)
            assert response.status_code < 500, (number, request.kind, response.text)
    assert_same(good_answers(*ROUTES), expected)  # later prompts on a photo may round otherwise


@pytest.mark.parametrize("name", FILES)
def test_broken_files_are_answered_as_such_and_harm_nobody(
    service: Any, good_answers: Callable[..., list[Any]], name: str
) -> None:
    expected = good_answers("/yolof/score")
    data, rng = FILES[name], random.Random(name)
    bad = [data[: len(data) * percent // 100] for percent in range(0, 100, 20)] + [broken(rng, data) for _ in range(5)]
    with httpx.Client(base_url=service.url, timeout=120, trust_env=False) as client:
        for file in bad:
            body = {"input_data": {"columns": ["image"], "data": [base64.b64encode(file).decode()]}}
            assert client.post("/yolof/score", json=body).status_code in (200, 400)
    assert good_answers("/yolof/score") == expected


def test_the_service_answers_as_it_describes(service: Any) -> None:
    """By its own OpenAPI: to values that it allows and to others come the statuses and answers that it names."""
    description = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [found.ok() for found in description.get_all_operations()]
    assert {operation.path for operation in operations} >= {*ROUTES, "/", "/version"}
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    for operation in operations:
        for mode in modes if operation.path in ROUTES else modes[:1]:

            @settings(
                max_examples=10,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=[HealthCheck.too_slow],
            )
            @given(operation.as_strategy(generation_mode=mode))
            def conforms(case: schemathesis.Case) -> None:
                case.call_and_validate(
                    checks=[
                        not_a_server_error,
                        status_code_conformance,
                        content_type_conformance,
                        response_schema_conformance,
                    ],
                    timeout=60,
                )

            conforms()
