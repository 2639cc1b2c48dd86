"""Folders of tiny detectors, each written once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.models.detector.huggingface import tiny_detectors


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of this kind, which must not be changed."""
    root = tmp_path_factory.mktemp("huggingface")
    return cache(lambda kind: tiny_detectors.write(root / kind, kind))


@pytest.fixture
def copy_of(folder_of: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The same as a copy, to be changed."""
    return lambda kind: Path(shutil.copytree(folder_of(kind), tmp_path / kind))
