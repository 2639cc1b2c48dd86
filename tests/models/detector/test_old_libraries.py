"""Configs that MMEngine reads by what setuptools no longer has."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import mmdet
import numpy as np
import pytest

from models.detector import old_libraries
from models.detector.configs import read_config
from models.detector.mmdetection import MMDetector

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import


@pytest.fixture(autouse=True)
def without_pkg_resources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(ImportError):
        import pkg_resources  # noqa: F401


def test_read_base_takes_a_package_by_its_full_name_and_the_detector_is_the_same(
    make_folder: Callable[..., Path], picture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, named = make_folder("plain"), make_folder("named")
    package = named.parent / "packages" / "box2mask_test_shelf"
    (package / "configs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (named / "config.py").rename(package / "configs" / "drinks.py")
    # As MMDetection's own configs of this style: classes in the place of names.
    (named / "config.py").write_text(
        "from mmdet.models import YOLOF\n"
        "from mmengine.config import read_base\n\n"
        "with read_base():\n"
        "    from box2mask_test_shelf.configs.drinks import *\n\n"
        "model.update(dict(type=YOLOF))\n"
    )
    monkeypatch.setattr(sys, "path", [str(package.parent), *sys.path])
    expected, found = (
        MMDetector.load(folder).detect([picture(96, 128)], score_threshold=0.1, max_detections=10)[0]
        for folder in (plain, named)
    )
    assert len(expected.scores) == 10
    np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_base_may_be_of_a_package(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text('_base_ = "mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py"\n')
    assert read_config(config).model.bbox_head.type == "YOLOFHead"


def test_packages_go_by_either_name() -> None:
    assert old_libraries.get_installed_path("mmdet") == str(Path(mmdet.__file__).parent)
    assert old_libraries.get_installed_path("mmcv-lite") == old_libraries.get_installed_path("mmcv")
    assert old_libraries.is_installed("mmcv-lite") and old_libraries.is_installed("mmcv")


def test_what_is_not_there_is_not_found() -> None:
    assert not old_libraries.is_installed("box2mask-no-such-package")
    with pytest.raises(PackageNotFoundError):
        old_libraries.get_installed_path("box2mask-no-such-package")


def test_a_folder_without_code_has_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "box2mask_test_space").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert find_spec("box2mask_test_space") is not None
    assert not old_libraries.is_installed("box2mask_test_space")
    with pytest.raises((RuntimeError, PackageNotFoundError)):
        old_libraries.get_installed_path("box2mask_test_space")
