"""The service's figures for Prometheus, in a registry of the application's own.

Counts what it is told of (requests, stages, batches, fetches), and asks the engine for the rest when it is scraped.
docs/observability.md has a line for each metric.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app import timings
from app.engine.loading import Choice
from app.engine.observer import Observer
from app.http.admission import Admission
from app.settings import SettingsError

if TYPE_CHECKING:
    from app.engine.cache import CacheStats
    from app.engine.disk_tier import DiskStats
    from app.engine.engine import Engine

# From a click on a GPU to a photo on a small processor: 1 ms to 5 min.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_NOTHING = Choice(None, None)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics(Observer):
    """Everything that `/metrics` shows. Any thread may tell it and ask it.

    It is told of a request's stages as its `timings.Listener`, and of the devices' work as their Observer.
    """

    def __init__(self, admission: Admission | None, *, with_engine: bool = True) -> None:
        """admission: of the process that lets requests in. with_engine: whether this one has the models."""
        disable_created_metrics()  # twice as many series for what nobody asks
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._engine = _EngineCollector(admission, with_engine)
        self._registry.register(self._engine)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"box2mask_{name}", text, labels, registry=self._registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"box2mask_{name}", text, labels, buckets=buckets, registry=self._registry)

        self._requests = counter("requests", "Requests answered", "route", "status")
        self._seconds = histogram("request_seconds", "From a request's head to the end of its answer", "route")
        self._rows = counter("rows", "Rows of the requests that could be parsed", "route")
        self._bytes_in = counter("request_bytes", "Bytes of requests' bodies", "route")
        self._bytes_out = counter("response_bytes", "Bytes of answers' bodies", "route")
        self._refused = counter("refused_requests", "Requests refused for what the client or its haste did", "reason")
        self._stages = histogram("stage_seconds", "A step of a stage: an image, a batch, a mask", "stage")
        self._waits = histogram("queue_wait_seconds", "A job's wait for its device", "kind")
        self._batches = histogram("batch_size", "Images, or prompts, computed at once", "kind", buckets=_SIZES)
        self._fetches = histogram("url_fetch_seconds", "A fetch of an image URL", "outcome")
        self._fetched = counter("url_fetch_bytes", "Bytes of the images fetched")

    def watch(self, engine: Engine | None, choice: Choice = _NOTHING) -> None:
        """Show this engine's state and models in a scrape, and be told of its work. None: there is none any more."""
        self._engine.engine, self._engine.choice = engine, choice
        if engine is not None:
            engine.observe(self)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """The metrics and their content type, in the form that an `Accept` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Answer `/metrics` on a port of its own, 0 for a free one; gives the port. Raises SettingsError."""
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host} port {port}: {error.strerror}; BOX2MASK_METRICS_PORT takes another port"
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def on_request(
        self, route: str, status: int, seconds: float, *, rows: int, bytes_in: int, bytes_out: int, reason: str
    ) -> None:
        """A request is over. route: one of the application's, or one name for all others. reason: "" if not refused."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if rows:
            self._rows.labels(route).inc(rows)
        self._bytes_in.labels(route).inc(bytes_in)
        self._bytes_out.labels(route).inc(bytes_out)
        if reason:
            self._refused.labels(reason).inc()

    def on_stage(self, stage: str, seconds: float) -> None:
        self._stages.labels(stage).observe(seconds)

    def on_fetch(self, outcome: str, seconds: float, size: int) -> None:
        self._fetches.labels(outcome).observe(seconds)
        self._fetched.inc(size)

    def on_job(self, kind: str, queued: float, began: float, ended: float) -> None:
        self._waits.labels(kind).observe(began - queued)
        timings.add("queue", queued, began)
        timings.add(kind, began, ended)

    def on_batch(self, kind: str, size: int, seconds: float) -> None:
        self._batches.labels(kind).observe(size)
        self._stages.labels(kind).observe(seconds)


class _EngineCollector(Collector):
    """What is asked for at the time of a scrape; without an engine yet, that the service is not ready."""

    def __init__(self, admission: Admission | None, with_engine: bool) -> None:
        self.engine: Engine | None = None
        self.choice = _NOTHING
        self._admission = admission
        self._with_engine = with_engine

    def collect(self) -> Iterable[Metric]:
        engine = self.engine
        if self._with_engine:
            ready = engine is not None and engine.healthy
            text = "1 if the models are loaded and every device computes"
            yield GaugeMetricFamily("box2mask_ready", text, value=ready)
        build = {"version": version("box2mask"), "python": platform.python_version(), "torch": version("torch")}
        yield _gauge("box2mask_build_info", "1, with the versions as labels", tuple(build), [(build.values(), 1)])
        if self._admission is not None:
            inside, most = self._admission.inside, self._admission.most
            yield GaugeMetricFamily("box2mask_requests_in_work", "Requests in work or waiting", value=inside)
            yield GaugeMetricFamily("box2mask_requests_limit", "Most of them; more are answered 429", value=most)
        if self._with_engine:
            yield self._models(engine)
        if engine is not None:
            yield from _devices(engine)
            yield from _cache(engine)

    def _models(self, engine: Engine | None) -> Metric:
        served = [] if engine is None else [("detector", engine.detector), ("segmenter", engine.segmenter)]
        chosen = {"detector": self.choice.detector, "segmenter": self.choice.segmenter}
        samples = []
        for kind, model in served:
            one = chosen[kind]
            if model is not None and one is not None:
                dtype = str(model.dtype).removeprefix("torch.")
                samples.append(((kind, one.name, str(one.demo).lower(), dtype), 1.0))
        labels = ("kind", "name", "demo_weights", "dtype")
        return _gauge("box2mask_model_info", "1 for each model that is served", labels, samples)


def _devices(engine: Engine) -> Iterable[Metric]:
    import torch  # which a process without an engine does without

    load, lost = engine.load, engine.lost
    up = [((name,), float(name not in lost)) for name in load]
    yield _gauge("box2mask_device_up", "1 while the device computes", ("device",), up)
    jobs = [((name,), float(count)) for name, count in load.items()]
    yield _gauge("box2mask_device_jobs", "Jobs that wait for the device or run on it", ("device",), jobs)
    memory = []
    for device in dict.fromkeys(engine.devices):
        if device.type == "cuda" and str(device) not in lost:
            free, total = torch.cuda.mem_get_info(device)
            amounts = {
                "allocated": torch.cuda.memory_allocated(device),
                "reserved": torch.cuda.memory_reserved(device),
                "used": total - free,
                "total": total,
            }
            memory += [((str(device), kind), float(amount)) for kind, amount in amounts.items()]
    text = "A GPU's memory: in tensors, held by this process, in use by all, and all there is"
    yield _gauge("box2mask_device_memory_bytes", text, ("device", "kind"), memory)


def _cache(engine: Engine) -> Iterable[Metric]:
    stats = engine.cache.stats()
    yield from _counted("box2mask_embedding_cache", "in memory", stats, ("entries", "bytes"))
    budget = engine.cache.budget_bytes
    yield GaugeMetricFamily("box2mask_embedding_cache_limit_bytes", "Embeddings in memory: their budget", value=budget)
    if stats.disk is not None:
        yield from _counted("box2mask_embedding_disk", "on disk", stats.disk, ("bytes",))


def _counted(prefix: str, where: str, stats: CacheStats | DiskStats, gauges: tuple[str, ...]) -> Iterable[Metric]:
    for field in fields(stats):
        value = getattr(stats, field.name)
        if isinstance(value, int):
            family = GaugeMetricFamily if field.name in gauges else CounterMetricFamily
            yield family(f"{prefix}_{field.name}", f"Embeddings {where}: {field.name}", value=value)


def _gauge(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[Iterable[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(list(values), value)
    return family
