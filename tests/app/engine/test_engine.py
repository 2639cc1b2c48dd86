"""The engine with small models of random weights: batches, lanes, devices, shared embeddings, little memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.cache import EmbeddingCache
from app.engine.compute import Work
from app.engine.engine import Batches, Engine, Models
from app.errors import NotNumbers, Unavailable
from models.detector.mmdetection import MMDetector
from models.segmenter.protocol import DecodeRequest, RawMasks
from models.segmenter.sam import Sam
from models.types import Embedding, Prompts

WAIT_S = 60


@pytest.fixture(scope="module")
def segmenter(model_folders: Any) -> Sam:
    return Sam.load(model_folders.segmenter)


@pytest.fixture(scope="module")
def detector(model_folders: Any) -> MMDetector:
    return MMDetector.load(model_folders.detector)


def run(
    conversation: Callable[[Engine], Awaitable[None]], *models: Models, cache: EmbeddingCache | None = None
) -> None:
    async def whole() -> None:
        engine = Engine(models, cache, workers=2)
        try:
            async with asyncio.timeout(WAIT_S):
                await conversation(engine)
        finally:
            await engine.aclose()

    asyncio.run(whole())


def photo(seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes(count: int, seed: int = 0) -> Prompts:
    corners = np.random.default_rng(seed).uniform(0, 40, (count, 2))
    return Prompts(boxes_xyxy=np.concatenate([corners, corners + 20], axis=1))


async def decoded(engine: Engine, embedding: Embedding, prompts: Prompts) -> RawMasks:
    return RawMasks.concatenate([raw async for raw in engine.decode(embedding, prompts, multimask=False)])


def assert_same(one: RawMasks, other: RawMasks) -> None:
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.iou_scores, other.iou_scores, rtol=1e-4, atol=1e-4)


def test_concurrent_callers_get_what_each_would_alone(segmenter: Sam, detector: MMDetector) -> None:
    photos = [photo(seed) for seed in range(6)]

    async def one(engine: Engine, number: int) -> tuple[RawMasks, Any]:
        embedding = await engine.embed(str(number), segmenter.preprocess(photos[number]))
        masks = await decoded(engine, embedding, boxes(3 * number + 1, seed=number))
        return masks, await engine.detect(detector.preprocess(photos[number]))

    async def conversation(engine: Engine) -> None:
        for number, (masks, raw) in enumerate(await asyncio.gather(*(one(engine, n) for n in range(6)))):
            (embedding,) = segmenter.embed([segmenter.preprocess(photos[number])])
            assert_same(masks, segmenter.decode(embedding, boxes(3 * number + 1, seed=number), multimask=False))
            (alone,) = detector.forward([detector.preprocess(photos[number])])
            for together, single in zip(raw.head, alone.head, strict=True):
                torch.testing.assert_close(together, single, rtol=1e-3, atol=1e-3)

    run(conversation, Models(detector, segmenter))


def test_waiting_photos_share_a_batch_as_large_as_the_device_likes(
    segmenter: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batches, "for_device", classmethod(lambda cls, device: Batches(3 * 128 * 128, 8)))
    seen: list[int] = []
    first_is_in, may_go_on = threading.Event(), threading.Event()
    embed = segmenter.embed

    def embed_and_tell(samples: Sequence[Any], between: Any = None) -> list[Embedding]:
        seen.append(len(samples))
        first_is_in.set()
        assert may_go_on.wait(WAIT_S)
        return embed(samples, between)

    async def conversation(engine: Engine) -> None:
        tasks = [asyncio.create_task(engine.embed("0", segmenter.preprocess(photo(0))))]
        assert await asyncio.to_thread(first_is_in.wait, WAIT_S)
        tasks += [asyncio.create_task(engine.embed(str(n), segmenter.preprocess(photo(n)))) for n in range(1, 6)]
        while engine._devices[0].compute.load < 6:
            await asyncio.sleep(0)
        may_go_on.set()
        await asyncio.gather(*tasks)

    monkeypatch.setattr(segmenter, "embed", embed_and_tell)
    run(conversation, Models(None, segmenter))
    assert seen == [1, 3, 2]


def test_one_photo_is_encoded_once_however_often_it_comes(segmenter: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    embed = segmenter.embed

    def embed_and_count(samples: Sequence[Any], between: Any = None) -> list[Embedding]:
        seen.append(len(samples))
        return embed(samples, between)

    async def conversation(engine: Engine) -> None:
        sample = segmenter.preprocess(photo(0))
        together = await asyncio.gather(*(engine.embed("key", sample) for _ in range(5)))
        assert all(one is together[0] for one in together)
        assert await engine.embed("key", sample) is together[0]
        assert await engine.embed("another", sample) is not together[0]

    monkeypatch.setattr(segmenter, "embed", embed_and_count)
    run(conversation, Models(None, segmenter), cache=EmbeddingCache(2**20))
    assert sum(seen) == 2


def test_a_click_is_answered_while_a_photo_is_being_encoded(
    segmenter: Sam, detector: MMDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor's one compute thread: the encoder goes on only when the click has been answered."""
    began, answered = threading.Event(), threading.Event()
    for model, name in ((segmenter, "embed"), (detector, "forward")):
        began.clear()
        answered.clear()
        function = getattr(model, name)

        def endless(samples: Sequence[Any], between: Any, function: Any = function) -> Any:
            began.set()
            while not answered.is_set():
                between()
            return function(samples, between)

        async def conversation(engine: Engine, name: str = name, endless: Any = endless, model: Any = model) -> None:
            embedding = await engine.embed("photo", segmenter.preprocess(photo(0)))
            with monkeypatch.context() as patched:
                patched.setattr(model, name, endless)
                sample = model.preprocess(photo(1))
                busy = asyncio.create_task(engine.embed("new", sample) if name == "embed" else engine.detect(sample))
                assert await asyncio.to_thread(began.wait, WAIT_S)
                assert_same(
                    await decoded(engine, embedding, boxes(1)), segmenter.decode(embedding, boxes(1), multimask=False)
                )
                assert not busy.done()
                answered.set()
                await busy

        run(conversation, Models(detector, segmenter))


