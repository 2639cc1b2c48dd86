"""Whether two ways to the models answer alike, within the bounds that docs/performance.md states."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.mask import decode as decode_rle


@dataclass(frozen=True)
class Bounds:
    """How far answers to the same question may be apart: what shares a batch, and so the rounding, is chance.

    number: of scores, and of coordinates in 0..1. pixels: the share of a mask's pixels.
    """

    number: float
    pixels: float


FLOAT32 = Bounds(number=1e-5, pixels=0.001)
# bfloat16 has 8 bits, so that its steps between 0.5 and 1 are 1/256. The tests' random weights have many pixels near
# the threshold, and masks of them move more than those of trained weights.
BFLOAT16 = Bounds(number=0.016, pixels=0.03)


def bounds() -> Bounds:
    """Those of the numbers that the tests' networks compute in."""
    return FLOAT32 if os.environ["BOX2MASK_DTYPE"] == "float32" else BFLOAT16


def assert_same(found: Any, expected: Any, within: Bounds | None = None) -> None:
    """Alike in everything but roundings."""
    within = within or bounds()
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if key in ("encoded_binary_mask", "rle"):
                masks = [decode_rle(one) if key == "rle" else decode_png(one) for one in (found[key], value)]
                assert_same_pixels(*masks, within)
            elif key == "boxes":
                assert_same(_paired(found[key], value, within), value, within)
            else:
                assert_same(found[key], value, within)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, within)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=within.number)
    else:
        assert found == expected


def _paired(found: list[Any], expected: list[Any], within: Bounds) -> list[Any]:
    """The found boxes, those that score alike in the order of the expected ones: a rounding may turn two of them."""
    scores = [box["score"] for box in found]
    assert scores == sorted(scores, reverse=True)
    left, paired = list(found), []
    for box in expected[: len(found)]:
        alike = [one for one in left if abs(one["score"] - box["score"]) <= within.number] or left[:1]
        best = min(alike, key=lambda one: sum(abs(one["box"][side] - box["box"][side]) for side in box["box"]))
        left.remove(best)
        paired.append(best)
    return paired + left


def assert_same_pixels(mask: np.ndarray, other: np.ndarray, within: Bounds | None = None) -> None:
    assert mask.shape == other.shape
    assert np.mean(mask != other) <= (within or bounds()).pixels


def decode_png(mask: str) -> np.ndarray:
    with Image.open(BytesIO(base64.b64decode(mask))) as image:
        assert image.mode == "L"
        return np.asarray(image)
