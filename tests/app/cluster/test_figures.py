"""The figures of several processes as one answer."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from app.cluster.service.figures import merged
from app.http.admission import Admission
from app.http.metrics import Metrics


def test_each_processs_figures_are_told_apart() -> None:
    edge, replica = Metrics(Admission(5), with_engine=False), Metrics(None)
    edge.on_request("/score", 200, 0.5, rows=2, bytes_in=3, bytes_out=4, reason="")
    replica.on_stage("decode", 0.25)
    text, content_type = merged({"edge-a": edge.text()[0], "replica-b": replica.text()[0]})
    assert content_type.startswith("text/plain")
    samples = {
        (one.name, one.labels["process"]): one.value
        for family in text_string_to_metric_families(text.decode())
        for one in family.samples
    }
    assert samples["box2mask_requests_total", "edge-a"] == 1
    assert samples["box2mask_stage_seconds_sum", "replica-b"] == 0.25
    assert samples["box2mask_requests_limit", "edge-a"] == 5
    assert ("box2mask_requests_limit", "replica-b") not in samples  # it lets nobody in
    assert samples["box2mask_ready", "replica-b"] == 0
    assert ("box2mask_ready", "edge-a") not in samples  # it has no models
    assert text.count(b"# TYPE box2mask_requests_total counter") == 1
