"""A real Label Studio, and a service with the demo models as its ML backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import main
from models.demo.scenes import render_scene
from tests.app.conftest import Service, serving
from tests.label_studio.real_server import ENVIRONMENT, LabelStudio, label_studio

LONGER = pytest.mark.skipif(
    os.environ.get("LABEL_STUDIO_TESTS") != "all", reason="takes longer: `make label-studio-test` runs it"
)
KEY = "0123456789abcdef" * 2
SIZE_HW = (240, 320)
Box2mask = Callable[..., int]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Drawn scenes with things in them; the last is stored on its side, and its EXIF says so."""
    folder = tmp_path_factory.mktemp("documents") / "photo set"
    folder.mkdir()
    found = []
    for seed in range(3):
        scene = Image.fromarray(render_scene(np.random.default_rng(seed), SIZE_HW, containers=(3, 4)).image)
        path = folder / f"scene {seed}.jpg"
        exif = scene.getexif()
        if seed == 2:
            exif[0x0112], scene = 6, scene.rotate(90, expand=True)
        scene.save(path, quality=95, exif=exif)
        found.append(path)
    return found


@pytest.fixture(scope="session")
def studio(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    if not (ENVIRONMENT / ".installed").is_file():
        pytest.skip("needs .venv-label-studio, which `make test` makes with Python 3.11 to 3.13")
    with label_studio(tmp_path_factory.mktemp("label_studio"), photos[0].parents[1]) as started:
        yield started


@pytest.fixture(scope="session")
def service(studio: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": "demo-yolof",
        "BOX2MASK_SEGMENTER": "demo-sam",
        "BOX2MASK_API_KEYS": KEY,
        "BOX2MASK_LABEL_STUDIO_URL": studio.url,
        "BOX2MASK_LABEL_STUDIO_TOKEN": studio.token,
    }
    with serving(tmp_path_factory.mktemp("service") / "service.log", settings) as started:
        yield started


@pytest.fixture
def box2mask(studio: LabelStudio, monkeypatch: pytest.MonkeyPatch) -> Box2mask:
    """The command, which knows Label Studio and has the demo models: its arguments to its exit status."""
    settings = {
        "DEVICE": "cpu",
        "DETECTOR": "demo-yolof",
        "SEGMENTER": "demo-sam",
        "LABEL_STUDIO_URL": studio.url,
        "LABEL_STUDIO_TOKEN": studio.token,
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"BOX2MASK_{name}", value)
    return lambda *arguments: main([str(one) for one in arguments])
