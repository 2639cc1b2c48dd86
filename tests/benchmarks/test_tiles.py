"""The scenes of the tiles' benchmark have what they promise, and hits are counted once."""

from __future__ import annotations

from app.prediction import PredictedObject
from benchmarks.tiles import LENGTHS, draw, hits
from models.demo.things import CLASS_NAMES


def thing(label: str, corners: list[float]) -> PredictedObject:
    x1, y1, x2, y2 = corners
    return PredictedObject(label, 0.5, (x1, y1, x2, y2))


def test_things_are_small_and_apart_and_each_is_hit_once() -> None:
    scene = draw(0, 5, (300, 400))
    assert scene.image.shape == (300, 400, 3) and scene.masks.sum(0).max() == 1 and len(scene.labels) == 5
    sides = (scene.boxes_xyxy[:, 2:] - scene.boxes_xyxy[:, :2]).max(axis=1)
    assert (sides > 0.7 * LENGTHS[0]).all() and (sides < 1.3 * LENGTHS[1]).all()
    assert (scene.image == draw(0, 5, (300, 400)).image).all()
    corners = scene.boxes_xyxy.tolist()
    names = [CLASS_NAMES[label] for label in scene.labels]
    found = [thing(name, box) for name, box in zip(names, corners, strict=True)]
    assert hits([*found, found[0]], scene) == 5
    other = thing(CLASS_NAMES[scene.labels[0] - 1], corners[0])
    moved = thing(names[1], [side + 40 for side in corners[1]])
    assert hits([other, moved], scene) == 0
