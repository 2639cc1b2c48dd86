from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from models.demo import scenes
from models.demo.cutouts import emoji_cutouts, load_cutouts
from models.demo.scenes import Scene, render_scene, scene_stream, tight_boxes
from models.demo.things import CLASS_NAMES, CLUTTER


def scene(seed: int, size_hw: tuple[int, int] = (160, 160), **contents: object) -> Scene:
    return render_scene(np.random.default_rng(seed), size_hw, **contents)  # type: ignore[arg-type]


def disc(color: tuple[int, int, int], size: int = 80) -> np.ndarray:
    """(size, size, 4) uint8 RGBA: a disc that fills a square."""
    picture = np.zeros((size, size, 4), np.uint8)
    picture[..., :3] = color
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    picture[..., 3] = np.where(rows**2 + columns**2 <= (size / 2) ** 2, 255, 0)
    return picture


@pytest.fixture
def plain_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes as they are drawn, before a phone's light, noise and blur."""
    monkeypatch.setattr(scenes, "_photograph", lambda rng, canvas: np.clip(canvas, 0, 255).astype(np.uint8))


# --- one scene ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_hw", [(160, 160), (97, 211), (240, 64), (33, 300)])
@pytest.mark.parametrize("cutouts", [(), (disc((255, 0, 255)),)], ids=["no cutouts", "cutouts"])
def test_a_scene_tells_the_truth_about_itself(size_hw: tuple[int, int], cutouts: tuple[np.ndarray, ...]) -> None:
    for seed in range(6):
        made = scene(seed, size_hw, cutouts=cutouts, containers=(1, 4), clutter=(0, 3))
        count = len(made.labels)
        assert made.image.shape == (*size_hw, 3) and made.image.dtype == np.uint8
        assert made.image.std() > 1  # something is drawn
        assert made.masks.shape == (count, *size_hw) and made.masks.dtype == bool
        assert made.boxes_xyxy.shape == (count, 4) and made.boxes_xyxy.dtype == np.float32
        assert made.labels.dtype == np.int64 and set(made.labels) <= {*range(len(CLASS_NAMES)), CLUTTER}
        assert count <= 7 and (made.labels != CLUTTER).sum() <= 4
        assert made.masks.sum(0).max(initial=0) <= 1, "masks overlap"
        for mask, box in zip(made.masks, made.boxes_xyxy, strict=True):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_a_seed_makes_the_same_scene_again_and_another_makes_another() -> None:
    first, again, other = scene(7), scene(7), scene(8)
    for name in ("image", "masks", "boxes_xyxy", "labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.image != other.image).mean() > 0.5


def test_an_empty_scene_has_a_picture_and_nothing_in_it() -> None:
    made = scene(0, (90, 120), containers=(0, 0), clutter=(0, 0))
    assert made.image.shape == (90, 120, 3)
    assert made.masks.shape == (0, 90, 120) and made.masks.dtype == bool
    assert made.boxes_xyxy.shape == (0, 4) and made.labels.shape == (0,)


def test_all_classes_are_drawn_and_in_the_numbers_asked_for() -> None:
    seen: Counter[int] = Counter()
    for seed in range(25):
        made = scene(seed, containers=(2, 2), clutter=(0, 0))
        assert len(made.labels) <= 2
        seen.update(made.labels.tolist())
    assert set(seen) == set(range(len(CLASS_NAMES)))
    assert sum(seen.values()) > 40  # few are lost behind others
    clutter = [scene(seed, containers=(0, 0), clutter=(3, 3)).labels for seed in range(5)]
    assert {label for labels in clutter for label in labels} == {CLUTTER}
    assert max(map(len, clutter)) == 3


@pytest.mark.parametrize("label", [*range(len(CLASS_NAMES)), CLUTTER])
def test_a_mask_covers_what_was_drawn_and_nothing_else(plain_picture: None, label: int) -> None:
    """Against the same seed's scene without its thing: around the thing there can only be shadow."""
    looked_at = 0
    for seed in range(60):
        counts = {"containers": (0, 0), "clutter": (1, 1)} if label == CLUTTER else {"clutter": (0, 0)}
        made = scene(seed, **({"containers": (1, 1)} | counts))
        if made.labels.tolist() != [label]:
            continue
        empty = scene(seed, containers=(0, 0), clutter=(0, 0)).image
        solid = made.masks[0].astype(np.uint8)
        inside, around = cv2.erode(solid, np.ones((3, 3))) > 0, cv2.dilate(solid, np.ones((5, 5))) == 0
        lighter = (made.image[around] > empty[around]).any(-1)
        # The tip of a pointed thing covers less than half of its pixels, and so is not in the mask.
        assert lighter.sum() <= 5, f"seed {seed}: something is drawn outside the mask"
        changed = (made.image != empty).any(-1)
        assert changed[inside].mean() > 0.9, f"seed {seed}: the mask covers what is not drawn"
        looked_at += 1
    assert looked_at >= 5


def test_cutouts_are_drawn_with_their_own_colours_and_outlines(plain_picture: None) -> None:
    magenta = (disc((255, 0, 255)),)
    round_ones = 0
    for seed in range(20):
        made = scene(seed, cutouts=magenta, containers=(0, 0), clutter=(1, 1))
        if not len(made.labels):
            continue
        core = cv2.erode(made.masks[0].astype(np.uint8), np.ones((3, 3))) > 0
        red, green, blue = made.image[core].mean(0)
        if green < 5 and red > 100 and blue > 100:
            round_ones += 1
            x1, y1, x2, y2 = made.boxes_xyxy[0]
            if x1 > 0 and y1 > 0 and x2 < 160 and y2 < 160:  # not cut by the picture's edge
                assert made.masks[0].sum() / ((x2 - x1) * (y2 - y1)) == pytest.approx(np.pi / 4, abs=0.06)
    assert 5 <= round_ones < 20  # other clutter is drawn as well


def test_tight_boxes_of_single_pixels_and_none() -> None:
    masks = np.zeros((2, 5, 7), bool)
    masks[0, 4, 6] = masks[1, 0, 0] = masks[1, 2, 3] = True
    np.testing.assert_array_equal(tight_boxes(masks), [[6, 4, 7, 5], [0, 0, 4, 3]])
    assert tight_boxes(masks[:0]).shape == (0, 4)


# --- cut-outs ----------------------------------------------------------------------------------------


def test_cutouts_are_read_from_png_and_what_cuts_out_nothing_is_left_out(tmp_path: Path) -> None:
    def save(name: str, picture: np.ndarray) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)

    red = np.pad(disc((250, 10, 20), 50), ((30, 10), (0, 40), (0, 0)))  # with an empty margin
    opaque, thin = disc((0, 255, 0)), np.zeros((300, 300, 4), np.uint8)
    opaque[..., 3] = 255
    thin[100:102] = 255
    dots = np.zeros((90, 90, 4), np.uint8)
    dots[::10, ::10] = 255
    save("a/red.png", red)
    save("a/deeper/blue.png", disc((0, 0, 250), 400))
    save("b/opaque.png", opaque)
    save("b/thin.png", thin)
    save("b/dots.png", dots)
    save("b/transparent.png", np.zeros((60, 60, 4), np.uint8))
    save("b/no_alpha.png", disc((0, 255, 0))[..., :3].copy())
    save("b/grey.png", disc((0, 255, 0))[..., 3].copy())
    (tmp_path / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "b" / "notes.txt").write_text("not a picture")

    folders = [tmp_path / "a", tmp_path / "b", tmp_path / "absent"]
    cutouts = load_cutouts(folders, limit=10, longest=64)
    assert [cutout.shape for cutout in cutouts] == [(64, 64, 4)] * 2  # trimmed, shrunk or enlarged
    assert all(cutout.dtype == np.uint8 for cutout in cutouts)
    colors = {tuple(cutout[32, 32].tolist()) for cutout in cutouts}
    assert colors == {(250, 10, 20, 255), (0, 0, 250, 255)}  # RGBA
    for cutout in cutouts:
        assert (cutout[..., 3] > 127).mean() == pytest.approx(np.pi / 4, abs=0.05)
    assert len(load_cutouts(folders, limit=1)) == 1
    assert load_cutouts([], limit=5) == []


