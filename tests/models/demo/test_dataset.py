from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import main
from models.data import DataError, check, load
from models.demo.dataset import demo_scene, draw_dataset, held_out_numbers, scene_numbers
from models.demo.evaluation import scenes
from models.demo.scenes import render_scene
from models.demo.things import CLASS_NAMES, CLUTTER


def test_a_drawn_data_set_holds_the_scenes_and_their_containers(tmp_path: Path) -> None:
    done: list[int] = []
    drawn = draw_dataset(tmp_path / "out", 6, seed=3, longest=96, progress=done.append)
    read = load(tmp_path / "out")
    assert read == drawn and read.class_names == tuple(CLASS_NAMES)
    assert done == [1, 2, 3, 4, 5, 6]
    assert check(read) == []
    for number, image in enumerate(read.images):
        scene = demo_scene(scene_numbers(6, 3)[number], 96)
        known = scene.labels != CLUTTER
        assert isinstance(image.path, Path)
        with Image.open(image.path) as picture:
            assert np.abs(np.asarray(picture, np.int64) - scene.image).mean() < 8  # JPEG's loss
        assert [one.label for one in image.annotations] == [CLASS_NAMES[label] for label in scene.labels[known]]
        np.testing.assert_array_equal(image.boxes_xyxy, scene.boxes_xyxy[known])
        for one, mask in zip(image.annotations, scene.masks[known], strict=True):
            np.testing.assert_array_equal(one.mask(image.size_hw), mask)


def test_scenes_are_the_same_by_number_and_others_by_seed(tmp_path: Path) -> None:
    few, more, other = (
        draw_dataset(tmp_path / name, count, seed, longest=64)
        for name, count, seed in (("few", 2, 0), ("more", 3, 0), ("other", 2, 1))
    )
    assert [image.annotations for image in few.images] == [image.annotations for image in more.images[:2]]
    assert [image.annotations for image in few.images] != [image.annotations for image in other.images]


def test_no_seed_has_the_scenes_that_weights_are_measured_on() -> None:
    measured = scenes(1, 64)
    rng = np.random.default_rng(9_000_000)  # those that the published figures are of
    scene = render_scene(rng, (64, int(rng.integers(40, 65))), clutter=(0, 3))
    np.testing.assert_array_equal(measured.pixels(0), scene.image)
    assert len(measured.dataset.images[0].annotations) == len(scene.labels)
    most = 1_000_000
    blocks = [held_out_numbers(most), *(scene_numbers(most, seed) for seed in range(12))]
    ordered = sorted(blocks, key=lambda block: block.start)
    assert all(one.stop <= next.start for one, next in pairwise(ordered))
    for numbers in (lambda: scene_numbers(most + 1, 8), lambda: held_out_numbers(most + 1)):
        with pytest.raises(ValueError, match="expected 1000000 or fewer, found 1000001"):
            numbers()


def test_a_data_set_that_is_there_stays(tmp_path: Path) -> None:
    draw_dataset(tmp_path, 1, longest=64)
    files = [tmp_path / "annotations.json", tmp_path / "images" / "00000.jpg"]
    before = [file.read_bytes() for file in files]
    with pytest.raises(DataError, match="is there already"):
        draw_dataset(tmp_path, 1, seed=2, longest=64)
    assert [file.read_bytes() for file in files] == before


def test_the_command_draws_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "scenes")
    assert main(["data", "demo", out, "--scenes", "2", "--size", "64"]) == 0
    assert "2 images" in capsys.readouterr().out
    assert main(["data", "demo", out]) == 1
    assert "is there already: expected a new or empty folder" in capsys.readouterr().err
    assert main(["data", "demo", str(tmp_path / "none"), "--scenes", "0"]) == 1
    assert capsys.readouterr().err == "box2mask: --scenes: expected 1 or more, found 0\n"
    assert not (tmp_path / "none").exists()