@pytest.mark.parametrize("name", ["embed", "forward"])
def test_the_networks_let_others_in_between_their_layers(segmenter: Sam, detector: MMDetector, name: str) -> None:
    model = segmenter if name == "embed" else detector
    calls = 0

    def between() -> None:
        nonlocal calls
        calls += 1
        if calls % 8 == 1:
            segmenter.decode(embedding, boxes(1), multimask=False)

    (embedding,) = segmenter.embed([segmenter.preprocess(photo(0))])
    sample = model.preprocess(photo(1))
    (interrupted,) = getattr(model, name)([sample], between)
    (alone,) = getattr(model, name)([sample])
    assert calls >= 4
    one, other = (
        (x.features,) if name == "embed" else tuple(level for output in x.head for level in output)
        for x in (interrupted, alone)
    )
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)


def test_an_encode_that_nobody_waits_for_ends_half_way(segmenter: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    began, ended = threading.Event(), threading.Event()

    def endless(samples: Sequence[Any], between: Any) -> Any:
        began.set()
        try:
            while True:
                between()
        finally:
            ended.set()

    async def conversation(engine: Engine) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(segmenter, "embed", endless)
            callers = [asyncio.create_task(engine.embed("k", segmenter.preprocess(photo(0)))) for _ in range(3)]
            assert await asyncio.to_thread(began.wait, WAIT_S)
            callers[0].cancel()
            await asyncio.wait([callers[0]])
            assert not ended.is_set()  # two still wait
            for caller in callers[1:]:
                caller.cancel()
            assert await asyncio.to_thread(ended.wait, WAIT_S)
        await engine.embed("k", segmenter.preprocess(photo(0)))

    run(conversation, Models(None, segmenter))


def test_a_large_request_is_decoded_in_parts_with_others_in_turn(
    segmenter: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    decode_batch = segmenter.decode_batch

    def decode_and_tell(requests: Sequence[DecodeRequest], between: Any = None) -> list[RawMasks]:
        order.extend(len(request.prompts) for request in requests)
        return decode_batch(requests, between)

    async def conversation(engine: Engine) -> None:
        (embedding,) = segmenter.embed([segmenter.preprocess(photo(0))])
        parts = engine.decode(embedding, boxes(20), multimask=False)
        raws = [await anext(parts)]
        click = await decoded(engine, embedding, boxes(1, seed=5))
        raws += [raw async for raw in parts]
        assert [len(raw) for raw in raws] == [8, 8, 4]
        assert_same(RawMasks.concatenate(raws), segmenter.decode(embedding, boxes(20), multimask=False))
        assert_same(click, segmenter.decode(embedding, boxes(1, seed=5), multimask=False))

    with monkeypatch.context() as patched:
        patched.setattr(segmenter, "decode_batch", decode_and_tell)
        run(conversation, Models(None, segmenter))
    assert order[:4] == [8, 1, 8, 4]


def test_work_goes_to_the_device_that_has_less_of_it(model_folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices; each one's encoder waits until the other's runs too."""
    both = threading.Barrier(2)
    models = [Models(None, Sam.load(model_folders.segmenter)) for _ in range(2)]
    for one in models:
        embed = one.segmenter.embed  # type: ignore[union-attr]

        def embed_together(samples: Sequence[Any], between: Any = None, embed: Any = embed) -> list[Embedding]:
            both.wait(WAIT_S)
            return embed(samples, between)

        monkeypatch.setattr(one.segmenter, "embed", embed_together)

    async def conversation(engine: Engine) -> None:
        assert [str(device) for device in engine.devices] == ["cpu", "cpu"]
        sample = engine.segmenter.preprocess(photo(0))
        first, second = await asyncio.gather(engine.embed("a", sample), engine.embed("b", sample))
        assert torch.equal(first.features, second.features)

    run(conversation, *models)


def test_what_does_not_fit_into_memory_at_once_is_computed_in_parts(
    segmenter: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_batch = segmenter.decode_batch
    room = 2

    def decode_what_fits(requests: Sequence[DecodeRequest], between: Any = None) -> list[RawMasks]:
        if sum(len(request.prompts) for request in requests) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode_batch(requests, between)

    async def conversation(engine: Engine) -> None:
        nonlocal room
        (embedding,) = segmenter.embed([segmenter.preprocess(photo(0))])
        expected = segmenter.decode(embedding, boxes(7), multimask=False)
        with monkeypatch.context() as patched:
            patched.setattr(segmenter, "decode_batch", decode_what_fits)
            assert_same(await decoded(engine, embedding, boxes(7)), expected)
            room = 0
            with pytest.raises(Unavailable, match="memory does not suffice"):
                await decoded(engine, embedding, boxes(7))
        assert_same(await decoded(engine, embedding, boxes(7)), expected)

    run(conversation, Models(None, segmenter))


def test_a_device_that_is_lost_leaves_the_others_working(
    model_folders: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    models = [Models(None, Sam.load(model_folders.segmenter)) for _ in range(2)]

    def lost(*args: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async def conversation(engine: Engine) -> None:
        sample = engine.segmenter.preprocess(photo(0))
        embedding = await engine.embed("a", sample)
        told = threading.Event()
        engine.when_failed(told.set)
        monkeypatch.setattr(models[0].segmenter, "embed", lost)
        monkeypatch.setattr(engine._devices[0].compute, "_check", lost)
        with pytest.raises(Unavailable):
            await engine.embed("b", sample)
        assert not engine.healthy
        assert await asyncio.to_thread(told.wait, 30)
        late: list[bool] = []
        engine.when_failed(lambda: late.append(True))
        assert late == [True]
        for key in "bcd":
            assert torch.equal((await engine.embed(key, sample)).features, embedding.features)
        assert len(await decoded(engine, embedding, boxes(3))) == 3

    run(conversation, *models)
    assert "a device computes no more: CUDA error" in caplog.text


def test_values_that_are_no_numbers_fail_their_own_request_and_are_not_kept(
    segmenter: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = segmenter.embed

    def one_is_none(samples: Sequence[Any], between: Any = None) -> list[Embedding]:
        made = embed(samples, between)
        with torch.inference_mode():
            for one, sample in zip(made, samples, strict=True):
                if sample is bad:
                    one.features[0, 0, 0] = torch.inf
        return made

    bad = segmenter.preprocess(photo(0))

    async def conversation(engine: Engine) -> None:
        good = [segmenter.preprocess(photo(seed)) for seed in (1, 2)]
        monkeypatch.setattr(segmenter, "embed", one_is_none)
        calls = [engine.embed(key, sample) for key, sample in zip("abc", (good[0], bad, good[1]), strict=True)]
        first, error, second = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(error, NotNumbers)
        assert str(error) == "the model returned values that are not numbers" and error.status == 500
        assert engine.cache.stats().entries == 2
        monkeypatch.setattr(segmenter, "embed", embed)
        for key, sample, found in (("a", good[0], first), ("c", good[1], second)):
            assert isinstance(found, Embedding)
            assert torch.allclose(found.features, embed([sample])[0].features, atol=1e-4), key
        assert (await engine.embed("b", bad)).features.isfinite().all()

    run(conversation, Models(None, segmenter), cache=EmbeddingCache(2**20))


@pytest.mark.parametrize("how", ["exit", "memory"])
def test_work_in_the_pool_ends_neither_the_loop_nor_the_process(segmenter: Sam, how: str) -> None:
    def work() -> None:
        raise SystemExit(0) if how == "exit" else MemoryError

    async def conversation(engine: Engine) -> None:
        with pytest.raises(RuntimeError if how == "exit" else Unavailable):
            await engine.aside(work)
        assert await engine.aside(lambda: 1) == 1

    run(conversation, Models(None, segmenter))


def test_embeddings_make_room_for_an_image_that_does_not_fit_beside_them(
    segmenter: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EmbeddingCache(2**20)
    embed = segmenter.embed

    def embed_what_fits(samples: Sequence[Any], between: Any = None) -> list[Embedding]:
        if cache.stats().entries:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(samples, between)

    async def conversation(engine: Engine) -> None:
        sample = segmenter.preprocess(photo(0))
        first = await engine.embed("a", sample)
        assert torch.equal((await engine.embed("b", sample)).features, first.features)
        assert cache.stats().entries == 1

    monkeypatch.setattr(segmenter, "embed", embed_what_fits)
    run(conversation, Models(None, segmenter), cache=cache)


@pytest.mark.parametrize("fast", [True, False])
def test_a_compute_thread_takes_denormals_for_zero_on_the_fast_path(model_folders: Any, fast: bool) -> None:
    """An Intel processor takes a hundred times as long for them. Both halves: torch's own threads do so too."""
    seen: list[torch.Tensor] = []

    async def conversation(engine: Engine) -> None:
        times_one = Work[torch.Tensor, torch.Tensor](lambda items, between: [item * 1 for item in items])
        seen.append(await engine._devices[0].compute.do(times_one, torch.full((1 << 20,), 1e-39)))

    run(conversation, Models(None, Sam.load(model_folders.segmenter, fast=fast)))
    assert bool((seen[0] == 0).all()) == fast
