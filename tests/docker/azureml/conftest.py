"""What the tests of AzureML's parts share: models, the service to compare with, and AzureML's own packages."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.demo.scenes import render_scene
from tests.app.conftest import ModelFolders, Service, serving, write_models

REPOSITORY = Path(__file__).parents[3]
AZUREML = REPOSITORY / "docker" / "azureml"


def picture(seed: int, form: str = "PNG") -> bytes:
    """The file of a drawn scene of 160 x 120."""
    file = BytesIO()
    Image.fromarray(render_scene(np.random.default_rng(seed), (120, 160), containers=(2, 2)).image).save(file, form)
    return file.getvalue()


def wire(seed: int) -> str:
    """A picture as the catalog's clients send it, with newlines."""
    return base64.encodebytes(picture(seed)).decode("ascii")


@pytest.fixture(scope="session")
def azureml_python() -> str:
    """The Python with AzureML's packages, whose pins are not ours."""
    python = REPOSITORY / ".venv-azureml" / "bin" / "python"
    if not python.is_file():
        pytest.skip("needs .venv-azureml, which `make test` makes")
    return str(python)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def models_set(model_folders: ModelFolders) -> dict[str, str]:
    """The environment that says which models to serve."""
    return {
        "BOX2MASK_DEVICE": "cpu",
        "BOX2MASK_DETECTOR": str(model_folders.detector),
        "BOX2MASK_SEGMENTER": str(model_folders.segmenter),
    }


@pytest.fixture(scope="session")
def service(models_set: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service") / "service.log", models_set) as started:
        yield started
