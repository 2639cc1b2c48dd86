"""Things that the demo segmenter does badly, drawn into its kind of scene: thin, holed and see-through ones.

As the demo's own scenes they follow from a seed alone, and come with exact masks.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from models.data import Dataset, write
from models.demo import dataset as demo
from models.demo.scenes import Scene, render_sprites
from models.demo.textures import random_color, random_texture
from models.demo.things import Sprite

KINDS = ("thin", "holed", "glass")
_SIZE = 192  # pixels in which a thing is drawn before it is placed
_SHIFT = 4  # bits of a pixel's fraction that OpenCV draws by
# Numbers of scenes to train on, and of others to measure on.
TRAINING, MEASURED = 31_000_000, 32_000_000


def hard_scene(number: int, longest: int = 480) -> Scene:
    """The scene of this number with one to four such things, `longest` pixels long; labels are indices into KINDS."""
    rng = np.random.default_rng(number)
    size_hw = (longest, int(rng.integers(longest * 5 // 8, longest + 1)))

    def sprites(rng: np.random.Generator) -> list[Sprite]:
        return [hard_sprite(rng) for _ in range(rng.integers(1, 5))]

    return render_sprites(rng, size_hw, sprites)


def draw_dataset(folder: Path, first: int, count: int) -> Dataset:
    """Draw `count` scenes from number `first` on into `folder`: PNG files and annotations.json, in COCO's format."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for index in range(count):
        scene = hard_scene(first + index)
        path = folder / f"{index:04d}.png"
        Image.fromarray(scene.image).save(path, compress_level=1)
        images.append(demo.labelled(path, scene, names=KINDS))
    drawn = Dataset(KINDS, tuple(images))
    write(drawn, folder / "annotations.json", "coco", images="reference")
    return drawn


def hard_sprite(rng: np.random.Generator) -> Sprite:
    label = int(rng.integers(len(KINDS)))
    draw = (_thin, _holed, _glass)[label]
    shape, opacity, rgb = draw(rng)
    return Sprite(np.clip(rgb, 0, 255).astype(np.float32), opacity, shape, label)


Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]  # shape (h, w), opacity (h, w), rgb (h, w, 3)


def _thin(rng: np.random.Generator) -> Drawn:
    """A cable, a coat hanger, a fork or a pair of spectacles."""
    shape = np.zeros((_SIZE, _SIZE), np.float32)
    width = int(rng.integers(5, 11))
    kind = rng.integers(4)
    if kind == 0:
        knots = rng.uniform(15, _SIZE - 15, (int(rng.integers(4, 7)), 2))
        _line(shape, _smooth(knots), width, closed=False)
    elif kind == 1:
        left, right, top, bottom = 10.0, _SIZE - 10.0, rng.uniform(60, 90), rng.uniform(120, 160)
        middle = _SIZE / 2
        _line(shape, np.array([(middle, top), (right, bottom), (left, bottom)]), width, closed=True)
        hook = [(middle + 16 * np.sin(a), top - 22 - 16 * np.cos(a)) for a in np.linspace(-1.2, 3.1, 14)]
        _line(shape, np.array([*hook, (middle, top)]), width, closed=False)
    elif kind == 2:
        middle, half = _SIZE / 2, rng.uniform(14, 26)
        _line(shape, np.array([(middle, 90), (middle, _SIZE - 8)]), width + 3, closed=False)
        _line(shape, np.array([(middle - half, 90), (middle + half, 90)]), width + 3, closed=False)
        for x in np.linspace(middle - half, middle + half, int(rng.integers(3, 5))):
            _line(shape, np.array([(x, 8), (x, 90)]), max(5, width - 2), closed=False)
    else:
        radius, y = rng.uniform(28, 38), _SIZE / 2
        for x in (_SIZE / 2 - radius - 10, _SIZE / 2 + radius + 10):
            _line(shape, _ellipse((x, y), (radius, radius * rng.uniform(0.7, 1))), width - 1, closed=True)
        bridge = np.array([(_SIZE / 2 - 10, y), (_SIZE / 2, y - 6), (_SIZE / 2 + 10, y)])
        _line(shape, bridge, width - 1, closed=False)
    return shape, shape, _coloured(rng, shape)


