"""References of annotation files, and the photos that they lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.dataset import Place
from models.data.parsing.sources import Sources, address
from models.data.parsing.values import BadValueError


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("there", "reference", "found"),
    [
        ("images/a.jpg", "images/a.jpg", "images/a.jpg"),
        ("images/a.jpg", "images\\a.jpg", "images/a.jpg"),
        ("images/a.jpg", "C:\\Users\\me\\set\\images\\a.jpg", "images/a.jpg"),
        ("images/a.jpg", "/content/set/images/a.jpg", "images/a.jpg"),
        ("images/a b#1.jpg", "images/a%20b%231.jpg", "images/a b#1.jpg"),
        ("a%20b.jpg", "a%20b.jpg", "a%20b.jpg"),
        ("images/train/a.jpg", "a.jpg", "images/train/a.jpg"),
        ("val2017/a.jpg", "a.jpg", "val2017/a.jpg"),
        ("images/A.JPG", "a.jpg", "images/A.JPG"),
        ("images/a.png", "a.jpg", "images/a.png"),
        ("images/a.jfif", "a", "images/a.jfif"),
        ("images/a.v1.jpg", "a.v1", "images/a.v1.jpg"),
    ],
)
def test_a_photo_is_found(tmp_path, there, reference, found):
    files(tmp_path, there)
    assert Sources().find(reference, "file_name", [tmp_path]) == tmp_path / found


def test_a_photo_of_another_subset_is_not_taken(tmp_path):
    files(tmp_path, "val/a.jpg")
    sources = Sources()
    assert not Path(sources.find("train/a.jpg", "file_name", [tmp_path])).exists()
    assert not Path(sources.find("a.jpg", "file_name", [tmp_path], hint="instances_train")).exists()
    [note] = sources.notes(Place(tmp_path))
    assert "2 images were not found: train/a.jpg was looked for in" in note.reason and "--images-root" in note.reason
    assert sources.find("a.jpg", "file_name", [tmp_path], hint="instances_val2017") == tmp_path / "val/a.jpg"


def test_what_may_be_two_photos_is_asked(tmp_path):
    files(tmp_path, "one/a.jpg", "two/a.jpg", "masks/b.png", "photos/b.jpg")
    with pytest.raises(BadValueError, match="found one/a.jpg and two/a.jpg; --images-root DIR says"):
        Sources().find("a.jpg", "file_name", [tmp_path])
    assert Sources().find("two/a.jpg", "file_name", [tmp_path]) == tmp_path / "two/a.jpg"
    assert Sources(tmp_path / "one").find("a.jpg", "file_name", [tmp_path]) == tmp_path / "one/a.jpg"
    assert Sources().find("b.jpg", "file_name", [tmp_path]) == tmp_path / "photos/b.jpg"


def test_what_was_found_elsewhere_is_said_once(tmp_path):
    files(tmp_path, "photos/a.jpg", "photos/b.jpg")
    sources = Sources()
    for name in ("a.jpg", "b.jpg"):
        sources.find(name, "file_name", [tmp_path])
    [note] = sources.notes(Place(tmp_path))
    assert note.reason.startswith("2 images were found by name in another place") and not note.fatal


@pytest.mark.parametrize("reference", ["\ud800.jpg", "a\0.jpg"])
def test_what_no_file_is_called(tmp_path, reference):
    with pytest.raises(BadValueError, match="file_name: expected the name of a file"):
        Sources().find(reference, "file_name", [tmp_path])


@pytest.mark.parametrize("name", ["a b.jpg", "a#1?.jpg", "a%20b.jpg", "ü.jpg"])
@pytest.mark.parametrize("prefix", ["https://host/x/", "azureml://workspaces/w/paths"])
def test_addresses_lead_back(tmp_path, name, prefix):
    files(tmp_path, name)
    sources = Sources(prefixes={prefix.rstrip("/"): str(tmp_path)})
    assert sources.find(address(prefix, name), "image_url", [tmp_path]) == tmp_path / name
