"""Colours, textures and printed labels, drawn at random: (h, w, 3) float32 RGB in 0..255."""

from __future__ import annotations

import cv2
import numpy as np

_WORDS = ("MILK", "Cola", "fresh", "100%", "Half", "pure", "LEMON", "zero", "Spring", "WATER", "Oat", "Gold", "fizz")


def random_color(rng: np.random.Generator, saturation: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    hue, value = rng.uniform(0, 180), rng.beta(2, 1.2)
    hsv = np.array([[[hue, rng.uniform(*saturation) * 255, value * 255]]], np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def smooth_noise(rng: np.random.Generator, h: int, w: int, roughness: float, stretch: float = 1.0) -> np.ndarray:
    """Smooth random field (h, w) of about unit size: octaves whose amplitudes fall by `roughness`."""
    field = np.zeros((h, w), np.float32)
    amplitude, cells = 1.0, 2
    while cells <= min(h, w) // 2 and amplitude > 0.04:
        grid = rng.standard_normal((max(2, int(cells * stretch)), cells), np.float32)
        field += amplitude * cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
        amplitude, cells = amplitude * roughness, cells * 2
    return field


def random_texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    first, second = random_color(rng), random_color(rng)
    kind = rng.choice(6, p=[0.22, 0.24, 0.12, 0.18, 0.12, 0.12])
    if kind == 0:  # plain, mottled a little
        blend = 0.12 * smooth_noise(rng, h, w, 0.7)
    elif kind == 1:  # woven stripes of several colours
        across = w if rng.random() < 0.3 else h
        bands = rng.integers(4, 40)
        palette = np.stack([first, second, random_color(rng), random_color(rng)])
        edges = np.sort(rng.uniform(0, across, bands))
        tone = palette[rng.integers(0, 4, bands + 1)][np.searchsorted(edges, np.arange(across))]
        field = np.repeat(tone[:, None], w, 1) if across == h else np.repeat(tone[None], h, 0)
        if across == w and w != field.shape[1]:
            field = field[:, :w]
        field = cv2.GaussianBlur(np.ascontiguousarray(field[:h, :w]), (3, 3), 0)
        return field * (1 + 0.06 * smooth_noise(rng, h, w, 0.9)[..., None])
    elif kind == 2:  # tiles
        size = int(rng.integers(8, max(9, min(h, w) // 3)))
        rows, columns = np.arange(h)[:, None], np.arange(w)[None]
        if rng.random() < 0.5:
            blend = ((rows // size + columns // size) % 2).astype(np.float32)
        else:
            blend = ((rows % size < 2) | (columns % size < 2)).astype(np.float32)
    elif kind == 3:  # stone, cloth, foliage
        blend = 0.5 + 0.5 * smooth_noise(rng, h, w, rng.uniform(0.5, 0.95))
    elif kind == 4:  # wood
        blend = 0.5 + 0.5 * np.sin(6 * smooth_noise(rng, h, w, 0.5, rng.choice([0.2, 4.0])))
    else:  # gradient
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[0:h, 0:w].astype(np.float32)
        blend = np.cos(angle) * columns / w + np.sin(angle) * rows / h
    blend = np.clip(blend, 0, 1)[..., None].astype(np.float32)
    return first * (1 - blend) + second * blend


def printed_label(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """What is printed on a container: a ground colour with fields, ovals, writing, stripes and a bar code."""
    ground = random_color(rng) if rng.random() < 0.75 else np.full(3, rng.uniform(200, 255), np.float32)
    art = np.empty((h, w, 3), np.uint8)  # OpenCV writes text on bytes only
    art[:] = ground
    for _ in range(rng.integers(0, 3)):  # bands around the container
        top = int(rng.integers(0, h))
        art[top : top + int(rng.integers(2, max(3, h // 3)))] = random_color(rng)
    if rng.random() < 0.3:
        art[:, : int(rng.uniform(0.2, 0.8) * w)] = random_color(rng)
    for _ in range(rng.integers(0, 5)):
        center = (int(rng.uniform(0, w)), int(rng.uniform(0, h)))
        axes = (int(rng.uniform(0.06, 0.5) * w) + 1, int(rng.uniform(0.03, 0.2) * h) + 1)
        thickness = -1 if rng.random() < 0.7 else 2
        cv2.ellipse(
            art, center, axes, float(rng.uniform(0, 180)), 0, 360, random_color(rng).tolist(), thickness, cv2.LINE_AA
        )
    if rng.random() < 0.4:  # a swirl
        xs = np.linspace(0, w, 24)
        ys = h * rng.uniform(0.2, 0.9) + h * 0.1 * np.sin(xs / w * rng.uniform(3, 12) + rng.uniform(0, 6))
        curve = np.stack([xs, ys], 1).astype(np.int32)
        cv2.polylines(art, [curve], False, random_color(rng).tolist(), int(rng.integers(1, 8)), cv2.LINE_AA)
    for _ in range(rng.integers(0, 5)):
        where = (int(rng.uniform(-0.1, 0.6) * w), int(rng.uniform(0.1, 1) * h))
        word, size = str(rng.choice(_WORDS)), float(rng.uniform(0.25, 1.4))
        cv2.putText(
            art, word, where, int(rng.integers(0, 8)), size, random_color(rng).tolist(), int(rng.integers(1, 4))
        )
    if rng.random() < 0.25:  # a bar code
        x, y = int(rng.uniform(0, 0.8) * w), int(rng.uniform(0.5, 0.85) * h)
        code = np.repeat(rng.choice([20, 245], (1, max(6, w // 4))), max(4, h // 9), 0)
        art[y : y + code.shape[0], x : x + code.shape[1]] = code[: h - y, : w - x, None]
    return art.astype(np.float32)
