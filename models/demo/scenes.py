"""Renders demo scenes: photo-like pictures of four kinds of drink containers with exact boxes and masks.

Everything is drawn from a seed with numpy and OpenCV, so a scene can be made again from its number alone.
A folder of cut-outs (pictures with an alpha channel) may be given as clutter; none is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.demo.cutouts import system_cutouts
from models.demo.textures import random_texture, smooth_noise
from models.demo.things import CLUTTER, Sprite, clutter_sprite, container_sprite
from models.masks.boxes import box_around

# Things that lie are a quarter of all and are told apart worst: so often a scene is shown to a training on its side,
# which makes them half.
QUARTER_TURNS = 0.5


@dataclass(frozen=True)
class Scene:
    """A picture and the truth about it.

    image: (H, W, 3) uint8 RGB.
    masks: (N, H, W) bool, the visible pixels of each thing; they never overlap.
    boxes_xyxy: (N, 4) float32, absolute pixels, tight around the visible pixels.
    labels: (N,) int64, indices into `things.CLASS_NAMES`, or CLUTTER.
    """

    image: np.ndarray
    masks: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray


def render_scene(
    rng: np.random.Generator,
    size_hw: tuple[int, int] = (320, 320),
    cutouts: Sequence[np.ndarray] = (),
    containers: tuple[int, int] = (1, 4),
    clutter: tuple[int, int] = (0, 3),
) -> Scene:
    """Draw one scene.

    cutouts: RGBA uint8 pictures (see `models.demo.cutouts`) mixed into the clutter.
    containers, clutter: the least and the most things of each sort that are put into the scene; fewer
    are returned where one hides another.
    """

    def sprites(rng: np.random.Generator) -> list[Sprite]:
        drawn = [container_sprite(rng) for _ in range(rng.integers(containers[0], containers[1] + 1))]
        return drawn + [clutter_sprite(rng, cutouts) for _ in range(rng.integers(clutter[0], clutter[1] + 1))]

    return render_sprites(rng, size_hw, sprites)


def render_sprites(
    rng: np.random.Generator, size_hw: tuple[int, int], draw: Callable[[np.random.Generator], list[Sprite]]
) -> Scene:
    """Draw a scene of any sprites. draw: draws them, in their own size; a label that is not CLUTTER makes them larger.

    Fewer are returned where one hides another.
    """
    height, width = size_hw
    canvas, table_y = _backdrop(rng, height, width)
    sprites = draw(rng)
    rng.shuffle(sprites)
    placed = _arrange(rng, sprites, height, width, table_y)
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


def tight_boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) float32 x1, y1, x2, y2 around masks (N, H, W), none of which may be empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for i, mask in enumerate(masks):
        boxes[i] = box_around(mask)
    return boxes


# The scene


def _backdrop(rng: np.random.Generator, h: int, w: int) -> tuple[np.ndarray, float]:
    """A wall with a table or shelves: picture (h, w, 3) float32 and the row where the table begins."""
    canvas = random_texture(rng, h, w)
    table_y = h * rng.uniform(0.3, 0.7)
    if rng.random() < 0.75:
        table = random_texture(rng, h, w) * rng.uniform(0.15, 1.0)
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
        patch[:] = random_texture(rng, max(8, ph), max(8, pw))[: patch.shape[0], : patch.shape[1]]
    return np.ascontiguousarray(canvas, np.float32), table_y


def _arrange(
    rng: np.random.Generator, sprites: Sequence[Sprite], h: int, w: int, table_y: float
) -> list[tuple[Sprite, float]]:
    """Put sprites into a scene, mostly in view and beside each other; each at (h, w), with the row of its lowest point.

    Of a few places tried for each, the first is taken that hides little, or else the one that hides least.
    """
    taken: list[np.ndarray] = []  # silhouettes at a quarter of the size, which is enough to see what hides what
    placed = []
    for sprite in sprites:
        best = None
        for _ in range(8):
            pose = _pose(rng, sprite, h, w, table_y)
            silhouette = cv2.warpAffine(pose.sprite.shape, pose.matrix * 0.25, (w // 4 + 1, h // 4 + 1)) > 0.5
            area = max(1.0, float(pose.sprite.shape.sum()) * abs(np.linalg.det(pose.matrix[:, :2])) / 16)
            unseen = 1 - silhouette.sum() / area
            covers = [(silhouette & other).sum() / max(1, min(silhouette.sum(), other.sum())) for other in taken]
            hidden = max(covers, default=0.0)
            if best is None or max(unseen, hidden) < best[0]:
                best = (max(unseen, hidden), pose, silhouette)
            if best[0] < 0.3:
                break
        assert best is not None
        taken.append(best[2])
        placed.append((_warped(best[1], h, w), best[1].bottom))
    return placed


@dataclass(frozen=True)
class _Pose:
    """Where a sprite goes: matrix (2, 3) from its pixels to the scene's, and the row of its lowest point."""

    sprite: Sprite
    matrix: np.ndarray
    bottom: float


def _pose(rng: np.random.Generator, sprite: Sprite, h: int, w: int, table_y: float) -> _Pose:
    """A random turn, size and place for a sprite."""
    container = sprite.label != CLUTTER
    if container:
        lying = rng.random() < 0.25
        turn = rng.normal(0, 5) if not lying else rng.choice([-90, 90]) + rng.normal(0, 20)
        length = max(h, w) * rng.uniform(0.22, 0.62)
    else:
        turn = rng.normal(0, 25)
        length = max(h, w) * rng.uniform(0.1, 0.45)
    sh, sw = sprite.shape.shape
    scale = length / max(sh, sw)
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
    return _Pose(sprite, np.concatenate([linear, offset[:, None]], 1), bottom)


def _warped(pose: _Pose, h: int, w: int) -> Sprite:
    """The sprite of a pose at (h, w)."""
    rgb, opacity, shape, matrix = pose.sprite.rgb, pose.sprite.opacity, pose.sprite.shape, pose.matrix
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.7:  # shrink by areas first: a warp alone would alias
        sh, sw = shape.shape
        half = (max(2, int(sw * scale * 1.2)), max(2, int(sh * scale * 1.2)))
        rgb, opacity, shape = (cv2.resize(a, half, interpolation=cv2.INTER_AREA) for a in (rgb, opacity, shape))
        matrix = matrix @ np.diag([sw / half[0], sh / half[1], 1])
    # Outside the sprite its border colour goes on, so that its edge does not darken as it is blended in.
    rgb = cv2.warpAffine(rgb, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    opacity, shape = (cv2.warpAffine(a, matrix, (w, h), flags=cv2.INTER_LINEAR) for a in (opacity, shape))
    return Sprite(rgb, opacity, shape, pose.sprite.label)


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
    light = 1 + rng.uniform(0, 0.25) * smooth_noise(rng, h, w, 0.3)
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

    Drawing costs more than looking, so each scene is shown about `shows` times, mirrored, turned and recoloured at
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
    if rng.random() < QUARTER_TURNS:
        width = image.shape[1]
        image, masks = np.rot90(image), np.rot90(masks, axes=(1, 2))
        boxes = np.stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], 1)
    if rng.random() < 0.5:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.5:
        image = np.clip(image * rng.uniform(0.6, 1.3) + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    return Scene(image, masks, boxes, scene.labels)
