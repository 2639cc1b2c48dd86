"""The things in a scene, each drawn by itself: four kinds of drink containers, and clutter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.demo.textures import printed_label, random_color, random_texture, smooth_noise

CLASS_NAMES = ("can", "carton", "milk_bottle", "water_bottle")
CLUTTER = -1  # the label of things that belong to no class

_SPRITE_HEIGHT = 192  # pixels in which an upright container is drawn before it is placed


@dataclass(frozen=True)
class Sprite:
    """One thing before it is placed: rgb (h, w, 3) float32 0..255, opacity and shape (h, w) float32 0..1.

    Opacity is less than shape where the thing is see-through, as in a water bottle.
    """

    rgb: np.ndarray
    opacity: np.ndarray
    shape: np.ndarray
    label: int


# Containers


def container_sprite(rng: np.random.Generator) -> Sprite:
    label = int(rng.integers(len(CLASS_NAMES)))
    draw: Callable[[np.random.Generator], Sprite] = (_can, _carton, _milk_bottle, _water_bottle)[label]
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
) -> Sprite:
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
    return Sprite(np.clip(rgb, 0, 255), opacity, shape, label)


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


def _can(rng: np.random.Generator) -> Sprite:
    h = int(_SPRITE_HEIGHT * rng.uniform(0.75, 1))
    half = h * rng.uniform(0.2, 0.31)
    neck = rng.uniform(0.78, 0.95)
    knots = [(0, half * neck), (0.03, half * neck), (0.1, half), (0.92, half), (1, half * rng.uniform(0.8, 0.95))]
    art = printed_label(rng, h, int(6 * half))
    metal = _metal(rng)
    art[: int(h * 0.04)] = metal
    art[int(h * rng.uniform(0.94, 0.99)) :] = metal * 0.8
    return _revolve(rng, _curve(h, knots), art, metal, CLASS_NAMES.index("can"))


def _milk_bottle(rng: np.random.Generator) -> Sprite:
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
    art[:] = body if rng.random() < 0.75 else random_color(rng)
    if rng.random() < 0.85:  # a sleeve, often over nearly all of the body
        first, last = int(h * rng.uniform(cap + 0.05, 0.55)), int(h * rng.uniform(0.75, 1))
        art[first:last] = printed_label(rng, last - first, art.shape[1])
    cap_color = random_color(rng, (0.4, 1))
    art[: int(h * cap)] = cap_color
    return _revolve(rng, _curve(h, knots), art, cap_color, CLASS_NAMES.index("milk_bottle"))


def _water_bottle(rng: np.random.Generator) -> Sprite:
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
    art *= (1 + 0.25 * smooth_noise(rng, h, art.shape[1], 0.8))[..., None]
    glass = np.full(h, rng.uniform(0.08, 0.5), np.float32)
    if rng.random() < 0.85:
        first, last = int(h * rng.uniform(shoulder, 0.6)), int(h * rng.uniform(0.65, 0.95))
        if last > first + 4:
            art[first:last] = printed_label(rng, last - first, art.shape[1])
            glass[first:last] = rng.uniform(0.85, 1)
    cap_color = random_color(rng) if rng.random() < 0.5 else np.full(3, rng.uniform(180, 255), np.float32)
    art[: int(h * cap)] = cap_color
    glass[: int(h * cap)] = 1
    return _revolve(rng, profile, art, cap_color, CLASS_NAMES.index("water_bottle"), glass)


def _carton(rng: np.random.Generator) -> Sprite:
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
    art = printed_label(rng, 160, 96)
    faces = [(front, art, rng.uniform(0.75, 1.1))]
    if side_w > 1:
        side_art = printed_label(rng, 160, 96) if rng.random() < 0.4 else art[:, ::-1]
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
        color = white if rng.random() < 0.5 else random_color(rng, (0.4, 1))
        rim = (color * 0.8).tolist()
        body = (int(cap_x), int(cap_y + radius * 0.35))
        axes = (int(radius) + 1, int(radius * 0.75) + 1)
        for center, tint in ((body, rim), ((int(cap_x), int(cap_y)), color.tolist())):
            cv2.ellipse(rgb, center, axes, 0, 0, 360, tint, -1, cv2.LINE_AA)
            cv2.ellipse(shape, center, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        rgb, shape = rgb[:, ::-1].copy(), shape[:, ::-1].copy()
    glow = 1 + 0.12 * smooth_noise(rng, h, w, 0.4)[..., None]
    return Sprite(np.clip(rgb * glow, 0, 255), shape, shape, CLASS_NAMES.index("carton"))


# Clutter


def clutter_sprite(rng: np.random.Generator, cutouts: Sequence[np.ndarray]) -> Sprite:
    if len(cutouts) and rng.random() < 0.65:
        picture = cutouts[int(rng.integers(len(cutouts)))].astype(np.float32)
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        shape = np.ascontiguousarray(picture[..., 3]) / 255
        return Sprite(_puff(rng, picture[..., :3], shape), shape, shape, CLUTTER)
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
    art = printed_label(rng, h, w) if rng.random() < 0.4 else random_texture(rng, h, w)
    return Sprite(_puff(rng, art, shape), shape, shape, CLUTTER)


def _puff(rng: np.random.Generator, rgb: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Shade a flat cut-out as if it bulged towards the camera."""
    bulge = np.sqrt(cv2.distanceTransform((shape > 0.5).astype(np.uint8), cv2.DIST_L2, 3))
    slope_x, slope_y = cv2.Sobel(bulge, cv2.CV_32F, 1, 0), cv2.Sobel(bulge, cv2.CV_32F, 0, 1)
    angle = rng.uniform(0, 2 * np.pi)
    light = cv2.GaussianBlur(np.cos(angle) * slope_x + np.sin(angle) * slope_y, (0, 0), 3)
    light = (
        1 + rng.uniform(0, 0.35) * np.clip(light, -2, 2) + 0.1 * smooth_noise(rng, shape.shape[0], shape.shape[1], 0.5)
    )
    return np.clip(rgb * light[..., None], 0, 255).astype(np.float32)
