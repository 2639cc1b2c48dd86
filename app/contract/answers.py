"""The service's answers, read back: boxes in pixels, errors of a single row, and what `/version` says of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np


def box_in_pixels(box: Mapping[str, float], size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 in float32, the detector's own numbers, which the division for the wire had taken from them."""
    height, width = size_hw
    corners = [box[key] for key in ("topX", "topY", "bottomX", "bottomY")]
    x1, y1, x2, y2 = (np.array(corners) * (width, height, width, height)).astype(np.float32).tolist()
    return x1, y1, x2, y2


def turned_box_in_pixels(found: Mapping[str, Any], size_hw: tuple[int, int]) -> tuple[float, ...] | None:
    """x1, y1, ..., x4, y4; None where the answer has no turned box."""
    corners = found.get("rotated_box")
    return None if corners is None else tuple(np.round(np.array(corners) * (size_hw[::-1] * 4), 3).tolist())


def identity(served: Mapping[str, Any] | None) -> str | None:
    """What `/version` says of a model, as far as its answers depend on it."""
    if served is None:
        return None
    how = [served["dtype"], "fast" if served.get("fast") else "as published", served.get("channel_order")]
    return f"{served['name']} ({', '.join(filter(None, how))}, sha256 {served.get('sha256', 'unknown')[:16]})"


def without_row(message: str) -> str:
    """The service's message without the row and the column of the image, as there is only one of each."""
    return re.sub(r"^row 0(, image)?(: |, )", "", message)
