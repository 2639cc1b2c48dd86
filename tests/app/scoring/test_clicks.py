"""A click on a photo that was sent before: what it does not do again, and what it does without threads."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from app.scoring import row_image
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
        pool, went = app.state.scorer.engine._pool, []
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
