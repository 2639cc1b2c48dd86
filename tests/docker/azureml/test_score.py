"""score.py in AzureML's own scoring server, as a process: the service's answers, and its words for what is wrong."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.contract import schemas
from tests.app import conftest
from tests.app.conftest import Service, environment
from tests.app.same_answers import assert_same
from tests.docker.azureml.conftest import AZUREML, REPOSITORY, wire

SHARED = REPOSITORY.parent / "shared" / "requests"
PROMPTED = {
    "columns": list(schemas.SEGMENTER_COLUMNS),
    "data": [
        [wire(1), "[[[80, 60]], [[20, 30]]]", "", "", True],
        [wire(1), "[[[80, 60], [20, 30]]]", "", "", True],
        [wire(1), "", "[[10, 20, 90, 100]]", "", True],
        [wire(1), "[[[80, 60]]]", "[[10, 20, 90, 100]]", "[[0]]", False],
    ],
}
# The forms that the catalog's own clients send.
REQUESTS: dict[str, dict[str, Any]] = {
    "images": {"input_data": {"columns": ["image"], "index": [0, 1], "data": [wire(1), wire(2)]}, "params": {}},
    "prompts": {"input_data": PROMPTED | {"index": [0, 1, 2, 3]}, "params": {}},
    "params": {
        "input_data": {"columns": ["image"], "data": [[wire(1)]]},
        "params": {"score_threshold": 0.0, "max_detections": 3},
    },
    "masks as Azure has them": {"input_data": PROMPTED, "params": {"response_schema": "live", "mask_format": "rle"}},
    "no rows": {"input_data": {"columns": ["image"], "data": []}},
}
ORIGINALS = ("yolof_card", "sam_card", "sam_notebook")
BAD: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"input_data": "\xff"}',
    "a list": b"[]",
    "no columns": b'{"input_data": {"data": []}}',
    "no image": json.dumps({"input_data": {"columns": ["image"], "data": [[wire(1)], ["abc"]]}}).encode(),
    "a box of three": json.dumps(
        {"input_data": PROMPTED | {"data": [[wire(1), "", "[[1, 2, 3]]", "", True]]}}
    ).encode(),
    "half of the prompt columns": b'{"input_data": {"columns": ["image", "input_boxes"], "data": [["a", "b"]]}}',
    "a threshold of seven": b'{"input_data": {"columns": ["image"], "data": []}, "params": {"score_threshold": 7}}',
}


def serving(python: str, log_file: Path, settings: dict[str, str]) -> Iterator[Service]:
    """AzureML's server with score.py, once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "azureml_inference_server_http", "--entry_script", "score.py", "--port", str(port)]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=AZUREML, env=environment(settings), stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + conftest.STARTS_WITHIN_S
        while process.poll() is None and time.monotonic() < deadline:
            try:  # it listens before it has loaded, and answers after that
                httpx.get(url, timeout=conftest.STARTS_WITHIN_S).raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield Service(url, process, log_file)
    finally:
        process.terminate()
        try:
            process.wait(timeout=conftest.STARTS_WITHIN_S)  # gunicorn itself gives a process thirty seconds
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def scored(
    azureml_python: str, models_set: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    log_file = tmp_path_factory.mktemp("score") / "log"
    settings = models_set | {"GUNICORN_CMD_ARGS": "--threads 4", "BOX2MASK_MAX_BODY_MB": "4"}
    for started in serving(azureml_python, log_file, settings):
        assert started.process.poll() is None, started.log()
        yield started


def ask(service: Service, content: Any) -> httpx.Response:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return httpx.post(f"{service.url}/score", content=body, timeout=conftest.STARTS_WITHIN_S)


@pytest.mark.parametrize("name", REQUESTS)
def test_it_answers_as_the_service(name: str, scored: Service, service: Service) -> None:
    answer, expected = ask(scored, REQUESTS[name]), ask(service, REQUESTS[name])
    assert answer.status_code == expected.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert len(expected.json()) == len(REQUESTS[name]["input_data"]["data"])
    assert_same(answer.json(), expected.json())


@pytest.mark.parametrize("name", ORIGINALS)
def test_it_answers_the_catalogs_requests_as_the_service(name: str, scored: Service, service: Service) -> None:
    file = SHARED / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"there is no {name}.json")
    answer, expected = ask(scored, file.read_bytes()), ask(service, file.read_bytes())
    assert answer.status_code == expected.status_code == 200, answer.text
    assert_same(answer.json(), expected.json())