def test_emoji_of_a_font_are_cut_out() -> None:
    font = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
    if not font.exists():
        pytest.skip("fonts-noto-color-emoji is not installed")
    cutouts = emoji_cutouts(font, 6, longest=48)
    assert len(cutouts) == 6
    for cutout in cutouts:
        assert max(cutout.shape[:2]) == 48 and cutout.shape[2] == 4 and cutout.dtype == np.uint8
        assert 0.1 < (cutout[..., 3] > 127).mean() <= 1


# --- the stream --------------------------------------------------------------------------------------


@pytest.fixture
def no_cutouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "system_cutouts", lambda: ())


def drawn_from_masks(draws: list[tuple[int, int]]) -> Callable[..., Scene]:
    """A stand-in for render_scene whose pictures show nothing but the masks: light on dark grey."""

    def render(rng: np.random.Generator, size_hw: tuple[int, int], *_: object, **__: object) -> Scene:
        draws.append(size_hw)
        if len(draws) % 4 == 0:  # now and then a scene comes out empty
            return Scene(
                np.zeros((*size_hw, 3), np.uint8), np.zeros((0, *size_hw), bool), np.zeros((0, 4)), np.array([])
            )
        masks = np.zeros((2, *size_hw), bool)
        x, y = rng.integers(0, 10, 2)
        masks[0, y : y + 7, x : x + 4] = masks[1, 15:17, x + 5 : x + 12] = True
        image = np.where(masks.any(0), 150, 80).astype(np.uint8)[..., None].repeat(3, 2)
        return Scene(image, masks, tight_boxes(masks), np.array([2, CLUTTER]))

    return render


