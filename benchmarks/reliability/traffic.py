"""What saturating clients ask: every route, prompt and form of mask, with the right answers, taken beforehand.

Answers to the same request may differ in the last bits of the networks' numbers, which depend on what shared a batch;
so a mask may differ where a logit is next to zero, boxes of the same score may change places, and a box may be missing
whose score is at the threshold. `deviation` says by how much answers differ, and WITHIN what is still right.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from benchmarks.reliability.callers import COLUMNS, PATIENCE_S, body
from models.demo.scenes import render_scene

SIZES_HW = ((120, 160), (320, 320), (480, 640), (666, 499), (900, 1200))


@dataclass(frozen=True)
class Deviation:
    """The most by which an answer's parts differ. number: scores and corners in 0..1. pixels: share of a mask's."""

    number: float = 0.0
    pixels: float = 0.0

    def most(self, other: Deviation) -> Deviation:
        return Deviation(max(self.number, other.number), max(self.pixels, other.pixels))

    def within(self, limit: Deviation) -> bool:
        return self.number <= limit.number and self.pixels <= limit.pixels


WITHIN = Deviation(number=1e-4, pixels=1e-3)
# Of the detector, and of the pipeline.
THRESHOLDS = (0.05, 0.3)


class Different(ValueError):
    """Two answers that differ in more than numbers and pixels."""


@dataclass(frozen=True)
class Case:
    """A request, and its right status and answer. exact: to the byte, as messages are."""

    path: str
    content: bytes
    status: int = 200
    answer: bytes = b""

    @property
    def exact(self) -> bool:
        return self.status != 200

    def check(self, status: int, answer: bytes) -> Deviation | None:
        """How far an answer is from the right one; None where it is wrong."""
        if (status, answer) == (self.status, self.answer):
            return Deviation()
        if status != self.status or self.exact:
            return None
        try:
            found = deviation(json.loads(answer), json.loads(self.answer))
        except (Different, ValueError):
            return None
        return found if found.within(WITHIN) else None

    def difference(self, status: int, answer: bytes) -> str:
        """Why an answer is wrong."""
        if status != self.status or self.exact:
            return f"{status} {answer[:300]!r} for {self.status} {self.answer[:300]!r}"
        try:
            return str(deviation(json.loads(answer), json.loads(self.answer)))
        except (Different, ValueError) as error:
            return str(error)


def make(images: int) -> list[Case]:
    """All kinds of requests about so many images, of several sizes, without their answers; bad ones among them."""
    cases = []
    for number in range(images):
        size_hw = SIZES_HW[number % len(SIZES_HW)]
        pixels = render_scene(np.random.default_rng(5000 + number), size_hw, containers=(2, 4)).image
        image = _encoded(pixels, "PNG" if number % 3 == 0 else "JPEG")
        height, width = size_hw
        box = [0.2 * width, 0.2 * height, 0.7 * width, 0.8 * height]
        other = [0.5 * width, 0.1 * height, 0.9 * width, 0.9 * height]
        point, second = [0.4 * width, 0.5 * height], [0.6 * width, 0.6 * height]
        mask_format = ("png", "rle", "polygon")[number % 3]
        sam = [
            ([image, None, [box, other], None, False], {"mask_format": mask_format}),
            ([image, [[point]], None, None, True], {"mask_format": ("polygon", "png", "rle")[number % 3]}),
            ([image, [[point, second]], None, [[1, 0]], False], {}),
            ([image, [[point]], [box], [[1]], True], {"response_schema": "live"}),
        ]
        cases += [Case("/sam/score", body(COLUMNS, [row], params)) for row, params in sam]
        cases.append(Case("/score", body(COLUMNS, [row for row, _ in sam], {"mask_format": "rle"})))
        cases.append(Case("/yolof/score", body(["image"], [[image]])))
        cases.append(Case("/pipeline/score", body(["image"], [[image]], {"mask_format": mask_format})))
    image = _encoded(pixels, "JPEG")
    cases += [
        Case("/score", b"{"),
        Case("/score", body(["image"], [["not an image"]])),
        Case("/sam/score", body(COLUMNS, [[image, None, [[9, 9, 5, 5]], None, False]])),
        Case("/yolof/score", body(["image"], [[image[: len(image) // 8 * 4]]])),
        Case("/nowhere", b"{}"),
    ]
    return cases


def answered(cases: list[Case], url: str) -> list[Case]:
    """The cases with the answers of a service that has nothing else to do, one by one."""
    with httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
        known = []
        for case in cases:
            answer = http.post(case.path, content=case.content)
            known.append(Case(case.path, case.content, answer.status_code, answer.content))
    return known


def deviation(found: Any, expected: Any, size_hw: tuple[int, int] | None = None) -> Deviation:
    """Raises Different. size_hw: of the polygons within."""
    if type(found) is not type(expected):
        raise Different(f"{type(found).__name__} for {type(expected).__name__}")
    if isinstance(expected, dict):
        if found.keys() != expected.keys():
            raise Different(f"{sorted(found)} for {sorted(expected)}")
        most = Deviation()
        for key, value in expected.items():
            if key in _MASKS:
                one, other = (_MASKS[key](mask) for mask in (found[key], value))
                if one.shape != other.shape:
                    raise Different(f"a mask of {one.shape} for {other.shape}")
                most = most.most(Deviation(pixels=float(np.mean(one != other))))
            elif key == "boxes":
                most = most.most(_of_boxes(found[key], value))
            else:
                most = most.most(deviation(found[key], value))
        return most
    if isinstance(expected, list):
        if len(found) != len(expected):
            raise Different(f"{len(found)} for {len(expected)}")
        most = Deviation()
        for one, other in zip(found, expected, strict=True):
            most = most.most(deviation(one, other))
        return most
    if isinstance(expected, float):
        return Deviation(number=abs(found - expected))
    if found != expected:
        raise Different(f"{found!r} for {expected!r}")
    return Deviation()


def _of_boxes(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> Deviation:
    """Each box beside the one that it is nearest to."""
    scores = [box["score"] for box in found]
    if scores != sorted(scores, reverse=True):
        raise Different("boxes that are not in the order of their scores")
    left, most = list(found), Deviation()
    for box in (*expected, None):
        if box is None:
            missing = left
        else:
            near = [(_distance(one, box), number) for number, one in enumerate(left)]
            distance, number = min(near, default=(np.inf, -1))
            if distance <= WITHIN.number:
                most = most.most(deviation(left.pop(number), box))
                continue
            missing = [box]
        for one in missing:
            if min(abs(one["score"] - threshold) for threshold in THRESHOLDS) > WITHIN.number:
                raise Different(f"a box that only one of them has: {one['label']}, {one['box']}, {one['score']}")
    return most


def _distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The most by which two boxes of one label differ in a corner or the score."""
    if one["label"] != other["label"]:
        return np.inf
    corners = [abs(one["box"][name] - other["box"][name]) for name in one["box"]]
    return max(*corners, abs(one["score"] - other["score"]))


def _encoded(pixels: np.ndarray, file_format: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return base64.b64encode(buffer.getvalue()).decode()


def _of_png(mask: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(mask))) as image:
        return np.asarray(image) > 0


def _of_rle(mask: dict[str, Any]) -> np.ndarray:
    return np.array(coco_mask.decode(mask)) > 0


def _of_polygons(mask: list[list[float]]) -> np.ndarray:
    """Filled on a grid of a thousand pixels a side, whatever the image's size."""
    side = 1000
    filled = np.zeros((side, side), bool)
    for polygon in mask:
        scaled = (np.array(polygon) * side).tolist()
        filled |= np.array(coco_mask.decode(coco_mask.frPyObjects([scaled], side, side)))[..., 0] > 0
    return filled


_MASKS: dict[str, Any] = {"encoded_binary_mask": _of_png, "rle": _of_rle, "polygon": _of_polygons}
