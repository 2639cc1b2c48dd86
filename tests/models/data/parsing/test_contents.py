"""Looking into folders."""

from __future__ import annotations

from models.data.parsing.contents import walk


def test_links_to_folders_are_followed_but_no_folder_is_gone_through_twice(tmp_path):
    folder = tmp_path / "set"
    for name in ("b10.xml", "b9.xml", "in/c.xml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.xml").touch()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "in" / "loop").symlink_to(folder)
    (folder / "in again").symlink_to(folder / "in")
    found = [path.relative_to(folder).as_posix() for path in walk(folder)]
    assert found == ["b9.xml", "b10.xml", "in/c.xml", "linked/d.xml"]
