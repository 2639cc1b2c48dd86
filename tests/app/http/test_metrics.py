"""The metrics of a real service after real requests, and all that speaks of them: table, dashboard, alert rules."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import promql_parser
import pytest
import torch
import yaml
from PIL import Image
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from app.http.admission import Admission
from app.http.metrics import Metrics
from app.settings import SettingsError
from tests.app.conftest import web_server

REPOSITORY = Path(__file__).parents[3]
DASHBOARD = REPOSITORY / "docker" / "grafana-dashboard.json"
ALERTS = REPOSITORY / "docker" / "alerts.yaml"
DOCUMENT = (REPOSITORY / "docs" / "observability.md").read_text()
COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
# What Prometheus itself adds to what it has scraped.
SCRAPED_LABELS = {"instance", "job"}


def picture(seed: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def images(*values: bytes | str) -> dict[str, Any]:
    data = [[one if isinstance(one, str) else base64.b64encode(one).decode()] for one in values]
    return {"input_data": {"columns": ["image"], "data": data}, "params": {"score_threshold": 0}}


def prompts(image: bytes, boxes: int) -> dict[str, Any]:
    row = [base64.b64encode(image).decode(), "", [[10, 10, 90, 50]] * boxes, "", False]
    return {"input_data": {"columns": COLUMNS, "data": [row]}}


@pytest.fixture(scope="module")
def picture_url() -> Iterator[str]:
    with web_server({"/picture.png": picture(1)}) as root:
        yield f"{root}/picture.png"


class Scrape:
    """What /metrics answered: samples by name and labels, families by name with their type and labels."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = {one.name + ("_total" if one.type == "counter" else ""): one for one in families}
        self.labels: dict[str, set[str]] = {}
        self.values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for name, family in self.families.items():
            self.labels[name] = set()
            for sample in family.samples:
                self.labels.setdefault(sample.name, set()).update(sample.labels)
                self.labels[name] |= set(sample.labels) - {"le"}
                self.values[sample.name, tuple(sorted(sample.labels.items()))] = sample.value

    def __call__(self, name: str, /, **labels: str) -> float:
        return self.values.get((name, tuple(sorted(labels.items()))), 0.0)


def scrape(url: str) -> Scrape:
    response = httpx.get(f"{url}/metrics", timeout=60)
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/plain")
    return Scrape(list(text_string_to_metric_families(response.text)))


@pytest.fixture(scope="module")
def url(start: Any, model_folders: Any, tmp_path_factory: pytest.TempPathFactory, picture_url: str) -> Iterator[str]:
    """A service that has answered requests of every kind."""
    folder = tmp_path_factory.mktemp("metrics")
    settings = {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(model_folders.detector),
        "BOX2MASK_SEGMENTER": str(model_folders.segmenter),
        "BOX2MASK_EMBEDDING_CACHE_DIR": str(folder / "embeddings"),
        "BOX2MASK_MAX_BODY_MB": "1",
        "BOX2MASK_IMAGE_URLS": "any",  # the tests' own are on this machine
    }
    with start(folder / "service.log", settings) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        closed = picture_url.replace("picture.png", "nothing")
        for path, content, status in (
            ("/pipeline/score", images(picture(1), picture(2)), 200),
            ("/sam/score", prompts(picture(1), 3), 200),
            ("/yolof/score", images(picture_url), 200),
            ("/yolof/score", images(picture_url, closed), 400),
            ("/yolof/score", images("http://127.0.0.1:1/"), 400),
            ("/score", images("SECRET!"), 400),
            ("/score", images("A" * 2**20), 413),
            ("/nothing", images(), 404),
            ("/nothing/at/all", images(), 404),
        ):
            assert client.post(path, json=content).status_code == status, path
        yield service.url


@pytest.fixture(scope="module")
def scraped(url: str) -> Scrape:
    return scrape(url)


