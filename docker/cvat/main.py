"""box2mask as serverless functions of CVAT, called by Nuclio: `handler` makes a mask of clicks, `detect` finds objects.

CVAT sends the frame with every click. box2mask knows an image that was sent before by its SHA-256, so that it gets the
frame once, and the further clicks on it carry their points alone. Nothing but Python's standard library is needed.

SCORING_URL is the address of box2mask, SCORING_KEY its API key, if it wants one; SCORE_THRESHOLD (0.3) holds where CVAT
names none, and SHAPES is masks or boxes; both are for `detect`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

_TRIES = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_TIMEOUT_S = 60.0
_SHAPES = ("masks", "boxes")
_DIGITS = bytes.maketrans(b"\0\1", b"01")

# The crop of a mask to where it is: its rows of 0 and 1, and left, top, right and bottom, which are in it.
Crop = tuple[list[bytes], tuple[int, int, int, int]]


class ScoringError(Exception):
    """There is no answer for CVAT. status: the HTTP status that says so."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def init_context(context: Any) -> None:
    """Nuclio calls this once, before the first request. Raises ValueError for settings that mean nothing."""
    url = os.environ.get("SCORING_URL", "")
    if not re.match(r"https?://[^/?#]", url):
        raise ValueError(f"SCORING_URL: expected the address of box2mask, as in http://box2mask:5001, got {url!r}")
    shapes = os.environ.get("SHAPES", "masks")
    if shapes not in _SHAPES:
        raise ValueError(f"SHAPES: expected {' or '.join(_SHAPES)}, got {shapes!r}")
    context.user_data.service = Service(url, os.environ.get("SCORING_KEY"))
    context.user_data.shapes = shapes
    context.user_data.threshold = float(os.environ.get("SCORE_THRESHOLD", "0.3"))


def handler(context: Any, event: Any) -> Any:
    """An interactor: `image`, base64 of its file; `pos_points` and `neg_points`, [[x, y], ...]; `obj_bbox`, [[x1, y1],
    [x2, y2]], [] or null; all in pixels of the upright image. The answer is the mask of the one object that they mean.

    `mask` has the rows of 0 and 1 within `bounds`; `shapes` has the same for the versions of CVAT that read this.
    """
    return _answered(context, event, lambda data: _interact(context.user_data.service, data))


def detect(context: Any, event: Any) -> Any:
    """A detector: `image`, and `threshold` where the user has set one. The answer is a list of shapes."""
    user = context.user_data
    return _answered(context, event, lambda data: _find(user.service, data, user.shapes, user.threshold))


def _answered(context: Any, event: Any, work: Any) -> Any:
    """Nuclio's response. What goes wrong is logged too, as CVAT shows its users the status and not the text."""
    try:
        body, status = work(_data(event.body)), 200
    except ScoringError as error:
        context.logger.error(str(error))
        body, status = json.dumps({"message": str(error)}), error.status
    return context.Response(body=body, headers={}, content_type="application/json", status_code=status)


def _data(body: Any) -> dict[str, Any]:
    """The request. Nuclio has parsed it where it came as application/json."""
    if isinstance(body, bytes | str):
        try:
            body = json.loads(body)
        except ValueError as error:
            raise ScoringError(f"expected JSON ({error})", 400) from error
    if not isinstance(body, dict) or not isinstance(body.get("image"), str):
        raise ScoringError("image: expected the base64 of an image file", 400)
    return body


# Interactor


def _interact(service: Service, data: dict[str, Any]) -> str:
    positive, negative = (_points(data, name) for name in ("pos_points", "neg_points"))
    corners = _points(data, "obj_bbox")
    if len(corners) not in (0, 2):
        raise ScoringError(f"obj_bbox: expected two corners, got {len(corners)}", 400)
    if not positive and not corners:
        return _mask(None)  # negative points alone say what it is not
    box, points = [value for corner in corners for value in corner], positive + negative
    row = {
        "input_points": [points] if points else "",
        "input_boxes": [box] if box else "",
        "input_labels": [[1] * len(positive) + [0] * len(negative)] if points else "",
        "multimask_output": False,
    }
    params = {"coordinates": "absolute", "mask_format": "rle", "exif_orientation": True}
    answer = service.score("/sam/score", data["image"], row, params)
    return _mask(crop(answer["predictions"][0]["mask_per_prediction"][0]["rle"]))


