"""`GET /images/{reference}/embedding`: what the segmenter made of an image, for its exported decoder."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image
from safetensors.torch import load

from app.main import create_app
from app.settings import Settings
from models.segmenter.sam2 import Sam2
from tests.models.segmenter.random_sams import random_sam2

KEYS = {who: who * 8 for who in ("one", "two")}


def picture(file_format: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 96, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


PICTURE = picture()
NAME = f"sha256:{hashlib.sha256(PICTURE).hexdigest()}"
Ask = Callable[..., Awaitable[httpx.Response]]


def talk(model_folders: Any, conversation: Callable[[FastAPI, Ask], Awaitable[None]], **settings: Any) -> None:
    """A service in this process, asked by `conversation`."""
    own = {"detector": "none", "segmenter": str(model_folders.segmenter), "device": "cpu"}

    async def run() -> None:
        app = create_app(Settings(**(own | settings)))

        async def ask(method: str, path: str, who: str = "", **more: Any) -> httpx.Response:
            headers = more.pop("headers", {}) | ({"authorization": f"Bearer {KEYS[who]}"} if who else {})
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, headers=headers, **more)

        async with app.router.lifespan_context(app):
            await conversation(app, ask)

    asyncio.run(run())


def metadata(file: bytes) -> dict[str, str]:
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + length])["__metadata__"]


def embedded(app: FastAPI, image: np.ndarray) -> torch.Tensor:
    segmenter = app.state.serving.scorer.engine.segmenter
    (embedding,) = segmenter.embed([segmenter.preprocess(image)])
    return embedding.features


def test_it_is_that_of_the_image_and_computed_once(model_folders: Any) -> None:
    async def conversation(app: FastAPI, ask: Ask) -> None:
        assert (await ask("POST", "/images", content=PICTURE)).status_code == 200
        answer = await ask("GET", f"/images/{NAME}/embedding")
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/octet-stream"
        expected = embedded(app, np.asarray(Image.open(BytesIO(PICTURE))))
        (name, found), *others = load(answer.content).items()
        assert not others and name == "image_embeddings" and found.dtype == torch.float32
        assert torch.equal(found[0], expected.float())
        segmenter = app.state.serving.scorer.engine.segmenter
        assert metadata(answer.content) == {
            "image": NAME, "model": model_folders.segmenter.name,
            "model_sha256": app.state.serving.choice.hashes["segmenter"], "computed_in": "float32",
            "height": "48", "width": "96", "image_size": str(segmenter.image_size),
            "resized_height": str(segmenter.image_size // 2), "resized_width": str(segmenter.image_size),
        }  # fmt: skip
        half = await ask("GET", f"/images/{NAME}/embedding?dtype=float16")
        assert torch.equal(load(half.content)[name], found.half())
        # A click on the image finds the embedding, too.
        row = {"image": NAME, "input_points": "[[[9, 9]]]", "input_boxes": "", "input_labels": "[[1]]"}
        table = {"columns": [*row, "multimask_output"], "data": [[*row.values(), False]]}
        assert (await ask("POST", "/sam/score", json={"input_data": table})).status_code == 200
        counts = (await ask("GET", "/version")).json()["embedding_cache"]
        assert (counts["misses"], counts["hits"]) == (1, 2)

    talk(model_folders, conversation)


def test_a_browser_that_has_it_is_told_so(model_folders: Any) -> None:
    async def conversation(app: FastAPI, ask: Ask) -> None:
        await ask("POST", "/images", "one", content=PICTURE)
        path = f"/images/{NAME}/embedding"
        first = await ask("GET", path, "one")
        assert first.headers["cache-control"] == "private, no-cache"
        known = {"if-none-match": first.headers["etag"]}
        again = await ask("GET", path, "one", headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        other = await ask("GET", f"{path}?dtype=float16", "one", headers=known)
        assert other.status_code == 200 and other.headers["etag"] != first.headers["etag"]
        # Another's image is not there, and nobody learns of it by its tag.
        for headers in ({}, known):
            assert (await ask("GET", path, "two", headers=headers)).status_code == 410
        assert (await ask("GET", path)).status_code == 401

    talk(model_folders, conversation, api_keys=" ".join(KEYS.values()))


def test_an_image_on_its_side_is_turned_if_that_is_asked(model_folders: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture("WEBP", exif=exif, lossless=True)

    async def conversation(app: FastAPI, ask: Ask) -> None:
        path = f"/images/{(await ask('POST', '/images', content=image)).json()['image']}/embedding"
        stored, upright = [await ask("GET", f"{path}?exif_orientation={turned}") for turned in ("false", "true")]
        assert [metadata(one.content)["height"] for one in (stored, upright)] == ["48", "96"]
        turned = embedded(app, np.rot90(np.asarray(Image.open(BytesIO(image))), -1).copy())
        assert torch.allclose(load(upright.content)["image_embeddings"][0], turned, atol=1e-5)

    talk(model_folders, conversation)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (f"/images/sha256:{'0' * 64}/embedding", 410, "send it again"),
        ("/images/photo.jpg/embedding", 410, "send it again"),
        (f"/images/{NAME}/embedding?dtype=int8", 400, "dtype: expected float32 or float16, got 'int8'"),
        (f"/images/{NAME}/embedding?exif_orientation=1", 400, "exif_orientation: expected false or true, got '1'"),
        (f"/images/{NAME}/embedding?type=float32", 400, "type: expected dtype or exif_orientation in the address"),
    ],
)
def test_what_is_not_there_is_said(model_folders: Any, path: str, status: int, message: str) -> None:
    async def conversation(app: FastAPI, ask: Ask) -> None:
        await ask("POST", "/images", content=PICTURE)
        answer = await ask("GET", path)
        assert answer.status_code == status and message in answer.json()["message"]

    talk(model_folders, conversation)


def test_a_detector_alone_has_none(model_folders: Any) -> None:
    async def conversation(app: FastAPI, ask: Ask) -> None:
        await ask("POST", "/images", content=PICTURE)
        answer = await ask("GET", f"/images/{NAME}/embedding")
        assert answer.status_code == 404 and "BOX2MASK_SEGMENTER" in answer.json()["message"]

    talk(model_folders, conversation, detector=str(model_folders.detector), segmenter="none")


def test_a_full_service_asks_to_come_again(model_folders: Any) -> None:
    async def conversation(app: FastAPI, ask: Ask) -> None:
        await ask("POST", "/images", content=PICTURE)
        with app.state.admission.admit(""):
            answer = await ask("GET", f"/images/{NAME}/embedding")
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1

    talk(model_folders, conversation, max_requests=1)


def test_features_of_finer_grids_are_tensors_too() -> None:
    model = random_sam2()
    (embedding,) = (segmenter := Sam2(model)).embed([segmenter.preprocess(np.zeros((64, 64, 3), np.uint8))])
    named = segmenter.named_features(embedding.features[None])
    assert {name: tuple(one.shape) for name, one in named.items()} == {
        "image_embeddings": (1, 32, 8, 8), "high_res_feats_0": (1, 4, 32, 32), "high_res_feats_1": (1, 8, 16, 16)
    }  # fmt: skip
