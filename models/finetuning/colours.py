"""Colours in CIE L*a*b* for BoxInst, whose training compares neighbouring pixels in them: by OpenCV, without
scikit-image."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import cv2
import numpy as np


def rgb_to_lab(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 sRGB -> float32 L* in 0..100, a*, b*; white is D65, as in `skimage.color.rgb2lab`."""
    lab: np.ndarray = cv2.cvtColor(np.ascontiguousarray(image, np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab


def install() -> None:
    """Let MMDetection find them where scikit-image, which it asks for by itself, is not installed."""
    if importlib.util.find_spec("skimage") is None:
        from mmdet.models.data_preprocessors import data_preprocessor

        data_preprocessor.skimage = SimpleNamespace(color=SimpleNamespace(rgb2lab=rgb_to_lab))
