"""Bad requests, generated: every kind of fault that a client, a cable or an attacker could put into one.

The same seed gives the same requests. A few of them turn out to be good, such as a picture with a flipped bit.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.reliability.bomb_files import REFUSED
from benchmarks.reliability.hostile_urls import hostile_urls

COLUMNS = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
ROUTES = ("/score", "/yolof/score", "/sam/score", "/pipeline/score")
_BOMB_BYTES = 100_000
_LITERAL_PARTS = ["[", "]", "(", ")", ",", ",,", " ", "\n", "1", "-1", "1e999", "nan", "None", "0x1F", "'a'", "1j", "#"]
_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1e308, 10**400, "", " ", "x" * 5000, "\0", "\ud800", [], {}, [[]], [[[]]],
    {"a": 1}, [None],
    ["", "", "", "", ""], "nan", "[[1, 2, 3, 4]]", [[1, 2, 3, 4]], [[[1, 2]]], float("nan"), float("-inf"),
]  # fmt: skip


@dataclass(frozen=True)
class BadRequest:
    """kind: of fault. body: as it is sent."""

    kind: str
    method: str
    path: str
    body: bytes


def picture(file_format: str = "PNG", **options: Any) -> bytes:
    """A file of 64 x 48 pixels in colours that compress badly."""
    pixels = np.random.default_rng(7).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


FILES = {
    "JPEG": picture("JPEG"),
    "JPEG, progressive": picture("JPEG", progressive=True),
    "PNG": picture("PNG"),
    "WebP": picture("WEBP"),
    "WebP, lossless": picture("WEBP", lossless=True),
    "BMP": picture("BMP"),
    "GIF": picture("GIF"),
    "TIFF": picture("TIFF"),
    "TIFF, LZW": picture("TIFF", compression="tiff_lzw"),
}


def good_request(path: str) -> bytes:
    """A request that is answered 200 on this route."""
    return _body(_table(path, base64.b64encode(FILES["PNG"]).decode()))


def bad_requests(seed: int) -> Iterator[BadRequest]:
    """Without end, the kinds in turn."""
    rng = random.Random(seed)
    while True:
        for kind, make in _KINDS.items():
            path = rng.choice(ROUTES)
            made = make(rng, path)
            yield made if isinstance(made, BadRequest) else BadRequest(kind, "POST", path, made)


def broken(rng: random.Random, data: bytes) -> bytes:
    """A file cut anywhere, or with up to five bytes changed, half of them in its head."""
    if rng.random() < 0.5:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        changed[rng.randrange(160 if rng.random() < 0.5 else len(data)) % len(data)] = rng.randrange(256)
    return bytes(changed)


def _table(path: str, image: Any, **columns: Any) -> dict[str, Any]:
    if path in ("/yolof/score", "/pipeline/score"):
        return {"input_data": {"columns": ["image"], "index": [0], "data": [[image]]}, "params": {}}
    row = {"image": image, "input_points": "", "input_boxes": "[[8, 8, 40, 40]]", "input_labels": ""}
    row |= {"multimask_output": False} | columns
    return {"input_data": {"columns": COLUMNS, "index": [0], "data": [list(row.values())]}, "params": {}}


def _body(content: Any) -> bytes:
    return json.dumps(content).encode()


def _noise(rng: random.Random, path: str) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 10, 1000, 100_000)))


def _cut(rng: random.Random, path: str) -> bytes:
    body = good_request(path)
    return body[: rng.randrange(len(body))]


def _flipped(rng: random.Random, path: str) -> bytes:
    body = bytearray(good_request(path))
    for _ in range(rng.randint(1, 3)):
        body[rng.randrange(len(body)) if rng.random() < 0.5 else rng.randrange(120)] = rng.randrange(256)
    return bytes(body)


def _replaced(rng: random.Random, path: str) -> bytes:
    """One value anywhere in the request is another, or gone, or there twice."""
    content = json.loads(good_request(path))
    node: Any = content
    parents: list[tuple[Any, Any]] = []
    while isinstance(node, dict | list) and node and (not parents or rng.random() < 0.8):
        key: Any = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        parents.append((node, key))
        node = node[key]
    parent, key = parents[-1]
    if rng.random() < 0.2:
        del parent[key]
    elif isinstance(parent, list) and rng.random() < 0.2:
        parent.insert(key, node)
    else:
        parent[key] = rng.choice(_VALUES)
    return _body(content)


def _literal(rng: random.Random, path: str) -> bytes:
    text = "".join(rng.choices(_LITERAL_PARTS, k=rng.randint(1, 30)))
    if rng.random() < 0.1:
        text *= 3000
    column = rng.choice(COLUMNS[1:4])
    return _body(_table("/sam/score", base64.b64encode(FILES["PNG"]).decode(), **{column: text}))


def _numbers(rng: random.Random, path: str) -> bytes:
    """Boxes and points that are well formed, and lie anywhere."""

    def number() -> float:
        return rng.choice((0, -1, 1e9, 1e-9, rng.uniform(-100, 200), float(rng.randrange(64))))

    boxes = [[number() for _ in range(rng.choice((4, 4, 4, 3)))] for _ in range(rng.randint(0, 4))]
    return _body(_table("/sam/score", base64.b64encode(FILES["PNG"]).decode(), input_boxes=boxes))


def _params(rng: random.Random, path: str) -> bytes:
    content = json.loads(good_request(path))
    names = ("score_threshold", "iou_threshold", "max_detections", "multimask_output", "coordinates", "mask_format")
    content["params"] = {name: rng.choice(_VALUES) for name in rng.choices(names, k=2)}
    return _body(content)


def _image(rng: random.Random, path: str) -> bytes:
    data = broken(rng, rng.choice(list(FILES.values())))
    return _body(_table(path, base64.b64encode(data).decode()))


def _base64(rng: random.Random, path: str) -> bytes:
    text = list(base64.b64encode(FILES["JPEG"]).decode())
    for _ in range(rng.randint(1, 20)):
        text[rng.randrange(len(text))] = rng.choice("=-_+/ \n\t\0é\ud800%")
    return _body(_table(path, "".join(text)[: rng.randrange(1, len(text))]))


def _url(rng: random.Random, path: str) -> bytes:
    return _body(_table(path, rng.choice(_URLS)))


def _bomb(rng: random.Random, path: str) -> bytes:
    name = rng.choice(list(_BOMBS))
    return _body(_table(path, _BOMBS[name]))


def _nested(rng: random.Random, path: str) -> bytes:
    depth = rng.choice((3, 50, 900, 1100, 100_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    deep = opening * depth + "1" + closing * depth
    return good_request(path).replace(b'"params": {}', f'"params": {deep}'.encode())


def _too_many(rng: random.Random, path: str) -> bytes:
    content = json.loads(good_request(path))
    table = content["input_data"]
    if rng.random() < 0.5:
        table["data"] = [[1]] * rng.choice((257, 5000))
        table.pop("index")
    else:
        table["columns"] = table["columns"] + [f"column {number}" for number in range(rng.choice((1, 1000)))]
    return _body(content)


def _elsewhere(rng: random.Random, path: str) -> BadRequest:
    method = rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "POST"))
    path = rng.choice(
        (path, f"{path}/", "/nowhere", "/score?x=" + "y" * 500, "/%00", "/..%2f..%2fetc/passwd", "//", "/version")
    )
    return BadRequest("method or path", method, path, b"" if method == "GET" else _noise(rng, path))


_URLS = [url for urls in hostile_urls(9).values() for url in urls if url.strip().lower().startswith("http")]
# Those of which a small one is already too much.
_BOMBS = {
    name: base64.b64encode(make(_BOMB_BYTES)).decode()
    for name, make in REFUSED.items()
    if name.startswith(("PNG", "GIF", "JPEG, empty", "JPEG, scans"))
}
_KINDS: dict[str, Callable[[random.Random, str], bytes | BadRequest]] = {
    "noise": _noise,
    "JSON cut short": _cut,
    "JSON with changed bytes": _flipped,
    "another value": _replaced,
    "prompts as text": _literal,
    "boxes anywhere": _numbers,
    "params": _params,
    "broken image file": _image,
    "broken base64": _base64,
    "hostile URL": _url,
    "image bomb": _bomb,
    "nested deeply": _nested,
    "too many rows or columns": _too_many,
    "method or path": _elsewhere,
}
