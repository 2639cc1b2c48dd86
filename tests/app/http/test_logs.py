"""The log of a real service as JSON, with the metrics on a port of their own; and both forms by themselves."""

from __future__ import annotations

import base64
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import Any, Literal

import httpx
import pytest
from PIL import Image

from app.http import logs

PROMPT = [[3, 4, 33, 44]]


@contextmanager
def configured(form: Literal["text", "json"]) -> Iterator[logging.Logger]:
    """A logger that writes as `logs.configure` has it."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        logs.configure("info", form)
        yield logging.getLogger("box2mask.test")
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = kept
        root.setLevel(level)


def speak(logger: logging.Logger) -> None:
    logger.debug("not this")
    logger.info("done", extra={"request_id": "a-1", "client": "", "timings": {"parse": 1.5}, "error": "two\nlines"})
    try:
        raise ValueError("broken")
    except ValueError as error:
        logger.error("request %s failed", "a-1", exc_info=error)


def test_text_has_the_fields_behind_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    with configured("text") as logger:
        speak(logger)
    done, failed, *traceback = capsys.readouterr().err.splitlines()
    assert done == r'INFO box2mask.test: done request_id=a-1 parse=1.5 error="two\nlines"'
    assert failed == "ERROR box2mask.test: request a-1 failed"
    assert traceback[0].startswith("Traceback") and traceback[-1] == "ValueError: broken"


def test_json_has_a_line_for_each_also_for_tracebacks_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with configured("json") as logger, warnings.catch_warnings():
        speak(logger)
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    done, failed, warned = map(json.loads, capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", done.pop("time"))
    assert done == {
        "level": "INFO",
        "logger": "box2mask.test",
        "message": "done",
        "request_id": "a-1",
        "client": "",
        "timings": {"parse": 1.5},
        "error": "two\nlines",
    }
    assert failed["message"] == "request a-1 failed" and failed["exc_info"].endswith("ValueError: broken")
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING") and "old" in warned["message"]


def test_a_service_logs_a_json_object_a_line(
    serve: Callable[..., AbstractContextManager[Any]], model_folders: Any
) -> None:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), "green").save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    columns = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]

    def request(boxes: object) -> dict[str, Any]:
        return {"input_data": {"columns": columns, "data": [[image, "", boxes, "", False]]}}

    with serve(
        BOX2MASK_LOG_FORMAT="json",
        BOX2MASK_METRICS_PORT="0",
        BOX2MASK_DETECTOR="none",
        BOX2MASK_SEGMENTER=str(model_folders.segmenter),
        BOX2MASK_DEVICE="cpu",
    ) as service:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            assert client.post("/score", json=request(PROMPT), headers={"x-request-id": "one"}).status_code == 200
            wrong = client.post("/score", json=request("SECRET"), headers={"x-request-id": "two"})
            assert wrong.status_code == 400 and "SECRET" in wrong.text
            assert client.get("/metrics").status_code == 404  # they have a port of their own
            assert client.get("/").status_code == 200
        lines = [json.loads(line) for line in service.log().splitlines()]
        (own,) = (
            re.search(r"http://127.0.0.1:\d+/metrics", line["message"])
            for line in lines
            if "metrics" in line["message"] and "request_id" not in line
        )
        assert own is not None
        assert 'box2mask_requests_total{route="/score",status="200"} 1.0' in httpx.get(own[0]).text
    lines = [json.loads(line) for line in service.log().splitlines()]
    first, second, third = (line for line in lines if line["logger"] == "box2mask.request")
    assert first["timings"].keys() == {
        "receive", "parse", "decode", "queue", "encode", "prompt", "post", "serialise",
    }  # fmt: skip
    assert first["request_id"] == "one" and first["message"].startswith("POST /score 200 in ")
    assert (first["method"], first["route"], first["status"], first["rows"]) == ("POST", "/score", 200, 1)
    assert first["bytes_in"] > len(image) and first["bytes_out"] > 100 and first["client"] == ""
    assert (second["request_id"], second["status"]) == ("two", 400)
    assert second["error"] == "row 0, input_boxes: expected (num_boxes, 4), got ..."
    assert (third["route"], third["status"]) == ("other", 404)
    # Neither images nor prompts; uvicorn's own lines in the same form, and none of its access log.
    assert image[:20] not in service.log() and "SECRET" not in service.log()
    assert {"Application startup complete.", "Application shutdown complete."} <= {line["message"] for line in lines}
    assert not any(line["logger"] == "uvicorn.access" for line in lines)
