"""Where weights lie: in a checkout, in a copy that pip installed, and where the user wants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.weights import Places, find_places, load_manifest, places

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in site-packages: no `weights/` beside the package."""
    monkeypatch.setattr(places, "CHECKOUT", tmp_path / "site-packages" / "weights")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_checkout_keeps_all_in_its_own_folder() -> None:
    assert find_places() == Places(REPOSITORY / "weights", REPOSITORY / "weights")


def test_an_installed_copy_pulls_into_the_users_folder(installed: None, tmp_path: Path) -> None:
    assert find_places() == Places(places.PACKAGE, tmp_path / "data" / "box2mask" / "weights")
    assert not (tmp_path / "data").exists()  # to ask is not to make


@pytest.mark.parametrize("copy", ["checkout", "installed"])
def test_the_users_choice_is_for_what_is_pulled_alone(
    copy: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if copy == "installed":
        request.getfixturevalue("installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_places(Path("~/mine")) == Places(find_places().shipped, tmp_path / "mine")


def test_a_model_lies_with_those_that_come_along_or_with_those_that_were_pulled() -> None:
    known = load_manifest()
    both = Places(Path("shipped"), Path("pulled"))
    assert both.folder_of(known["demo-sam"]) == Path("shipped/demo/sam")
    assert both.folder_of(known["sam-huge"]) == Path("pulled/sam-huge")


def test_the_package_has_what_comes_along() -> None:
    """Of an installed copy; in a checkout it is a link."""
    assert load_manifest(Places(places.PACKAGE, Path("nowhere"))) == load_manifest()
    for name in ("demo/sam/model.safetensors", "demo/yolof/model.safetensors", "demo/yolof/yolof_r18_demo.py"):
        assert (places.PACKAGE / name).is_file()
