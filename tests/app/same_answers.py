"""Whether two ways to the models answer alike."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.mask import decode as decode_rle


def assert_same(found: Any, expected: Any) -> None:
    """Alike in everything but roundings: which rows of a request share a batch, and so the last bits, is chance."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            if key in ("encoded_binary_mask", "rle"):
                masks = [decode_rle(one) if key == "rle" else decode_png(one) for one in (found[key], value)]
                assert masks[0].shape == masks[1].shape
                assert np.mean(masks[0] == masks[1]) > 0.999
            else:
                assert_same(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5)
    else:
        assert found == expected


def decode_png(mask: str) -> np.ndarray:
    with Image.open(BytesIO(base64.b64decode(mask))) as image:
        assert image.mode == "L"
        return np.asarray(image)
