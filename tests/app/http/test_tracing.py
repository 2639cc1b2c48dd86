"""Traces of a real service, taken by a collector on loopback that reads OTLP."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from app.http.tracing import Tracing
from app.settings import Settings, SettingsError

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Remembers the spans that are posted to it, with the attributes of where they came from."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.paths: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Collector)
        self.server.paths.add(self.path)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append({one.key: one.value.string_value for one in of_resource.resource.attributes})
            for of_scope in of_resource.scope_spans:
                self.server.spans += of_scope.spans
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_requests_become_spans_with_their_stages(
    serve: Callable[..., AbstractContextManager[Any]], model_folders: Any, collector: Collector
) -> None:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), "green").save(buffer, "PNG")
    columns = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
    row = [base64.b64encode(buffer.getvalue()).decode(), "", [[3, 4, 33, 44]], "", False]
    with (
        serve(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
            OTEL_RESOURCE_ATTRIBUTES="service.instance.id=seven",
            BOX2MASK_LOG_FORMAT="json",
            BOX2MASK_DETECTOR="none",
            BOX2MASK_SEGMENTER=str(model_folders.segmenter),
            BOX2MASK_DEVICE="cpu",
        ) as service,
        httpx.Client(base_url=service.url, timeout=60) as client,
    ):
        content = {"input_data": {"columns": columns, "data": [row]}}
        headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
        assert client.post("/score", json=content, headers=headers).status_code == 200
        assert client.post("/score", json=content).status_code == 200
        assert client.get("/nothing").status_code == 404
        for untraced in ("/", "/health/ready", "/metrics"):
            assert client.get(untraced).status_code == 200
    # It has stopped, and what it had to send is sent.
    assert collector.paths == {"/v1/traces"}
    for resource in collector.resources:
        assert resource["service.name"] == "box2mask" and resource["service.instance.id"] == "seven"
    requests = [span for span in collector.spans if span.kind == span.SPAN_KIND_SERVER]
    assert [span.name for span in requests] == ["POST /score", "POST /score", "GET"]
    first, second, _ = requests
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert second.trace_id.hex() != TRACE_ID and not second.parent_span_id
    stages = {}
    for request in (first, second):
        children = [span for span in collector.spans if span.parent_span_id == request.span_id]
        assert all(span.trace_id == request.trace_id for span in children)
        for span in children:  # the clock of spans and that of stages may differ by a little
            assert request.start_time_unix_nano - 10**8 <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= request.end_time_unix_nano + 10**8
        stages[request.span_id] = {span.name for span in children}
    everything = {"receive", "parse", "decode", "queue", "encode", "prompt", "post", "serialise"}
    assert stages[first.span_id] == everything
    assert stages[second.span_id] == everything - {"encode"}
    lines = [json.loads(line) for line in service.log().splitlines()]
    traced = [line.get("trace_id") for line in lines if line["logger"] == "box2mask.request"]
    assert traced == [span.trace_id.hex() for span in requests]


def test_it_is_on_where_the_settings_say_so_or_an_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert [Settings(otel=otel).traces for otel in (None, False, True)] == [False, False, True]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert [Settings(otel=otel).traces for otel in (None, False, True)] == [True, False, True]
    assert Tracing.of(Settings(otel=False)) is None


@pytest.mark.parametrize(
    ("settings", "cause"),
    [(Settings(otel=True), "BOX2MASK_OTEL"), (Settings(otlp_endpoint="http://x"), "OTEL_EXPORTER_OTLP_ENDPOINT")],
)
def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, cause: str
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=rf"^{cause} asks for OpenTelemetry.*pip install 'box2mask\[otel\]'"):
        Tracing.of(settings)
