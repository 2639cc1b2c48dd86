"""What a request's time goes into: the record by itself, in the engine, and as `Server-Timing` of a real service."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app import timings
from app.engine.cache import EmbeddingCache
from app.engine.engine import Engine, Models
from app.engine.observer import Observer
from app.timings import STAGES, Timings
from models.segmenter.sam import Sam
from models.types import Embedding

WAIT_S = 60


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.fetches: list[tuple[str, int]] = []

    def on_stage(self, stage: str, seconds: float) -> None:
        assert seconds >= 0
        self.stages.append(stage)

    def on_fetch(self, outcome: str, seconds: float, size: int) -> None:
        assert seconds >= 0
        self.fetches.append((outcome, size))


def test_what_happens_at_the_same_time_counts_once() -> None:
    record = Timings()
    for began, ended in ((5.0, 6.0), (1.0, 2.0), (1.5, 3.0), (3.0, 3.5), (5.2, 5.4)):
        record.add("decode", began, ended)
    record.add("parse", 0.0, 0.25)
    assert record.stretches() == {"parse": [(0.0, 0.25)], "decode": [(1.0, 3.5), (5.0, 6.0)]}
    assert record.milliseconds() == {"parse": 250, "decode": 3500}
    assert list(record.stretches()) == ["parse", "decode"]  # in the order of the stages


def test_many_stretches_are_kept_in_little_and_lose_nothing() -> None:
    record = Timings()
    numbers = np.random.default_rng(0).permutation(10_000).tolist()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: record.add("post", number, number + 1), numbers))
    assert record.stretches() == {"post": [(0, 10_000)]}
    assert len(record._stretches["post"]) < 1000


def test_many_stretches_apart_are_not_sorted_again_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    merged = timings._merged
    lengths: list[int] = []

    def counted(stretches: list[Any]) -> list[Any]:
        lengths.append(len(stretches))
        return merged(stretches)

    monkeypatch.setattr(timings, "_merged", counted)
    record = Timings()
    for number in range(5000):
        record.add("queue", 2.0 * number, 2.0 * number + 1)
    assert len(lengths) < 10 and len(record.stretches()["queue"]) == 5000


def test_without_a_record_nothing_is_noted() -> None:
    timings.add("decode", 0, 1)
    with timings.stage("decode"), timings.fetching() as fetch:
        fetch.outcome = "ok"


def test_steps_are_noted_where_they_fail_too_and_told() -> None:
    heard = Heard()
    record = Timings(heard)
    with timings.recording(record):
        with pytest.raises(ValueError), timings.stage("decode"):
            raise ValueError
        with pytest.raises(ValueError), timings.fetching():
            raise ValueError
        with timings.fetching() as fetch:
            fetch.outcome, fetch.size = "ok", 7
    with timings.stage("post"):
        pass
    assert heard.stages == ["decode"] and heard.fetches == [("failed", 0), ("ok", 7)]
    assert set(record.milliseconds()) == {"decode", "fetch"}


class ToRecord(Observer):
    """Notes what the devices do, as the metrics have it."""

    def on_job(self, kind: str, queued: float, began: float, ended: float) -> None:
        timings.add("queue", queued, began)
        timings.add(kind, began, ended)


def test_requests_that_share_an_embedding_are_each_told_how_long_they_waited_for_it(
    model_folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Sam.load(model_folders.segmenter)
    entered, may_go_on = threading.Event(), threading.Event()
    embed = segmenter.embed

    def embed_late(samples: Sequence[Any], between: Any = None) -> list[Embedding]:
        entered.set()
        assert may_go_on.wait(WAIT_S)
        return embed(samples, between)

    monkeypatch.setattr(segmenter, "embed", embed_late)
    sample = segmenter.preprocess(np.full((64, 96, 3), 127, np.uint8))

    async def ask(engine: Engine, record: Timings) -> None:
        with timings.recording(record):
            await engine.embed("key", sample)

    async def conversation() -> None:
        engine = Engine([Models(None, segmenter)], EmbeddingCache(2**20), workers=1)
        engine.observe(ToRecord())
        maker, joiner, later = Timings(), Timings(), Timings()
        try:
            first = asyncio.create_task(ask(engine, maker))
            assert await asyncio.to_thread(entered.wait, WAIT_S)
            joined = time.perf_counter()
            second = asyncio.create_task(ask(engine, joiner))
            while engine.cache.stats().shared < 1:
                await asyncio.sleep(0)
            let_on = time.perf_counter()
            may_go_on.set()
            await asyncio.gather(first, second)
            await ask(engine, later)
        finally:
            may_go_on.set()
            await engine.aclose()
        assert set(maker.milliseconds()) == {"queue", "encode"}
        [(began, ended)] = joiner.stretches()["encode"]
        assert joined <= began <= let_on <= ended and "queue" not in joiner.milliseconds()
        assert later.milliseconds()["encode"] < joiner.milliseconds()["encode"] + 1000 * (let_on - joined)

    asyncio.run(asyncio.wait_for(conversation(), 2 * WAIT_S))


def test_functions_in_the_pool_know_whose_request_it_is(model_folders: Any) -> None:
    record = Timings()

    async def conversation() -> None:
        engine = Engine([Models(None, Sam.load(model_folders.segmenter))], workers=1)
        try:
            with timings.recording(record):
                await engine.aside(timings.stage("parse")(int), "3")
            await engine.aside(timings.stage("post")(int), "3")
        finally:
            await engine.aclose()

    asyncio.run(conversation())
    assert list(record.milliseconds()) == ["parse"]


# Of a service


def picture(seed: int) -> str:
    """Blocks of colours of their own, as a PNG in base64."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def server_timing(response: httpx.Response) -> dict[str, float]:
    (header,) = response.headers.get_list("server-timing")
    assert re.fullmatch(r"total;dur=\d+\.\d(, [a-z]+;dur=\d+\.\d)*", header)
    found = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", header)}
    assert list(found)[1:] == [stage for stage in STAGES if stage in found]
    assert all(ms <= found["total"] for ms in found.values())
    return found


def test_answers_say_where_their_time_went(service: Any) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        images = [[picture(seed)] for seed in (901, 902)]
        body = {"input_data": {"columns": ["image"], "data": images}, "params": {"score_threshold": 0}}
        first, again = (server_timing(client.post("/pipeline/score", json=body)) for _ in range(2))
        everything = {"total", "receive", "parse", "decode", "queue", "detect", "encode", "prompt", "post", "serialise"}
        assert set(first) == everything
        assert set(again) == everything - {"encode"}  # the embeddings were there
        detected = client.post("/yolof/score", json=body)
        assert set(server_timing(detected)) == everything - {"encode", "prompt"}
        assert float(detected.headers["x-ms-run-fn-exec-ms"]) <= server_timing(detected)["total"] + 0.1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "stages"),
    [
        ("GET", "/", None, 200, set()),
        ("GET", "/metrics", None, 200, set()),
        ("GET", "/nothing", None, 404, set()),
        ("GET", "/score", None, 405, set()),
        ("POST", "/score", b"{", 400, {"receive", "parse"}),
        (
            "POST",
            "/score",
            json.dumps({"input_data": {"columns": ["image"], "data": [["AAAA"]]}}).encode(),
            400,
            {"receive", "parse", "decode"},
        ),
    ],
)
def test_every_answer_says_how_long_it_took(
    service: Any, method: str, path: str, body: bytes | None, status: int, stages: set[str]
) -> None:
    response = httpx.request(method, service.url + path, content=body, timeout=60)
    assert response.status_code == status
    assert set(server_timing(response)) == {"total"} | stages