def test_requests_are_counted_with_bounded_labels(scraped: Scrape) -> None:
    requests = "box2mask_requests_total"
    assert scraped(requests, route="/pipeline/score", status="200") == 1
    assert scraped(requests, route="/yolof/score", status="400") == 2
    assert scraped(requests, route="/score", status="413") == 1
    assert scraped(requests, route="other", status="404") == 2
    refused = "box2mask_refused_requests_total"
    assert scraped(refused, reason="payload_too_large") == 1
    assert scraped(refused, reason="bad_request") == 3
    assert scraped(refused, reason="not_found") == 2
    assert scraped("box2mask_rows_total", route="/pipeline/score") == 2
    assert scraped("box2mask_request_seconds_count", route="/pipeline/score") == 1
    assert scraped("box2mask_response_bytes_total", route="/pipeline/score") > 1000
    assert scraped("box2mask_request_bytes_total", route="/pipeline/score") > len(picture(1) + picture(2))
    assert scraped("box2mask_requests_in_work") == 0 and scraped("box2mask_requests_limit") == 64


def test_what_the_devices_did_is_counted_and_the_warm_up_is_not(scraped: Scrape) -> None:
    assert scraped("box2mask_batch_size_sum", kind="encode") == 2
    # Two images to the pipeline, and one by its URL; where the other URL of a request fails, none is computed.
    assert scraped("box2mask_batch_size_sum", kind="detect") == 3
    assert scraped("box2mask_batch_size_sum", kind="prompt") > 3
    for kind in ("detect", "encode", "prompt"):
        jobs = scraped("box2mask_queue_wait_seconds_count", kind=kind)
        batches = scraped("box2mask_batch_size_count", kind=kind)
        assert batches == scraped("box2mask_stage_seconds_count", stage=kind)
        assert 0 < batches <= jobs
    for stage in ("parse", "decode", "post", "serialise"):
        assert scraped("box2mask_stage_seconds_count", stage=stage) > 0
    assert scraped("box2mask_stage_seconds_count", stage="serialise") == 3
    assert scraped("box2mask_device_up", device="cpu") == 1


def test_fetches_are_counted_by_their_outcome(scraped: Scrape) -> None:
    counts = {
        outcome: scraped("box2mask_url_fetch_seconds_count", outcome=outcome) for outcome in ("ok", "refused", "failed")
    }
    assert counts == {"ok": 2, "refused": 1, "failed": 1}
    assert scraped("box2mask_url_fetch_bytes_total") == 2 * len(picture(1))


def test_the_caches_figures_are_those_of_version(url: str, scraped: Scrape) -> None:
    stats = httpx.get(f"{url}/version", timeout=60).json()["embedding_cache"]
    assert stats["hits"] == 1 and stats["disk"]["writes"] == 2
    for where, figures in (("cache", stats), ("disk", stats.pop("disk"))):
        for name, value in figures.items():
            suffix = "" if name in ("bytes", "entries") else "_total"
            metric = f"box2mask_embedding_{where}_{name}{suffix}"
            assert metric in scraped.families
            if where == "cache":  # the disk is written in the background
                assert scraped(metric) == value
    assert scraped("box2mask_embedding_cache_limit_bytes") == 512 * 2**20


def test_the_models_and_the_process_are_told(scraped: Scrape) -> None:
    assert scraped("box2mask_ready") == 1
    assert scraped("box2mask_model_info", kind="detector", name="detector", demo_weights="false", dtype="float32") == 1
    assert scraped("box2mask_model_info", kind="segmenter", name="segmenter", demo_weights="false", dtype="float32")
    assert scraped("process_resident_memory_bytes") > 50 * 2**20


def test_openmetrics_for_who_asks_for_it(url: str) -> None:
    response = httpx.get(f"{url}/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"}, timeout=60)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert "box2mask_ready" in {family.name for family in openmetrics_families(response.text)}


def test_scrapes_and_requests_at_once_lose_nothing(url: str) -> None:
    before = scrape(url)("box2mask_requests_total", route="/version", status="200")
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(httpx.get, url + path, timeout=60) for path in ("/version", "/metrics") * 10]
        assert {future.result().status_code for future in futures} == {200}
    assert scrape(url)("box2mask_requests_total", route="/version", status="200") == before + 10


# What speaks of them


def test_the_documents_table_has_every_metric_with_its_labels_and_no_other(scraped: Scrape) -> None:
    rows = re.findall(r"^\| `(box2mask_\w+)` \| (.+?) \| (.+) \|$", DOCUMENT, re.MULTILINE)
    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels, _ in rows}
    assert len(listed) == len(rows)
    # Without a GPU a family has no samples, whose labels could be compared.
    assert listed.pop("box2mask_device_memory_bytes") == {"device", "kind"}
    families = {name: scraped.labels[name] for name in scraped.families if name.startswith("box2mask_")}
    assert families.pop("box2mask_device_memory_bytes") == set()
    assert families == listed
    histograms = {name for name, _, text in rows if text.startswith("histogram")}
    assert histograms == {name for name in families if scraped.families[name].type == "histogram"}