def _holed(rng: np.random.Generator) -> Drawn:
    """A ring, a rack, a sieve, or a frame."""
    shape = np.zeros((_SIZE, _SIZE), np.float32)
    kind, middle = rng.integers(4), (_SIZE / 2, _SIZE / 2)
    if kind == 0:
        radii = (rng.uniform(55, 88), rng.uniform(45, 88))
        _line(shape, _ellipse(middle, radii), int(rng.integers(9, 26)), closed=True)
    elif kind == 1:
        width, bars = int(rng.integers(5, 10)), int(rng.integers(4, 8))
        across = int(rng.integers(2, 5))
        low, high = 12.0, _SIZE - 12.0
        for at in np.linspace(low, high, bars):
            _line(shape, np.array([(at, low), (at, high)]), width, closed=False)
        for at in np.linspace(low, high, across):
            _line(shape, np.array([(low, at), (high, at)]), width, closed=False)
    elif kind == 2:
        radius = rng.uniform(70, 88)
        _fill(shape, _ellipse(middle, (radius, radius * rng.uniform(0.75, 1))), 1.0)
        holes, step = rng.uniform(9, 15), rng.uniform(36, 46)
        for x in np.arange(middle[0] - 2 * step, middle[0] + 2.1 * step, step):
            for y in np.arange(middle[1] - 2 * step, middle[1] + 2.1 * step, step):
                if np.hypot(x - middle[0], y - middle[1]) < 0.72 * radius:
                    _fill(shape, _ellipse((x, y), (holes, holes)), 0.0)
    else:
        outer = np.array([(14.0, 30.0), (_SIZE - 14.0, 30.0), (_SIZE - 14.0, _SIZE - 30.0), (14.0, _SIZE - 30.0)])
        _line(shape, outer + rng.uniform(-8, 8, (4, 2)), int(rng.integers(12, 26)), closed=True)
    return shape, shape, _coloured(rng, shape)


def _glass(rng: np.random.Generator) -> Drawn:
    """A tumbler, a bowl, or a pane, through which one sees what is behind it; its rim and some streaks shine."""
    shape = np.zeros((_SIZE, _SIZE), np.float32)
    top, bottom = rng.uniform(0.3, 0.47), rng.uniform(0.18, 0.45)
    half = _SIZE / 2
    ys = np.linspace(12, _SIZE - 12, 24)
    bulge = rng.uniform(-0.08, 0.12) * np.sin(np.linspace(0, np.pi, 24))
    widths = _SIZE * (np.linspace(top, bottom, 24) + bulge)
    outline = np.concatenate([np.stack([half + widths, ys], 1), np.stack([half - widths, ys], 1)[::-1]])
    _fill(shape, outline, 1.0)
    solid = (shape > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(np.pad(solid, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    edge = np.exp(-depth / rng.uniform(1.5, 3.5)) * rng.uniform(0.35, 0.8)
    opacity = shape * np.maximum(edge, rng.uniform(0.04, 0.2)).astype(np.float32)
    rgb = np.full((_SIZE, _SIZE, 3), rng.uniform(150, 255), np.float32) * rng.uniform(0.85, 1, 3).astype(np.float32)
    for _ in range(rng.integers(1, 4)):
        streak = np.zeros_like(shape)
        x = half + rng.uniform(-0.7, 0.7) * float(widths.min())
        ends = np.array([(x, rng.uniform(20, 70)), (x + rng.uniform(-8, 8), rng.uniform(90, 165))])
        _line(streak, ends, int(rng.integers(3, 9)), closed=False)
        opacity = np.maximum(opacity, shape * cv2.GaussianBlur(streak, (0, 0), 1.5) * rng.uniform(0.3, 0.7))
    return shape, opacity, rgb


def _coloured(rng: np.random.Generator, shape: np.ndarray) -> np.ndarray:
    """Metal, plastic or something patterned, lit from one side."""
    h, w = shape.shape
    if rng.random() < 0.3:
        rgb = random_texture(rng, h, w)
    else:
        rgb = np.broadcast_to(random_color(rng, (0.0, 0.9)), (h, w, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(shape, (0, 0), 2.5)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * cv2.Sobel(blurred, cv2.CV_32F, 1, 0) + np.sin(angle) * cv2.Sobel(blurred, cv2.CV_32F, 0, 1)
    return rgb * (1 + rng.uniform(0.1, 0.5) * slope[..., None])


def _line(canvas: np.ndarray, points: np.ndarray, width: int, *, closed: bool) -> None:
    fixed = np.round(points * 2**_SHIFT).astype(np.int32)
    cv2.polylines(canvas, [fixed], closed, 1.0, width, cv2.LINE_AA, _SHIFT)


def _fill(canvas: np.ndarray, outline: np.ndarray, value: float) -> None:
    cv2.fillPoly(canvas, [np.round(outline * 2**_SHIFT).astype(np.int32)], value, cv2.LINE_AA, _SHIFT)


def _ellipse(middle: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([np.cos(angles) * radii[0], np.sin(angles) * radii[1]], 1) + middle


def _smooth(knots: np.ndarray) -> np.ndarray:
    """A curve through the knots (N, 2): Catmull and Rom's."""
    padded = np.concatenate([knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, 16)[:, None]
    parts = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(parts)
