"""Which images a run finds in folders."""

from __future__ import annotations

from app.folders.sources import find_images


def test_what_systems_leave_in_folders_is_passed_over_and_said(tmp_path):
    for name in ("a.jpg", "._a.jpg", "__MACOSX/a.jpg", ".ipynb_checkpoints/a.jpg", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images([tmp_path], recursive=True, leave_out=tmp_path / "out")
    assert [image.name for image in found.images] == ["a.jpg"]
    assert found.notes == (".DS_Store, ._a.jpg, .ipynb_checkpoints, __MACOSX: left out, as they are hidden",)
