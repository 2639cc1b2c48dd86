"""A click on a photo that was sent before: what it does not do again, without threads, and what was done ahead."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.scoring import row_image
from tests.app.images.test_store import picture
from tests.app.test_image_embedding import NAME, PICTURE, Ask, talk

TEXT = "x" * 20_000


def click(image: str, **more: Any) -> dict[str, Any]:
    row = {"image": image, "input_points": [[[9, 9]]], "input_boxes": "", "input_labels": "", "multimask_output": False}
    return {"input_data": {"columns": [*row, *more], "data": [[*row.values(), *more.values()]]}}


def test_a_photo_is_hashed_once_and_a_click_goes_to_a_thread_for_its_mask_alone(
    model_folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bool] = []
    key = row_image.content_key

    def counted(image: bytes, *, exif_orientation: bool) -> str:
        hashed.append(exif_orientation)
        return key(image, exif_orientation=exif_orientation)

    monkeypatch.setattr(row_image, "content_key", counted)

    async def conversation(app: FastAPI, ask: Ask) -> None:
        pool, went = app.state.serving.scorer.engine._pool, []
        submit = pool.submit
        monkeypatch.setattr(pool, "submit", lambda *work: (went.append(work), submit(*work))[1])
        await ask("POST", "/images", content=PICTURE)
        first = await ask("POST", "/sam/score", json=click(NAME))
        assert first.status_code == 200 and hashed == [False]
        went.clear()
        assert (await ask("POST", "/sam/score", json=click(NAME))).content == first.content
        assert hashed == [False] and len(went) == 1
        # Megabytes are read in a thread as ever: here the body and its prompts' text.
        went.clear()
        assert (await ask("POST", "/sam/score", json=click(NAME, note=TEXT))).status_code == 200
        assert len(went) == 3
        turned = click(NAME) | {"params": {"exif_orientation": True}}
        assert (await ask("POST", "/sam/score", json=turned)).status_code == 200
        assert hashed == [False, True]

    talk(model_folders, conversation)


def counts(answer: Any) -> tuple[int, int]:
    cache = answer.json()["embedding_cache"]
    return cache["misses"], cache["hits"] + cache["shared"]


@pytest.mark.parametrize("upright", ["", "&exif_orientation=true"])
def test_a_photo_sent_with_embed_is_encoded_once_before_its_first_click(http: httpx.Client, upright: str) -> None:
    photo, misses = picture(seed=len(upright) + 50), counts(http.get("/version"))[0]
    kept = http.post(f"/images?embed=true{upright}", content=photo)
    assert kept.status_code == 200 and kept.json() == http.post("/images", content=photo).json()
    request = click(kept.json()["image"]) | {"params": {"exif_orientation": bool(upright)}}
    for number in range(2):
        assert http.post("/sam/score", json=request).status_code == 200
        found = counts(http.get("/version"))
        assert found[0] == misses + 1 and found[1] > number  # joined on its way, or found in the cache


def test_what_is_encoded_ahead_waits_for_nobody_and_harms_nobody(
    model_folders: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "box2mask")

    async def conversation(app: FastAPI, ask: Ask) -> None:
        async def send(query: str) -> int:
            answer = await ask("POST", f"/images{query}", content=PICTURE)
            await asyncio.gather(*app.state.ahead.tasks)
            return answer.status_code

        scorer, admission = app.state.serving.scorer, app.state.admission
        assert [await send(query) for query in ("", "?embed=false", "?other=1")] == [200] * 3
        assert await send("?embed=yes") == await send("?embed=true&exif_orientation=1") == 400
        with admission.admit():  # of two places one is left, which is for who waits
            assert await send("?embed=true") == 200
        assert scorer.engine.cache.stats().misses == 0 and "there was no room" in caplog.text
        with monkeypatch.context() as broken:
            broken.setattr(scorer.engine.segmenter, "embed", lambda *given: 1 / 0)
            assert await send("?embed=true") == 200
        assert "ZeroDivisionError" in caplog.text and admission.inside == 0
        assert await send("?embed=true") == 200 and scorer.engine.cache.stats().entries == 1
        assert (await ask("POST", "/sam/score", json=click(NAME))).status_code == 200

    talk(model_folders, conversation, max_requests=2)
