"""What holds for every test: in what numbers networks compute, and which files are tested first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Files that take longest, with those first that a worker is busy with for minutes: begun last, one of them would leave
# the other cores idle. `--no-loadscope-reorder` keeps xdist from putting the files with most tests first.
LONG = (
    "tests/app/folders/test_walkthrough.py",
    "tests/models/finetuning/test_training.py",
    "tests/examples/test_documents.py",
    "tests/benchmarks/test_gpu.py",
    "tests/examples/test_notebooks.py",
    "tests/app/playground/",
    "tests/reliability/",
    "tests/app/mlflow/",
    "tests/docker/azureml/",
    "tests/label_studio/",
    "tests/models/detector/",
    "tests/examples/",
    "tests/benchmarks/",
    "tests/app/",
)


def pytest_configure(config: pytest.Config) -> None:
    """Float32 wherever a test names nothing else: what `auto` takes depends on the processor.

    `BOX2MASK_DTYPE=bfloat16 pytest -m any_dtype` is for the tests that hold in other numbers, within wider bounds.
    """
    os.environ["BOX2MASK_DTYPE"] = os.environ.get("BOX2MASK_DTYPE") or "float32"
    if os.environ["BOX2MASK_DTYPE"] != "float32" and "any_dtype" not in config.option.markexpr:
        raise pytest.UsageError("with BOX2MASK_DTYPE set, only the tests for any numbers mean something: -m any_dtype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))


@pytest.fixture(scope="session")
def cvat_python() -> str:
    """The Python with the packages of CVAT's makers, whose pins are not ours."""
    python = Path(__file__).parents[1] / ".venv-cvat" / "bin" / "python"
    if not python.is_file():
        pytest.skip("needs .venv-cvat, which `make test` makes")
    return str(python)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Training has the processor take denormal numbers for zero; the tests after it must not find it so."""
    yield
    torch.set_flush_denormal(False)