def _points(data: dict[str, Any], name: str) -> list[list[float]]:
    given = data.get(name) or []
    try:
        return [[float(x), float(y)] for x, y in given]
    except (TypeError, ValueError) as error:
        raise ScoringError(f"{name}: expected [[x, y], ...], got {json.dumps(given)[:100]}", 400) from error


def _mask(found: Crop | None) -> str:
    """JSON. The rows are written without a list of their millions of numbers, which would take seconds."""
    if found is None:
        return json.dumps({"mask": [[0]], "bounds": [0, 0, 0, 0], "points": [], "shapes": []})
    rows, bounds = found
    shape = {"type": "mask", "points": [*runs_of(rows), *bounds], "attributes": []}
    others = json.dumps({"bounds": bounds, "shapes": [shape]})
    return f'{{"mask":[{",".join(f"[{_listed(row)}]" for row in rows)}],{others[1:]}'


def _listed(row: bytes) -> str:
    """0,1,1,0"""
    text = bytearray(b",") * (2 * len(row) - 1)
    text[::2] = row.translate(_DIGITS)
    return text.decode()


# Detector


def _find(service: Service, data: dict[str, Any], shapes: str, threshold: float) -> str:
    params = {"score_threshold": data.get("threshold") or threshold, "exif_orientation": True}
    if shapes == "boxes":
        size = service.size(data["image"])
        found = service.score("/yolof/score", data["image"], {}, params | {"masks": "none"})["boxes"]
        return json.dumps([_shape(one, "rectangle", points=_scaled(_corners(one), size)) for one in found])
    found = service.score("/pipeline/score", data["image"], {}, params | {"mask_format": "rle"})["boxes"]
    outlines = {"mask_format": "polygon", "polygon_tolerance": 1}
    polygons = service.score("/pipeline/score", data["image"], {}, params | outlines)["boxes"] if found else []
    made = []
    for one, outlined in zip(found, polygons, strict=True):
        rle = one["mask_per_prediction"][0]["rle"]
        mask = crop(rle)
        if mask is not None:
            rows, bounds = mask
            # For users who want polygons: CVAT has room for a single one.
            points = _scaled(max(outlined["polygon"], key=_area), rle["size"][::-1])
            mask_text = f"{_listed(b''.join(rows))},{','.join(map(str, bounds))}"
            made.append(f'{json.dumps(_shape(one, "mask", points=points))[:-1]},"mask":[{mask_text}]}}')
    return f"[{','.join(made)}]"


def _shape(found: dict[str, Any], kind: str, **where: Any) -> dict[str, Any]:
    return {"confidence": str(found["score"]), "label": found["label"], "type": kind, **where}


def _corners(found: dict[str, Any]) -> list[float]:
    return [found["box"][side] for side in ("topX", "topY", "bottomX", "bottomY")]


def _scaled(fractions: Sequence[float], size: Sequence[int]) -> list[float]:
    """x, y, x, y, ... in pixels. size: (width, height)."""
    return [round(value * size[index % 2], 2) for index, value in enumerate(fractions)]


def _area(ring: Sequence[float]) -> float:
    """Twice the area within x1, y1, x2, y2, ..., by the shoelace formula."""
    points = list(zip(ring[::2], ring[1::2], strict=True))
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True)))


# Masks


def crop(rle: dict[str, Any]) -> Crop | None:
    """A mask of COCO's compressed run-length encoding, which goes down the columns; None where it is empty."""
    height, _ = rle["size"]
    spans, place = [], 0
    for number, run in enumerate(_runs(rle["counts"])):
        if number % 2 and run:
            spans.append((place, place + run))
        place += run
    if not spans:
        return None
    left, right = spans[0][0] // height, (spans[-1][1] - 1) // height
    columns = bytearray((right + 1 - left) * height)
    top, bottom = height, 0
    for start, end in spans:
        columns[start - left * height : end - left * height] = b"\1" * (end - start)
        whole = start // height != (end - 1) // height  # it goes on at the top of the next column
        top, bottom = min(top, 0 if whole else start % height), max(bottom, height - 1 if whole else (end - 1) % height)
    return [bytes(columns[y::height]) for y in range(top, bottom + 1)], (left, top, right, bottom)