def test_the_stream_mirrors_turns_and_recolours_picture_masks_and_boxes_together(
    no_cutouts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[tuple[int, int]] = []
    monkeypatch.setattr(scenes, "render_scene", drawn_from_masks(draws))
    shown = list(islice(scene_stream(0, longest=40, shows=5, keep=30), 400))
    places, tones, lying = set(), set(), []
    for one in shown:
        light = one.image.astype(int)
        assert max(one.image.shape[:2]) == 40 and min(one.image.shape[:2]) >= 25
        assert one.image.dtype == np.uint8 and one.boxes_xyxy.dtype == np.float32
        np.testing.assert_array_equal(light > (light.max() + light.min()) / 2, one.masks.any(0)[..., None].repeat(3, 2))
        np.testing.assert_array_equal(one.boxes_xyxy, tight_boxes(one.masks))
        assert one.labels.tolist() == [2, CLUTTER]
        (x1, y1, x2, y2), width = one.boxes_xyxy[0], one.image.shape[1]
        places.add(bool(x1 + x2 < width))
        lying.append(bool(x2 - x1 > y2 - y1))
        tones.add(int(light.max()))
    assert places == {True, False}  # some are mirrored
    assert 0.4 < np.mean(lying) < 0.6  # and half of them turned: they are drawn standing
    assert len(tones) > 20  # and many recoloured
    # A quarter of the draws is empty and shown never, the others about five times each.
    assert 400 / 5 < len(draws) * 0.75 < 400 / 5 * 1.7
    assert {size_hw.index(40) for size_hw in draws if size_hw[0] != size_hw[1]} == {0, 1}  # upright and lying


def test_the_stream_permutes_colours_at_random(no_cutouts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def red(rng: np.random.Generator, size_hw: tuple[int, int], *_: object, **__: object) -> Scene:
        masks = np.ones((1, *size_hw), bool)
        image = np.zeros((*size_hw, 3), np.uint8)
        image[..., 0] = 200
        return Scene(image, masks, tight_boxes(masks), np.array([0]))

    monkeypatch.setattr(scenes, "render_scene", red)
    brightest = {int(one.image.sum((0, 1)).argmax()) for one in islice(scene_stream(0, longest=16), 60)}
    assert brightest == {0, 1, 2}


def test_the_stream_of_real_scenes_is_the_same_for_the_same_seed(no_cutouts: None) -> None:
    first, again = (list(islice(scene_stream(4, longest=96), 6)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.boxes_xyxy, tight_boxes(other.masks))
