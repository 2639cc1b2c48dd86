"""Renders demo scenes: photo-like pictures of four kinds of drink containers with exact boxes and masks.

Everything is drawn from a seed with numpy and OpenCV, so a scene can be made again from its number alone.
A folder of cut-outs (pictures with an alpha channel) may be given as clutter; none is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

CLASS_NAMES = ("can", "carton", "milk_bottle", "water_bottle")
CLUTTER = -1  # the label of things that belong to no class

_WORDS = ("MILK", "Cola", "fresh", "100%", "Half", "pure", "LEMON", "zero", "Spring", "WATER", "Oat", "Gold", "fizz")
_SPRITE_HEIGHT = 192  # pixels in which an upright container is drawn before it is placed


@dataclass(frozen=True)
class Scene:
    """A picture and the truth about it.

    image: (H, W, 3) uint8 RGB.
    masks: (N, H, W) bool, the visible pixels of each thing; they never overlap.
    boxes_xyxy: (N, 4) float32, absolute pixels, tight around the visible pixels.
    labels: (N,) int64, indices into CLASS_NAMES, or CLUTTER.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class _Sprite:
    """One thing before it is placed: rgb (h, w, 3) float32 0..255, opacity and shape (h, w) float32 0..1.

    Opacity is less than shape where the thing is see-through, as in a water bottle.
    """

    rgb: np.ndarray
    opacity: np.ndarray
    shape: np.ndarray
    label: int


def render_scene(
    rng: np.random.Generator,
    size_hw: tuple[int, int] = (320, 320),
    cutouts: Sequence[np.ndarray] = (),
    containers: tuple[int, int] = (1, 4),
    clutter: tuple[int, int] = (0, 3),
) -> Scene:
    """Draw one scene.

    cutouts: RGBA uint8 pictures (see `load_cutouts`) mixed into the clutter.
    containers, clutter: the least and the most things of each sort that are put into the scene; fewer
    are returned where one hides another.
    """
    height, width = size_hw
    canvas, table_y = _backdrop(rng, height, width)
    sprites = [_container(rng) for _ in range(rng.integers(containers[0], containers[1] + 1))]
    sprites += [_clutter(rng, cutouts) for _ in range(rng.integers(clutter[0], clutter[1] + 1))]
    rng.shuffle(sprites)
    placed = [_place(rng, sprite, height, width, table_y) for sprite in sprites]
    # What stands lower in the picture is nearer to the camera and hides the rest.
    order = np.argsort([bottom for _, bottom in placed])
    shapes: list[np.ndarray] = []
    light_x = rng.uniform(-1, 1)
    for index in order:
        sprite, _ = placed[index]
        canvas *= 1 - _shadow(rng, sprite.shape, light_x)[..., None]
        opacity = sprite.opacity[..., None]
        canvas = canvas * (1 - opacity) + sprite.rgb * opacity
        solid = sprite.shape > 0.5
        shapes = [shape & ~solid for shape in shapes] + [solid]
    labels = [sprites[index].label for index in order]
    areas = [int((placed[index][0].shape > 0.5).sum()) for index in order]
    image = _photograph(rng, canvas)

    kept = [i for i, shape in enumerate(shapes) if shape.sum() >= max(40, 0.2 * areas[i])]
    masks = np.stack([shapes[i] for i in kept]) if kept else np.zeros((0, height, width), bool)
    return Scene(image, masks, tight_boxes(masks), np.array([labels[i] for i in kept], np.int64))


