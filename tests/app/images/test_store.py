"""Images that are sent once and named from then on: the store, its routes, and who may name what."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image

from app.images.store import ImageStore, is_reference, reference_of
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import web_server


def picture(seed: int = 0, size: tuple[int, int] = (96, 64), file_format: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


PICTURE = picture()
NAME = f"sha256:{hashlib.sha256(PICTURE).hexdigest()}"


# The store


def test_a_name_is_the_hash_of_the_file_and_nothing_else_is_one() -> None:
    assert reference_of(PICTURE) == NAME and is_reference(NAME)
    for other in (NAME[:-1], NAME.upper(), f" {NAME}", NAME + "\n", NAME.removeprefix("sha256:"), None, 7, ["sha256:"]):
        assert not is_reference(other)


def test_what_was_used_longest_ago_makes_room() -> None:
    store = ImageStore(100)
    for name in ("one", "two"):
        store.put("me", name, b"x" * 40)
    assert store.get("me", "one") is not None
    store.put("me", "three", b"x" * 60)
    assert [store.get("me", name) is not None for name in ("one", "two", "three")] == [True, False, True]
    store.put("me", "three", b"x" * 60)  # again, and counted once
    assert store.get("me", "one") is not None
    with pytest.raises(ValueError, match="at most 100 bytes, got 101"):
        store.put("me", "four", b"x" * 101)
    assert store.get("me", "one") is not None


def test_an_image_is_its_senders_alone() -> None:
    store = ImageStore(100)
    store.put("me", "one", b"mine")
    assert store.get("you", "one") is None and store.get("", "one") is None


# Its routes


@pytest.fixture(scope="module")
def http(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def table(image: object, **prompts: Any) -> dict[str, Any]:
    columns = {"image": image, **prompts}
    return {"input_data": {"columns": list(columns), "data": [list(columns.values())]}}


POINT = {"input_points": [[[30, 20]]], "input_boxes": None, "input_labels": None, "multimask_output": False}


def test_an_image_is_kept_and_named_in_every_scoring_route(http: httpx.Client) -> None:
    kept = http.post("/images", content=PICTURE)
    size = {"width": 96, "height": 64}
    assert kept.status_code == 200 and kept.json() == {"image": NAME, **size, "upright": size}
    content = base64.b64encode(PICTURE).decode()
    for route, prompts in (("/yolof/score", {}), ("/sam/score", POINT), ("/pipeline/score", {}), ("/score", POINT)):
        by_name = http.post(route, json=table(NAME, **prompts))
        assert by_name.status_code == 200, by_name.text
        assert by_name.json() == http.post(route, json=table(content, **prompts)).json()
    back = http.get(f"/images/{NAME}")
    assert (back.status_code, back.content, back.headers["content-type"]) == (200, PICTURE, "image/png")
    assert "sandbox" in back.headers["content-security-policy"]
    assert back.headers["x-content-type-options"] == "nosniff"


def test_the_size_of_a_kept_image_is_told_as_stored_and_upright(http: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "WEBP", exif=exif)
    kept = http.post("/images", content=buffer.getvalue()).json()
    assert (kept["width"], kept["height"], kept["upright"]) == (40, 20, {"width": 20, "height": 40})


def test_a_name_that_is_not_known_has_a_status_of_its_own(http: httpx.Client) -> None:
    unknown = f"sha256:{'0' * 64}"
    body = {"input_data": {"columns": ["image"], "data": [[base64.b64encode(PICTURE).decode()], [unknown]]}}
    answer = http.post("/yolof/score", json=body)
    assert answer.status_code == 410
    message = answer.json()["message"]
    assert message == f"row 1, image: expected an image that was sent before, {unknown!r} is not here; send it again"
    assert http.get(f"/images/{unknown}").status_code == 410
    assert http.post("/yolof/score", json=table("sha256:0")).status_code == 400  # no name, and no base64 either


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"", {}, "got 0 bytes"),
        (b"no image", {}, "got 8 bytes that start with b'no image'"),
        (PICTURE[:20], {}, "truncated"),
        (b"{", {"content-type": "application/json"}, "the body is not JSON"),
        (b"[1]", {"content-type": "application/json"}, 'expected {"url": ...}'),
        (b'{"url": "ftp://somewhere"}', {"content-type": "application/json; charset=utf-8"}, 'expected {"url": ...}'),
    ],
)
def test_what_is_no_image_is_refused(http: httpx.Client, content: bytes, headers: dict[str, str], message: str) -> None:
    answer = http.post("/images", content=content, headers=headers)
    assert answer.status_code == 400 and message in answer.json()["message"]


def test_an_address_is_fetched_within_the_same_rules(model_folders: Any) -> None:
    async def conversation(app: FastAPI) -> None:
        fetched = await as_client(app, "", "POST", "/images", json={"url": f"{root}/picture.png"})
        assert fetched.json()["image"] == NAME
        shown = (await as_client(app, "", "GET", "/metrics")).text
        assert 'box2mask_url_fetch_seconds_count{outcome="ok"} 1.0' in shown
        page = await as_client(app, "", "POST", "/images", json={"url": f"{root}/page.html"})
        assert page.status_code == 400 and "<p>no image" in page.json()["message"]

    async def refused(app: FastAPI) -> None:
        inner = await as_client(app, "", "POST", "/images", json={"url": f"{root}/picture.png"})
        assert inner.status_code == 400 and "address" in inner.json()["message"]

    with web_server({"/picture.png": PICTURE, "/page.html": b"<p>no image</p>"}) as root:
        in_process(model_folders, conversation, image_urls="any")
        in_process(model_folders, refused)


def key_of(who: str) -> str:
    return who * 8


async def as_client(app: FastAPI, who: str, method: str, path: str, **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    headers = {"authorization": f"Bearer {key_of(who)}"} if who else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://service", headers=headers) as client:
        return await client.request(method, path, **more)


def in_process(model_folders: Any, conversation: Any, **settings: Any) -> None:
    async def run() -> None:
        app = create_app(
            Settings(detector=str(model_folders.detector), segmenter="none", device="cpu", **settings)  # type: ignore[arg-type]
        )
        async with app.router.lifespan_context(app):
            await conversation(app)

    asyncio.run(run())


def test_nobody_can_name_or_find_what_another_key_has_sent(model_folders: Any) -> None:
    async def conversation(app: FastAPI) -> None:
        assert (await as_client(app, "one", "POST", "/images", content=PICTURE)).status_code == 200
        assert (await as_client(app, "one", "POST", "/yolof/score", json=table(NAME))).status_code == 200
        never = f"sha256:{'0' * 64}"
        for name in (NAME, never):
            scored = await as_client(app, "two", "POST", "/yolof/score", json=table(name))
            fetched = await as_client(app, "two", "GET", f"/images/{name}")
            assert (scored.status_code, fetched.status_code) == (410, 410)
            assert scored.json()["message"].replace(name, "") == (
                "row 0, image: expected an image that was sent before, '' is not here; send it again"
            )

    in_process(model_folders, conversation, api_keys=f"{key_of('one')} {key_of('two')}")


def test_the_limits_are_those_of_other_images(model_folders: Any) -> None:
    async def conversation(app: FastAPI) -> None:
        too_many = await as_client(app, "", "POST", "/images", content=picture(size=(101, 100)))
        assert too_many.status_code == 400 and "1 to 10000 pixels, got 101 x 100" in too_many.json()["message"]
        too_long = await as_client(app, "", "POST", "/images", content=PICTURE + b"\0" * 2**17)
        assert too_long.status_code == 413 and f"at most {2**17} bytes" in too_long.json()["message"]

    in_process(model_folders, conversation, max_image_pixels=10_000, max_image_mb=0.125)


def test_a_store_of_no_size_is_none(model_folders: Any) -> None:
    async def conversation(app: FastAPI) -> None:
        answer = await as_client(app, "", "POST", "/images", content=PICTURE)
        assert answer.status_code == 404 and "BOX2MASK_IMAGE_STORE_MB" in answer.json()["message"]
        assert (await as_client(app, "", "POST", "/yolof/score", json=table(NAME))).status_code == 410

    in_process(model_folders, conversation, image_store_mb=0)
