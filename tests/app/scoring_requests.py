"""Pictures, requests for them, and what to make of the answers."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image
from pycocotools import mask as coco_mask

from app.main import create_app
from app.settings import Settings

COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
SERVER_VERSION = re.compile(r"box2mask/\d+\.\d+")


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coloured blocks, so that no place looks like another."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> str:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = encoded(picture(128, 64))
OTHER = encoded(picture(100, 75, seed=1))


def table(columns: list[str], data: list[Any], params: Any = None, **more: Any) -> dict[str, Any]:
    return {"input_data": {"columns": columns, "data": data} | more, "params": params}


def to_yolof(*images: Any, **params: Any) -> dict[str, Any]:
    return table(["image"], list(images), params)


def row(
    image: Any = PICTURE, points: Any = "", boxes: Any = "", labels: Any = "", multimask: Any = False
) -> dict[str, Any]:
    return dict(zip(COLUMNS, (image, points, boxes, labels, multimask), strict=True))


def to_sam(*rows: dict[str, Any], **params: Any) -> dict[str, Any]:
    return table(COLUMNS, [list(one.values()) for one in rows], params)


def mask_of(answered: dict[str, Any]) -> np.ndarray:
    """A mask (H, W) bool out of its PNG, which must be as the model card says."""
    with Image.open(BytesIO(base64.b64decode(answered["encoded_binary_mask"], validate=True))) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        values = np.array(image)
    assert set(np.unique(values)) <= {0, 255}
    return values > 0


def masks_of(answer: dict[str, Any]) -> list[np.ndarray]:
    """The first mask of every prediction of a row."""
    return [mask_of(one["mask_per_prediction"][0]) for one in answer["predictions"]]


def filled(polygons: list[list[float]], size_hw: tuple[int, int]) -> np.ndarray:
    """What polygons in 0..1 cover, by pycocotools."""
    height, width = size_hw
    drawn = np.zeros(size_hw, bool)
    for polygon in polygons:
        assert len(polygon) >= 6 and min(polygon) >= 0 and max(polygon) <= 1
        flat = (np.array(polygon).reshape(-1, 2) * (width, height)).ravel().tolist()
        drawn |= coco_mask.decode(coco_mask.frPyObjects([flat], height, width))[..., 0] > 0
    return drawn


def converse(settings: Settings, conversation: Callable[[httpx.AsyncClient, FastAPI], Awaitable[None]]) -> None:
    """Talk to a service in this process, for what takes a hand inside it or other settings."""

    async def run() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                await conversation(client, app)

    asyncio.run(run())


def check_headers(response: httpx.Response, *, failed: bool = False) -> None:
    """What AzureML's scoring server says with every answer."""
    assert response.headers["x-request-id"] == response.headers["x-ms-request-id"] != ""
    assert response.headers["x-ms-run-function-failed"] == str(failed)
    assert SERVER_VERSION.match(response.headers["x-ms-server-version"])
    if response.status_code == 200 and response.request.method == "POST":
        assert re.fullmatch(r"\d+\.\d{3}", response.headers["x-ms-run-fn-exec-ms"])
    else:
        assert "x-ms-run-fn-exec-ms" not in response.headers