def test_the_content_type_does_not_matter(scored: Service, service: Service) -> None:
    """curl says application/x-www-form-urlencoded of all that it sends."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps(REQUESTS["images"]).encode()
    answer = httpx.post(f"{scored.url}/score", content=body, headers=form, timeout=60)
    assert_same(answer.json(), ask(service, REQUESTS["images"]).json())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_in_the_services_words(name: str, scored: Service, service: Service) -> None:
    answer, expected = ask(scored, BAD[name]), ask(service, BAD[name])
    assert (answer.status_code, answer.json()) == (expected.status_code, expected.json())
    assert answer.status_code == 400
    assert answer.json().keys() == {"message"}
    assert answer.headers["x-ms-run-function-failed"] == "False"


def test_a_body_over_the_limit_is_refused(scored: Service) -> None:
    answer = ask(scored, b" " * (4 * 2**20 + 1))
    assert answer.status_code == 413
    assert answer.json() == {"message": f"expected a body of at most {4 * 2**20} bytes, got more"}


def test_only_post_is_answered(scored: Service, service: Service) -> None:
    answer = httpx.get(f"{scored.url}/score", timeout=60)
    assert (answer.status_code, answer.json()) == (405, httpx.get(f"{service.url}/score", timeout=60).json())


def test_several_requests_are_answered_at_once(scored: Service, service: Service) -> None:
    contents = [REQUESTS["images"], REQUESTS["prompts"], BAD["no image"]] * 4
    with ThreadPoolExecutor(len(contents)) as pool:
        answers = list(pool.map(lambda content: ask(scored, content), contents))
    assert [answer.status_code for answer in answers] == [200, 200, 400] * 4
    for name, found in (("images", answers[::3]), ("prompts", answers[1::3])):
        expected = ask(service, REQUESTS[name]).json()
        for answer in found:
            assert_same(answer.json(), expected)


def test_with_one_model_the_other_is_told_to_be_missing(
    azureml_python: str, models_set: dict[str, str], tmp_path: Path
) -> None:
    """In the one process of AzureML's server without threads; and what nobody foresaw stays in its log."""
    # A module of this name is found before all others, and fails where the requests come through.
    (tmp_path / "sitecustomize.py").write_text(
        "import app.contract.schemas as schemas\n"
        "parse = schemas.parse_request\n"
        "def parse_request(body, most):\n"
        "    if b'fail' in body: raise RuntimeError('a secret')\n"
        "    return parse(body, most)\n"
        "schemas.parse_request = parse_request\n"
    )
    settings = models_set | {"BOX2MASK_SEGMENTER": "none", "PYTHONPATH": str(tmp_path)}
    for started in serving(azureml_python, tmp_path / "log", settings):
        assert ask(started, REQUESTS["images"]).status_code == 200
        answer = ask(started, REQUESTS["prompts"])
        assert answer.status_code == 404
        assert answer.json()["message"].startswith("this service has no segmenter, ")
        answer = ask(started, b"fail")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "a secret" in started.log()
        assert answer.headers["x-ms-run-function-failed"] == "True"


def test_models_that_do_not_load_end_the_server_with_status_3(azureml_python: str, tmp_path: Path) -> None:
    settings = {"BOX2MASK_DETECTOR": str(tmp_path / "absent"), "BOX2MASK_SEGMENTER": "none"}
    for started in serving(azureml_python, tmp_path / "log", settings):
        assert started.process.wait(timeout=conftest.STARTS_WITHIN_S) == 3
        assert re.search(r"BOX2MASK_DETECTOR=\S+absent: there is no such folder", started.log())