def load_cutouts(folders: Sequence[Path], limit: int, longest: int = 128) -> list[np.ndarray]:
    """Read up to `limit` cut-outs, (h, w, 4) uint8 RGBA no longer than `longest`, from PNG files under `folders`.

    Pictures whose alpha channel cuts out nothing, or next to nothing, are left out.
    """
    files = sorted(file for folder in folders for file in folder.rglob("*.png"))
    order = np.random.default_rng(0).permutation(len(files))
    cutouts: list[np.ndarray] = []
    for index in order:
        picture = cv2.imread(str(files[index]), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or picture.shape[2] != 4 or picture.dtype != np.uint8:
            continue
        picture = _trim(picture)
        scale = longest / max(picture.shape[:2])
        if min(picture.shape[:2]) * scale < 24:
            continue
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        filled = float((picture[..., 3] > 127).mean())
        if 0.15 < filled < 0.97:
            cutouts.append(np.ascontiguousarray(picture[..., [2, 1, 0, 3]]))
        if len(cutouts) == limit:
            break
    return cutouts


def emoji_cutouts(font: Path, limit: int, longest: int = 128) -> list[np.ndarray]:
    """Draw up to `limit` glyphs of a colour emoji font as cut-outs, as `load_cutouts` returns them."""
    from PIL import Image, ImageDraw, ImageFont

    face = ImageFont.truetype(str(font), 109)  # the one size that bitmap emoji fonts have
    codes = [*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F700), *range(0x1F900, 0x1FA00)]
    cutouts: list[np.ndarray] = []
    for code in codes[: limit * 2]:
        glyph = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(glyph).text((12, 12), chr(code), font=face, embedded_color=True)
        picture = _trim(np.asarray(glyph))
        if min(picture.shape[:2]) >= 48 and len(cutouts) < limit:
            scale = longest / max(picture.shape[:2])
            cutouts.append(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return cutouts


def _trim(picture: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(picture[..., 3] > 8)
    if not rows.size:
        return picture[:1, :1]
    return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def tight_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) float32 x1, y1, x2, y2 around masks (N, H, W), none of which may be empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for i, mask in enumerate(masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes[i] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


# Colours and textures, (h, w, 3) float32 0..255


def _color(rng: np.random.Generator, saturation: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    hue, value = rng.uniform(0, 180), rng.beta(2, 1.2)
    hsv = np.array([[[hue, rng.uniform(*saturation) * 255, value * 255]]], np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def _noise(rng: np.random.Generator, h: int, w: int, roughness: float, stretch: float = 1.0) -> np.ndarray:
    """Smooth random field (h, w) of about unit size: octaves whose amplitudes fall by `roughness`."""
    field = np.zeros((h, w), np.float32)
    amplitude, cells = 1.0, 2
    while cells <= min(h, w) // 2 and amplitude > 0.04:
        grid = rng.standard_normal((max(2, int(cells * stretch)), cells), np.float32)
        field += amplitude * cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
        amplitude, cells = amplitude * roughness, cells * 2
    return field


def _texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    first, second = _color(rng), _color(rng)
    kind = rng.choice(6, p=[0.22, 0.24, 0.12, 0.18, 0.12, 0.12])
    if kind == 0:  # plain, mottled a little
        blend = 0.12 * _noise(rng, h, w, 0.7)
    elif kind == 1:  # woven stripes of several colours
        across = w if rng.random() < 0.3 else h
        bands = rng.integers(4, 40)
        palette = np.stack([first, second, _color(rng), _color(rng)])
        edges = np.sort(rng.uniform(0, across, bands))
        tone = palette[rng.integers(0, 4, bands + 1)][np.searchsorted(edges, np.arange(across))]
        field = np.repeat(tone[:, None], w, 1) if across == h else np.repeat(tone[None], h, 0)
        if across == w and w != field.shape[1]:
            field = field[:, :w]
        field = cv2.GaussianBlur(np.ascontiguousarray(field[:h, :w]), (3, 3), 0)
        return field * (1 + 0.06 * _noise(rng, h, w, 0.9)[..., None])
    elif kind == 2:  # tiles
        size = int(rng.integers(8, max(9, min(h, w) // 3)))
        rows, columns = np.arange(h)[:, None], np.arange(w)[None]
        if rng.random() < 0.5:
            blend = ((rows // size + columns // size) % 2).astype(np.float32)
        else:
            blend = ((rows % size < 2) | (columns % size < 2)).astype(np.float32)
    elif kind == 3:  # stone, cloth, foliage
        blend = 0.5 + 0.5 * _noise(rng, h, w, rng.uniform(0.5, 0.95))
    elif kind == 4:  # wood
        blend = 0.5 + 0.5 * np.sin(6 * _noise(rng, h, w, 0.5, rng.choice([0.2, 4.0])))
    else:  # gradient
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[0:h, 0:w].astype(np.float32)
        blend = np.cos(angle) * columns / w + np.sin(angle) * rows / h
    blend = np.clip(blend, 0, 1)[..., None].astype(np.float32)
    return first * (1 - blend) + second * blend


def _print_label(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """What is printed on a container: a ground colour with fields, ovals, writing, stripes and a bar code."""
    ground = _color(rng) if rng.random() < 0.75 else np.full(3, rng.uniform(200, 255), np.float32)
    art = np.empty((h, w, 3), np.uint8)  # OpenCV writes text on bytes only
    art[:] = ground
    for _ in range(rng.integers(0, 3)):  # bands around the container
        top = int(rng.integers(0, h))
        art[top : top + int(rng.integers(2, max(3, h // 3)))] = _color(rng)
    if rng.random() < 0.3:
        art[:, : int(rng.uniform(0.2, 0.8) * w)] = _color(rng)
    for _ in range(rng.integers(0, 5)):
        center = (int(rng.uniform(0, w)), int(rng.uniform(0, h)))
        axes = (int(rng.uniform(0.06, 0.5) * w) + 1, int(rng.uniform(0.03, 0.2) * h) + 1)
        thickness = -1 if rng.random() < 0.7 else 2
        cv2.ellipse(art, center, axes, float(rng.uniform(0, 180)), 0, 360, _color(rng).tolist(), thickness, cv2.LINE_AA)
    if rng.random() < 0.4:  # a swirl
        xs = np.linspace(0, w, 24)
        ys = h * rng.uniform(0.2, 0.9) + h * 0.1 * np.sin(xs / w * rng.uniform(3, 12) + rng.uniform(0, 6))
        curve = np.stack([xs, ys], 1).astype(np.int32)
        cv2.polylines(art, [curve], False, _color(rng).tolist(), int(rng.integers(1, 8)), cv2.LINE_AA)
    for _ in range(rng.integers(0, 5)):
        where = (int(rng.uniform(-0.1, 0.6) * w), int(rng.uniform(0.1, 1) * h))
        word, size = str(rng.choice(_WORDS)), float(rng.uniform(0.25, 1.4))
        cv2.putText(art, word, where, int(rng.integers(0, 8)), size, _color(rng).tolist(), int(rng.integers(1, 4)))
    if rng.random() < 0.25:  # a bar code
        x, y = int(rng.uniform(0, 0.8) * w), int(rng.uniform(0.5, 0.85) * h)
        code = np.repeat(rng.choice([20, 245], (1, max(6, w // 4))), max(4, h // 9), 0)
        art[y : y + code.shape[0], x : x + code.shape[1]] = code[: h - y, : w - x, None]
    return art.astype(np.float32)


# Containers


def _container(rng: np.random.Generator) -> _Sprite:
    label = int(rng.integers(len(CLASS_NAMES)))
    draw: Callable[[np.random.Generator], _Sprite] = (_can, _carton, _milk_bottle, _water_bottle)[label]
    return draw(rng)


def _curve(rows: int, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Half-widths (rows,) through `knots` of (height 0 top..1 bottom, half-width), rounded at the corners."""
    at, value = zip(*knots, strict=True)
    line = np.interp(np.linspace(0, 1, rows), at, value).astype(np.float32)
    return cv2.GaussianBlur(line[:, None], (1, 9), 2.5, borderType=cv2.BORDER_REPLICATE)[:, 0]


def _revolve(
    rng: np.random.Generator,
    half_widths: np.ndarray,
    art: np.ndarray,
    lid: np.ndarray,
    label: int,
    glass: np.ndarray | None = None,
) -> _Sprite:
    """A body of revolution seen from slightly above.

    half_widths: (h,) pixels. art: (h, any, 3), what is wrapped around it. lid: colour of the top face.
    glass: (h,) opacity of each row, where the body is see-through.
    """
    h = len(half_widths)
    tilt = rng.uniform(0.0, 0.22)
    widest = float(half_widths.max())
    margin = int(np.ceil(tilt * widest)) + 2
    w = int(2 * widest) + 4
    rows = np.arange(h + 2 * margin, dtype=np.float32)[:, None] - margin
    columns = np.arange(w, dtype=np.float32)[None] - w / 2 + 0.5
    # A point of the surface that faces the camera appears lower by the depth of the ellipse it is on.
    u = columns / half_widths[np.clip(rows, 0, h - 1).astype(int)]
    depth = np.sqrt(np.clip(1 - u * u, 0, 1))
    height = rows - tilt * half_widths[np.clip(rows, 0, h - 1).astype(int)] * depth
    index = np.clip(height, 0, h - 1).astype(np.int32)
    u = columns / half_widths[index]
    edge = np.clip((1 - np.abs(u)) * half_widths[index] + 0.5, 0, 1)
    top = half_widths[0]
    on_lid = (columns / top) ** 2 + (rows / max(tilt * top, 0.5)) ** 2 <= 1
    shape = np.where(on_lid, 1, edge * ((height >= 0) & (height <= h - 1))).astype(np.float32)

    angle = np.arcsin(np.clip(u, -0.999, 0.999))
    turn = rng.uniform(0, 1)
    art_x = ((angle / (2 * np.pi) + turn) % 1 * (art.shape[1] - 1)).astype(np.int32)
    rgb = art[index, art_x]
    rgb = _shine(rng, rgb, angle)
    rgb[on_lid] = lid * rng.uniform(0.7, 1.1)
    if tilt * top > 2:
        ring = on_lid & ((columns / top) ** 2 + (rows / (tilt * top)) ** 2 > 0.72)
        rgb[ring] = rgb[ring] * rng.uniform(0.6, 1.3)
    opacity = shape.copy()
    if glass is not None:
        # Glass is clearest where it is looked through straight on.
        clear = glass[index] + (1 - glass[index]) * np.abs(u).clip(0, 1) ** 4 * 0.7
        opacity *= np.where(on_lid, 1, clear).astype(np.float32)
    return _Sprite(np.clip(rgb, 0, 255), opacity, shape, label)


def _shine(rng: np.random.Generator, rgb: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Light a round body whose surface turns by `angle` (h, w) from the camera: shade and highlights."""
    ambient, light = rng.uniform(0.35, 0.8), rng.uniform(-1.2, 1.2)
    shade = ambient + (1 - ambient) * np.clip(np.cos(angle - light), 0, 1)
    rgb = rgb * shade[..., None]
    for _ in range(rng.integers(0, 3)):
        streak = np.exp(-(((angle - rng.uniform(-1.3, 1.3)) / rng.uniform(0.04, 0.25)) ** 2))
        rgb = rgb + (255 - rgb) * (streak * rng.uniform(0.1, 0.8))[..., None]
    return rgb.astype(np.float32)


def _metal(rng: np.random.Generator) -> np.ndarray:
    return np.full(3, rng.uniform(120, 230), np.float32) * rng.uniform(0.95, 1.05, 3).astype(np.float32)


def _can(rng: np.random.Generator) -> _Sprite:
    h = int(_SPRITE_HEIGHT * rng.uniform(0.75, 1))
    half = h * rng.uniform(0.2, 0.31)
    neck = rng.uniform(0.78, 0.95)
    knots = [(0, half * neck), (0.03, half * neck), (0.1, half), (0.92, half), (1, half * rng.uniform(0.8, 0.95))]
    art = _print_label(rng, h, int(6 * half))
    metal = _metal(rng)
    art[: int(h * 0.04)] = metal
    art[int(h * rng.uniform(0.94, 0.99)) :] = metal * 0.8
    return _revolve(rng, _curve(h, knots), art, metal, CLASS_NAMES.index("can"))


def _milk_bottle(rng: np.random.Generator) -> _Sprite:
    h = _SPRITE_HEIGHT
    half, neck = h * rng.uniform(0.17, 0.27), h * rng.uniform(0.07, 0.11)
    cap, shoulder = rng.uniform(0.07, 0.12), rng.uniform(0.2, 0.42)
    waist = rng.uniform(0.82, 1.05)
    knots = [
        (0, neck * 1.1), (cap, neck * 1.12), (cap + 0.01, neck), (cap + 0.05, neck), (shoulder, half),
        (0.5 * (shoulder + 1), half * waist), (0.94, half), (1, half * 0.9),
    ]  # fmt: skip
    body = np.full(3, rng.uniform(215, 255), np.float32) * rng.uniform(0.93, 1, 3).astype(np.float32)
    art = np.empty((h, int(6 * half), 3), np.float32)
    art[:] = body if rng.random() < 0.75 else _color(rng)
    if rng.random() < 0.85:  # a sleeve, often over nearly all of the body
        first, last = int(h * rng.uniform(cap + 0.05, 0.55)), int(h * rng.uniform(0.75, 1))
        art[first:last] = _print_label(rng, last - first, art.shape[1])
    cap_color = _color(rng, (0.4, 1))
    art[: int(h * cap)] = cap_color
    return _revolve(rng, _curve(h, knots), art, cap_color, CLASS_NAMES.index("milk_bottle"))


def _water_bottle(rng: np.random.Generator) -> _Sprite:
    h = _SPRITE_HEIGHT
    half, neck = h * rng.uniform(0.12, 0.19), h * rng.uniform(0.045, 0.07)
    cap, shoulder = rng.uniform(0.06, 0.1), rng.uniform(0.22, 0.45)
    knots = [
        (0, neck * 1.15), (cap, neck * 1.15), (cap + 0.01, neck), (cap + 0.04, neck * 1.1), (shoulder, half),
        (0.95, half), (1, half * 0.85),
    ]  # fmt: skip
    profile = _curve(h, knots)
    if rng.random() < 0.6:  # ribs
        body = np.linspace(0, 1, h) > shoulder
        profile = profile + body * half * 0.04 * np.sin(np.arange(h) / h * rng.uniform(40, 120)).astype(np.float32)
    art = np.empty((h, int(6 * half), 3), np.float32)
    art[:] = np.array([200, 215, 225], np.float32) * rng.uniform(0.3, 1.1)
    art *= (1 + 0.25 * _noise(rng, h, art.shape[1], 0.8))[..., None]
    glass = np.full(h, rng.uniform(0.08, 0.5), np.float32)
    if rng.random() < 0.85:
        first, last = int(h * rng.uniform(shoulder, 0.6)), int(h * rng.uniform(0.65, 0.95))
        if last > first + 4:
            art[first:last] = _print_label(rng, last - first, art.shape[1])
            glass[first:last] = rng.uniform(0.85, 1)
    cap_color = _color(rng) if rng.random() < 0.5 else np.full(3, rng.uniform(180, 255), np.float32)
    art[: int(h * cap)] = cap_color
    glass[: int(h * cap)] = 1
    return _revolve(rng, profile, art, cap_color, CLASS_NAMES.index("water_bottle"), glass)


def _carton(rng: np.random.Generator) -> _Sprite:
    """A box with a gable or a flat top, its front and one side in view."""
    h = _SPRITE_HEIGHT
    front_w = h * rng.uniform(0.28, 0.5)
    side_w = front_w * (rng.uniform(0.15, 0.9) if rng.random() < 0.6 else rng.uniform(0, 0.1))
    gable = h * rng.uniform(0.12, 0.26) if rng.random() < 0.75 else 0.0
    ridge = h * rng.uniform(0.03, 0.09) if gable else 0.0
    lift = side_w * rng.uniform(0.0, 0.3)  # by how much the far edge of the side stands higher
    taper = front_w * rng.uniform(-0.02, 0.06)
    w = int(front_w + side_w) + 8
    x0, x1, x2 = 3.0, 3.0 + front_w, 3.0 + front_w + side_w
    y0, y1 = ridge + gable + 2, float(h - 2)
    roof = rng.uniform(0.0, 0.25) * front_w if gable else 0.0
    front = [(x0, y0), (x1, y0), (x1 - taper, y1), (x0 + taper, y1)]
    side = [(x1, y0), (x2, y0 - lift), (x2 - taper, y1 - lift), (x1 - taper, y1)]
    slope = [(x0, y0 - gable), (x1 + side_w * 0.4, y0 - gable - lift / 2), (x1, y0), (x0, y0)]
    if not gable:  # the top face, seen from above
        back = rng.uniform(0.0, 0.18) * h
        slope = [(x0 + side_w * 0.5, y0 - back), (x2, y0 - lift - back * 0.3), (x1, y0), (x0, y0)]
    else:
        slope[0] = (x0 + roof * 0.3, y0 - gable)
    end = [(x1 + side_w * 0.4, y0 - gable - lift / 2), (x2, y0 - lift), (x1, y0), (x1, y0)]
    top = [(slope[0][0], slope[0][1] - ridge), (slope[1][0], slope[1][1] - ridge), slope[1], slope[0]]

    rgb = np.zeros((h, w, 3), np.float32)
    shape = np.zeros((h, w), np.float32)
    white = np.full(3, rng.uniform(200, 255), np.float32)
    art = _print_label(rng, 160, 96)
    faces = [(front, art, rng.uniform(0.75, 1.1))]
    if side_w > 1:
        side_art = _print_label(rng, 160, 96) if rng.random() < 0.4 else art[:, ::-1]
        faces.append((side, side_art, rng.uniform(0.4, 1.0)))
    roof_art = art[:60] if rng.random() < 0.5 else np.broadcast_to(white, (60, 96, 3))
    faces.append((slope, roof_art, rng.uniform(0.7, 1.2)))
    if gable:
        faces.append((end, np.broadcast_to(white, (60, 96, 3)), rng.uniform(0.4, 0.9)))
        faces.append((top, np.broadcast_to(white, (20, 96, 3)), rng.uniform(0.8, 1.1)))
    for quad, picture, light in faces:
        ph, pw = picture.shape[:2]
        corners = np.array([(0, 0), (pw, 0), (pw, ph), (0, ph)], np.float32)
        target = np.array(quad, np.float32)
        cover = np.zeros((h, w), np.float32)
        cv2.fillPoly(cover, [np.round(target * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        if len({tuple(p) for p in quad}) == 4:
            matrix = cv2.getPerspectiveTransform(corners, target)
            drawn = cv2.warpPerspective(np.ascontiguousarray(picture), matrix, (w, h), borderMode=cv2.BORDER_REPLICATE)
        else:
            drawn = np.broadcast_to(picture[0, 0], (h, w, 3))
        rgb += (drawn * light - rgb) * cover[..., None]
        shape = np.maximum(shape, cover)
    if rng.random() < 0.7:  # a screw cap on the roof
        cap_x, cap_y = (x0 + x1) / 2, y0 - gable * rng.uniform(0.2, 0.7)
        radius = front_w * rng.uniform(0.12, 0.22)
        color = white if rng.random() < 0.5 else _color(rng, (0.4, 1))
        rim = (color * 0.8).tolist()
        body = (int(cap_x), int(cap_y + radius * 0.35))
        axes = (int(radius) + 1, int(radius * 0.75) + 1)
        for center, tint in ((body, rim), ((int(cap_x), int(cap_y)), color.tolist())):
            cv2.ellipse(rgb, center, axes, 0, 0, 360, tint, -1, cv2.LINE_AA)
            cv2.ellipse(shape, center, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        rgb, shape = rgb[:, ::-1].copy(), shape[:, ::-1].copy()
    glow = 1 + 0.12 * _noise(rng, h, w, 0.4)[..., None]
    return _Sprite(np.clip(rgb * glow, 0, 255), shape, shape, CLASS_NAMES.index("carton"))


# Clutter


def _clutter(rng: np.random.Generator, cutouts: Sequence[np.ndarray]) -> _Sprite:
    if len(cutouts) and rng.random() < 0.65:
        picture = cutouts[int(rng.integers(len(cutouts)))].astype(np.float32)
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        shape = np.ascontiguousarray(picture[..., 3]) / 255
        return _Sprite(_puff(rng, picture[..., :3], shape), shape, shape, CLUTTER)
    h, w = (int(v) for v in rng.integers(60, 160, 2))
    shape = np.zeros((h, w), np.float32)
    kind = rng.integers(4)
    if kind == 0:  # a rounded lump
        angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        waves = [rng.uniform(-0.12, 0.12) * np.cos(k * angles + rng.uniform(0, 6)) for k in range(1, 6)]
        radii = 0.7 + np.sum(waves, axis=0)
        outline = np.stack([np.cos(angles) * w, np.sin(angles) * h], 1) * radii[:, None] * 0.45 + (w / 2, h / 2)
    elif kind == 1:  # a box-like polygon
        corners = np.array([(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])
        outline = (corners + rng.uniform(-0.1, 0.1, (4, 2))) * (w, h)
    elif kind == 2:  # a ball or a plate
        angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        outline = np.stack([np.cos(angles) * w, np.sin(angles) * h], 1) * 0.48 + (w / 2, h / 2)
    else:  # anything with corners
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 10)))
        radii = rng.uniform(0.4, 0.95, len(angles))
        outline = np.stack([np.cos(angles) * w, np.sin(angles) * h], 1) * radii[:, None] * 0.5 + (w / 2, h / 2)
    cv2.fillPoly(shape, [np.round(outline * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
    art = _print_label(rng, h, w) if rng.random() < 0.4 else _texture(rng, h, w)
    return _Sprite(_puff(rng, art, shape), shape, shape, CLUTTER)


def _puff(rng: np.random.Generator, rgb: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Shade a flat cut-out as if it bulged towards the camera."""
    bulge = np.sqrt(cv2.distanceTransform((shape > 0.5).astype(np.uint8), cv2.DIST_L2, 3))
    slope_x, slope_y = cv2.Sobel(bulge, cv2.CV_32F, 1, 0), cv2.Sobel(bulge, cv2.CV_32F, 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    light = cv2.GaussianBlur(np.cos(angle) * slope_x + np.sin(angle) * slope_y, (0, 0), 3)
    light = 1 + rng.uniform(0, 0.35) * np.clip(light, -2, 2) + 0.1 * _noise(rng, shape.shape[0], shape.shape[1], 0.5)
    return np.clip(rgb * light[..., None], 0, 255).astype(np.float32)


# The scene


def _backdrop(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, float]:
    """A wall with a table or shelves: picture (h, w, 3) float32 and the row where the table begins."""
    canvas = _texture(rng, h, w)
    table_y = h * rng.uniform(0.3, 0.7)
    if rng.random() < 0.75:
        table = _texture(rng, h, w) * rng.uniform(0.15, 1.0)
        tilt = rng.normal(0, 0.02)
        below = np.arange(h)[:, None] > table_y + tilt * (np.arange(w)[None] - w / 2)
        seam = np.exp(-(((np.arange(h) - table_y) / rng.uniform(2, 12)) ** 2)) * rng.uniform(0, 0.7)
        canvas = np.where(below[..., None], table, canvas) * (1 - seam[:, None, None])
    if rng.random() < 0.2:  # the shelves of a fridge
        for y in rng.uniform(0, h, rng.integers(1, 4)):
            thick = int(rng.integers(2, max(3, h // 25)))
            canvas[int(y) : int(y) + thick] = rng.uniform(120, 255)
    for _ in range(rng.integers(0, 4) if rng.random() < 0.4 else 0):  # patches of something else
        x, y = int(rng.uniform(-0.1, 0.9) * w), int(rng.uniform(-0.1, 0.9) * h)
        pw, ph = int(rng.uniform(0.1, 0.5) * w), int(rng.uniform(0.1, 0.5) * h)
        patch = canvas[max(y, 0) : y + ph, max(x, 0) : x + pw]
        patch[:] = _texture(rng, max(8, ph), max(8, pw))[: patch.shape[0], : patch.shape[1]]
    return np.ascontiguousarray(canvas, np.float32), table_y


def _place(rng: np.random.Generator, sprite: _Sprite, h: int, w: int, table_y: float) -> tuple[_Sprite, float]:
    """Turn, scale and move a sprite into a scene; returns it at (h, w) and the row of its lowest pixel."""
    container = sprite.label != CLUTTER
    if container:
        lying = rng.random() < 0.25
        turn = rng.normal(0, 5) if not lying else rng.choice([-90, 90]) + rng.normal(0, 20)
        length = max(h, w) * rng.uniform(0.18, 0.62)
    else:
        turn = rng.normal(0, 25)
        length = max(h, w) * rng.uniform(0.08, 0.45)
    sh, sw = sprite.shape.shape
    scale = length / max(sh, sw)
    rgb, opacity, shape = sprite.rgb, sprite.opacity, sprite.shape
    if scale < 0.7:  # shrink by areas first: a warp alone would alias
        half = (max(2, int(sw * scale * 1.2)), max(2, int(sh * scale * 1.2)))
        rgb, opacity, shape = (cv2.resize(a, half, interpolation=cv2.INTER_AREA) for a in (rgb, opacity, shape))
        scale = length / max(shape.shape)
        sh, sw = shape.shape
    radians = np.deg2rad(turn)
    half_height = scale * (abs(np.cos(radians)) * sh + abs(np.sin(radians)) * sw) / 2
    if container and rng.random() < 0.8:  # stands on the table
        bottom = rng.uniform(table_y + 0.05 * h, min(h * 1.03, table_y + 0.5 * h))
    else:
        bottom = rng.uniform(0.15, 1.1) * h
    center = np.array([rng.uniform(0.08, 0.92) * w, bottom - half_height])
    stretch = rng.uniform(0.92, 1.08)
    cos, sin = np.cos(radians) * scale, np.sin(radians) * scale
    linear = np.array([[cos * stretch, -sin + rng.normal(0, 0.02) * scale], [sin * stretch, cos]])
    offset = center - linear @ (sw / 2, sh / 2)
    matrix = np.concatenate([linear, offset[:, None]], 1)
    # Outside the sprite its border colour goes on, so that its edge does not darken as it is blended in.
    rgb = cv2.warpAffine(rgb, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    opacity, shape = (cv2.warpAffine(a, matrix, (w, h), flags=cv2.INTER_LINEAR) for a in (opacity, shape))
    return _Sprite(rgb, opacity, shape, sprite.label), bottom


def _shadow(rng: np.random.Generator, shape: np.ndarray, light_x: float) -> np.ndarray:
    """How much (h, w) 0..1 a thing darkens what is behind it."""
    small = cv2.resize(shape, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    reach = rng.uniform(1, 8)
    move = np.array([[1, 0, light_x * reach * 1.5], [0, 1, rng.uniform(0, reach * 0.5)]])
    small = cv2.warpAffine(small, move, small.shape[::-1])
    small = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.7, 4))
    return cv2.resize(small, shape.shape[::-1]) * rng.uniform(0, 0.6)


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """What a phone makes of it: uneven light, white balance, contrast, blur, noise, JPEG. Returns uint8 RGB."""
    h, w = canvas.shape[:2]
    light = 1 + rng.uniform(0, 0.25) * _noise(rng, h, w, 0.3)
    balance = rng.normal(1, 0.06, 3)
    picture = np.clip(canvas * light[..., None] * balance, 0, 255) / 255
    picture = picture ** rng.uniform(0.75, 1.4) * rng.uniform(0.8, 1.1)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.1))
    picture = picture + rng.normal(0, rng.uniform(0.002, 0.03), (h, w, 1))
    image = np.clip(picture * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))]
        image = np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR))
    return image


def scene_stream(seed: int, longest: int, shows: int = 5, keep: int = 400) -> Iterator[Scene]:
    """Scenes without end, `longest` pixels long, for training.

    Drawing costs more than looking, so each scene is shown about `shows` times, mirrored and recoloured at
    random each time, out of the last `keep` drawn.
    """
    rng = np.random.default_rng(seed)
    cutouts = system_cutouts()
    scenes: list[Scene] = []
    while True:
        if len(scenes) < 20 or rng.random() < 1 / shows:
            short = int(rng.integers(longest * 5 // 8, longest + 1))
            size_hw = (longest, short) if rng.random() < 0.65 else (short, longest)
            scene = render_scene(rng, size_hw, cutouts, containers=(1, 4), clutter=(0, 4))
            if not len(scene.labels):
                continue
            if len(scenes) == keep:
                scenes.pop(int(rng.integers(keep)))
            scenes.append(scene)
        else:
            scene = scenes[int(rng.integers(len(scenes)))]
        yield _altered(rng, scene)


def _altered(rng: np.random.Generator, scene: Scene) -> Scene:
    image, masks, boxes = scene.image, scene.masks, scene.boxes_xyxy
    if rng.random() < 0.5:
        width = image.shape[1]
        image, masks = image[:, ::-1], masks[:, :, ::-1]
        boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.5:
        image = np.clip(image * rng.uniform(0.6, 1.3) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return Scene(image, masks, boxes, scene.labels)


@lru_cache(maxsize=1)
def system_cutouts(limit: int = 1200) -> tuple[np.ndarray, ...]:
    """Cut-outs of Debian's `openclipart-png` and `fonts-noto-color-emoji`, whichever is installed; else none."""
    emoji = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    found = load_cutouts([Path("/usr/share/openclipart/png")], limit)
    return (*found, *(emoji_cutouts(emoji, 400) if emoji.exists() else ()))