def _runs(counts: str) -> list[int]:
    """Numbers in base 32, the lowest digit first, in characters from "0" on; bit 5 says that more digits follow, bit 4
    of the last is the sign. From the fourth on, each is the difference to the run two before (COCO API, maskApi.c).
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        digit = ord(character) - 48
        number |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    return runs


def runs_of(rows: Sequence[bytes]) -> list[int]:
    """The lengths of the runs of 0, 1, 0, ... row by row, as CVAT stores masks."""
    lengths = [len(run[0]) for run in re.finditer(b"\0+|\1+", b"".join(rows))]
    return [0, *lengths] if rows[0][0] else lengths


# The service


class Service:
    """A running box2mask. Its methods raise ScoringError."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self._headers = {} if not key else {"Authorization": f"Bearer {key}"}
        self._keeps_images = True

    def score(self, route: str, image: str, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        """The answer to one row. image: base64, which is only sent if the service does not know the image."""
        if self._keeps_images:
            content = _decoded(image)
            reference = f"sha256:{hashlib.sha256(content).hexdigest()}"
            answer = self._score(route, {"image": reference, **row}, params)
            if answer is None and self._keep(content):
                answer = self._score(route, {"image": reference, **row}, params)
            if answer is not None:
                return answer
        answer = self._score(route, {"image": image, **row}, params)
        if answer is None:
            raise ScoringError(f"box2mask at {self.url} has lost an image that it was just sent", 502)
        return answer

    def size(self, image: str) -> tuple[int, int]:
        """(width, height) of the upright image, which the service has then, and which it must have room for."""
        _, kept = self._ask("/images", _decoded(image), "application/octet-stream")
        return kept["upright"]["width"], kept["upright"]["height"]

    def _score(self, route: str, row: dict[str, Any], params: dict[str, Any]) -> dict[str, Any] | None:
        """None where the image is not there."""
        table = {"columns": list(row), "data": [list(row.values())]}
        body = json.dumps({"input_data": table, "params": params}).encode()
        status, content = self._ask(route, body, "application/json", (410,))
        return None if status == 410 else content[0]

    def _keep(self, content: bytes) -> bool:
        """Whether the service keeps the image now."""
        status, _ = self._ask("/images", content, "application/octet-stream", (400, 404, 413))
        self._keeps_images = status != 404
        return status == 200

    def _ask(self, route: str, body: bytes, content_type: str, also: tuple[int, ...] = ()) -> tuple[int, Any]:
        """The status, 200 or one of `also`, and the JSON. A service that is busy, or starting, is asked again."""
        request = urllib.request.Request(
            self.url + route, body, {"Content-Type": content_type, **self._headers}, method="POST"
        )
        for number in range(_TRIES):
            last = number == _TRIES - 1
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                    return 200, json.loads(answer.read())
            except urllib.error.HTTPError as error:
                text = error.read(1000).decode(errors="replace")
                if error.code in also:
                    return error.code, None
                if last or error.code not in (429, 502, 503):
                    status = error.code if error.code in (400, 413) else 502
                    raise ScoringError(
                        f"box2mask at {self.url} answered {error.code}: {_said(text)}", status
                    ) from error
                stated = error.headers.get("Retry-After", "")
                pause = float(stated) if stated.isdecimal() else _FIRST_PAUSE_S * 2**number
            except (OSError, ValueError) as error:  # ValueError: it is no JSON
                if last:
                    raise ScoringError(f"no answer from box2mask at {self.url}: {error}", 503) from error
                pause = _FIRST_PAUSE_S * 2**number
            time.sleep(min(pause, _LONGEST_PAUSE_S))
        raise AssertionError("the last try ends the loop")


def _decoded(image: str) -> bytes:
    try:
        return base64.b64decode(image)
    except ValueError as error:
        raise ScoringError(f"image: expected the base64 of an image file ({error})", 400) from error


def _said(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, LookupError, TypeError):
        return text
