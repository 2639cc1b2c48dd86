"""What both sides are given: a picture that can be had in any number of versions, and request bodies about it.

Everything is drawn from a seed, so every machine is measured with the same.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from models.demo.scenes import Scene, render_scene

SIZE_HW = (666, 499)  # of the photo in the sample notebook
COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
# The prompts of the sample notebook's five rows, which all carry the same image.
NOTEBOOK_PROMPTS = [
    ["[[[280,320]], [[300,350]]]", "", "", True],
    ["[[[280,320], [300,350]]]", "", "", True],
    ["", "[[125,240,375,425]]", "", True],
    ["[[[280,320]]]", "[[125,240,375,425]]", "", True],
    ["[[[280,320]]]", "[[125,240,375,425]]", "[[0]]", True],
]
CLICK_PROMPT = ["[[[280,320]]]", "", "", False]


@cache
def _picture() -> np.ndarray:
    return render_scene(np.random.default_rng(0), SIZE_HW).image


def picture(version: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB; each version differs from every other in one corner, so that no cache knows it."""
    image = _picture().copy()
    for place in range(4):  # black and white squares: also after JPEG no two versions are the same
        for bit in range(8):
            value = 255 * (version >> (8 * place + bit) & 1)
            image[8 * place : 8 * place + 8, 8 * bit : 8 * bit + 8] = value
    return image


def write_photos(folder: Path, count: int) -> None:
    """Drawn scenes as JPEG files, four of 640 x 480 for each of 1920 x 1080."""
    folder.mkdir(parents=True)
    for number in range(count):
        size_hw = (1080, 1920) if number % 5 == 4 else (480, 640)
        image = render_scene(np.random.default_rng(number), size_hw).image
        Image.fromarray(image).save(folder / f"{number:04}.jpg", quality=90)


def to_base64(image: np.ndarray) -> str:
    """A JPEG in base64, with newlines inside, as the sample clients send it."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return base64.encodebytes(buffer.getvalue()).decode()


def notebook_request(version: int, rows: int = 5) -> bytes:
    """The sample notebook's request, or its first rows."""
    image = to_base64(picture(version))
    return _body(COLUMNS, [[image, *prompts] for prompts in NOTEBOOK_PROMPTS[:rows]])


def click_request(version: int) -> bytes:
    """One point on one image, one mask."""
    return _body(COLUMNS, [[to_base64(picture(version)), *CLICK_PROMPT]])


def boxes_request(image: np.ndarray, boxes: list[list[float]]) -> bytes:
    """One image with boxes in pixels, one mask each."""
    return _body(COLUMNS, [[to_base64(image), "", json.dumps(boxes), "", False]])


def detector_request(image: np.ndarray, **params: float | str | list[str]) -> bytes:
    return _body(["image"], [[to_base64(image)]], params)


def _body(
    columns: list[str], data: list[list[object]], params: Mapping[str, float | str | list[str]] | None = None
) -> bytes:
    return json.dumps({"input_data": {"columns": columns, "data": data}, "params": params or {}}).encode()


def boxes(count: int) -> list[list[float]]:
    """Boxes of things' sizes anywhere in the picture, x1, y1, x2, y2 in pixels."""
    rng = np.random.default_rng(1)
    height, width = SIZE_HW
    sides = rng.uniform(60, 240, (count, 2))
    corners = rng.uniform(0, 1, (count, 2)) * (np.array([width, height]) - sides)
    return np.concatenate([corners, corners + sides], axis=1).round(1).tolist()


def scenes(count: int) -> list[Scene]:
    """Drawn scenes with their true boxes, none of which the demo weights were trained on."""
    drawn = (render_scene(np.random.default_rng(10_000_000 + seed), SIZE_HW) for seed in range(2 * count))
    return [scene for scene in drawn if len(scene.masks)][:count]


def large_masks(count: int, size_hw: tuple[int, int] = (1080, 1920)) -> list[np.ndarray]:
    """(H, W) bool masks of drawn things, as smooth at their edges as SAM's."""
    small = [mask for seed in range(count // 4 + 1) for mask in render_scene(np.random.default_rng(seed)).masks]
    height, width = size_hw
    large = [cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for mask in small]
    return [large[index % len(large)] > 0.5 for index in range(count)]
