"""OWLv2's preparation of an image, padded to a square and resized, computed only where the image is.

transformers blurs and resamples the square itself by `scipy.ndimage`; here both are one sparse matrix for each axis. It
takes a third of the time for a photo, and for a long one no memory for a square of its length.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array

# Where scipy's gaussian_filter cuts its bell, in standard deviations.
_TRUNCATED = 4.0


def resized_square(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """(h, w, C) -> (H, W, C) float32: as padded with zeros at the right and bottom to a square, blurred, resampled."""
    height, width, channels = image.shape
    side = max(height, width)
    rows, columns = (_resampling(side, out, known) for out, known in zip(size_hw, (height, width), strict=True))
    lines = (rows @ image.reshape(height, -1).astype(np.float32)).reshape(size_hw[0], width, channels)
    turned = lines.transpose(1, 0, 2).reshape(width, -1)
    return (columns @ turned).reshape(size_hw[1], size_hw[0], channels).transpose(1, 0, 2)


def _resampling(side: int, out: int, known: int) -> csr_array:
    """(out, known) float32: what each of `out` samples takes of `side` ones, of which all after `known` are zero."""
    factor = side / out
    place = (np.arange(out) + 0.5) * factor - 0.5
    first = np.floor(place).astype(np.int64)
    share = place - first
    sigma = max(0.0, (factor - 1) / 2)
    radius = int(_TRUNCATED * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    bell = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma else np.ones(1)
    bell /= bell.sum()
    taps = np.stack([first, first + 1], axis=1)  # (out, 2)
    # Both steps mirror at the borders, the second what the first has made there.
    columns = _mirrored(_mirrored(taps, side)[..., None] + offsets, side)  # (out, 2, offsets)
    weights = np.stack([1 - share, share], axis=1)[..., None] * bell
    lines = np.broadcast_to(np.arange(out)[:, None, None], columns.shape)
    there = columns < known
    entries = weights[there].astype(np.float32), (lines[there], columns[there])
    return coo_array(entries, shape=(out, known)).tocsr()


def _mirrored(index: np.ndarray, side: int) -> np.ndarray:
    """Indices beyond the ends as those that they mirror, where the end itself is not repeated."""
    if side == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * side - 2)
    return np.where(index < side, index, 2 * side - 2 - index)
