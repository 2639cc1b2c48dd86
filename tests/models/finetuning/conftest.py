"""A tiny YOLOF and drawn scenes, on which a training takes seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.data import Annotation, Dataset, LabelledImage
from models.demo.scenes import render_scene
from models.demo.things import CLASS_NAMES, CLUTTER
from models.detector import mmcv_ops
from tests.models.tiny_config import tiny_config

with warnings.catch_warnings():  # torch deprecates what MMEngine imports
    warnings.simplefilter("ignore")
    mmcv_ops.install()
    import mmdet.models  # noqa: F401


def make_scenes(folder: Path, count: int, size: int = 64) -> Dataset:
    """Scenes as PNG files, with boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for index in range(count):
        scene = render_scene(np.random.default_rng(index), (size, size), containers=(1, 3), clutter=(0, 1))
        path = folder / f"{index}.png"
        Image.fromarray(scene.image).save(path)
        annotations = [
            Annotation(CLASS_NAMES[label], tuple(map(float, box)))
            for box, label in zip(scene.boxes_xyxy, scene.labels, strict=True)
            if label != CLUTTER
        ]
        images.append(LabelledImage(path, (size, size), tuple(annotations)))
    return Dataset(tuple(CLASS_NAMES), tuple(images))


def make_tiny(folder: Path) -> Path:
    """A folder with a YOLOF a hundredth the size of the demo's, with random weights."""
    from models.finetuning.start import Start

    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(("scales=[1, 2, 4, 8, 16]", "scales=[0.5, 1, 2, 4, 8]"))
    (folder / "tiny.py").write_text(config)
    start = Start.read(folder / "tiny.py", "nothing")
    torch.manual_seed(0)
    model = start.model_for(CLASS_NAMES, start.config_for(CLASS_NAMES), lambda line: None, seed=0)
    save_file(model.state_dict(), folder / "tiny.safetensors")
    return folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_scenes(tmp_path_factory.mktemp("scenes"), 12)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def said() -> Callable[[str], None]:
    """Takes lines, and has them in `said.lines`."""

    def say(line: str) -> None:
        say.lines.append(line)

    say.lines = []
    return say
