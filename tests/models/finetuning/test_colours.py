"""Colours for BoxInst, without scikit-image."""

from __future__ import annotations

import numpy as np

from models.finetuning.colours import rgb_to_lab


def test_known_colours() -> None:
    image = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255], [119, 119, 119]]], np.uint8)
    expected = [[0, 0, 0], [100, 0, 0], [53.24, 80.09, 67.2], [32.3, 79.19, -107.86], [50.03, 0, 0]]  # by CIE, D65
    assert np.abs(rgb_to_lab(image)[0] - expected).max() < 0.3