def dashboard_queries() -> dict[str, str]:
    board = json.loads(DASHBOARD.read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", ())
    }


def alert_queries() -> dict[str, str]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector in a parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("vector_selector", "expr", "lhs", "rhs", "param"):
        child = getattr(node, name, None)
        if child is not None:
            yield from selectors(child)
    for argument in getattr(node, "args", None) or ():
        yield from selectors(argument)


@pytest.mark.parametrize("queries", [dashboard_queries, alert_queries])
def test_every_query_parses_and_asks_for_what_a_service_has(
    scraped: Scrape, queries: Callable[[], dict[str, str]]
) -> None:
    asked = set()
    for title, query in queries().items():
        # What Grafana puts in the place of its variables.
        query = query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$route", ".*")
        found = list(selectors(promql_parser.parse(query)))
        assert len(found) == len(re.findall(r"\b(?:box2mask|process)_\w+", query)) > 0, title
        for selector in found:
            known = scraped.labels.get(selector.name)
            assert known is not None, f"{title}: there is no {selector.name}"
            labels = {matcher.name for matcher in selector.matchers.matchers}
            if selector.name == "box2mask_device_memory_bytes":
                known = {"device", "kind"}
            assert labels <= known | SCRAPED_LABELS, f"{title}: {selector.name} has no {labels - known}"
            asked.add(selector.name)
    assert len(asked) >= 10


def test_the_dashboard_is_one() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert set(re.findall(r"\$(?!__)\{?(\w+)", DASHBOARD.read_text())) == variables


def test_the_alerts_are_rules_with_a_severity_and_a_summary() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names)
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info") and rule["annotations"]["summary"]


# Without a service


def test_applications_have_registries_of_their_own_and_none_is_the_librarys() -> None:
    one, other = (Metrics(Admission(1)) for _ in range(2))
    one.on_request("/score", 200, 0.1, rows=1, bytes_in=1, bytes_out=1, reason="")
    assert b'box2mask_requests_total{route="/score"' in one.text()[0]
    assert b'box2mask_requests_total{route="/score"' not in other.text()[0]
    assert b"box2mask_ready 0.0" in one.text()[0]  # without models


def test_a_port_of_its_own_is_one_that_is_free() -> None:
    metrics = Metrics(Admission(1))
    with metrics.served("127.0.0.1", 0) as port:
        assert scrape(f"http://127.0.0.1:{port}")("box2mask_ready") == 0
        with (
            pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1 port {port}: .*BOX2MASK_METRICS_PORT"),
            metrics.served("127.0.0.1", port),
        ):
            pass
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_a_gpus_memory_and_a_lost_device_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an engine that says that it has two GPUs, one of which is lost and must not be asked."""
    asked: list[torch.device] = []

    def mem_get_info(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 60, 100

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 20)
    cache = SimpleNamespace(stats=lambda: SimpleNamespace(disk=None), budget_bytes=0)
    monkeypatch.setattr("app.http.metrics._cache", lambda engine: ())
    engine: Any = SimpleNamespace(
        detector=None,
        segmenter=None,
        healthy=False,
        devices=[torch.device("cuda:0"), torch.device("cuda:1")],
        load={"cuda:0": 3, "cuda:1": 0},
        lost={"cuda:1"},
        cache=cache,
        observe=lambda observer: None,
    )
    metrics = Metrics(Admission(1))
    metrics.watch(engine)
    scraped = Scrape(list(text_string_to_metric_families(metrics.text()[0].decode())))
    memory = {
        kind: scraped("box2mask_device_memory_bytes", device="cuda:0", kind=kind)
        for kind in ("allocated", "reserved", "used", "total")
    }
    assert memory == {"allocated": 10, "reserved": 20, "used": 40, "total": 100}
    assert asked == [torch.device("cuda:0")]
    assert scraped("box2mask_device_up", device="cuda:0") == 1 and scraped("box2mask_device_jobs", device="cuda:0") == 3
    assert ("box2mask_device_up", (("device", "cuda:1"),)) in scraped.values
    assert scraped("box2mask_device_up", device="cuda:1") == 0 and scraped("box2mask_ready") == 0
