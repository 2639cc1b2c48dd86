"""The training's own folder: nobody else's files are ever removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.finetuning.checkpoint_files import TrainingError
from models.finetuning.record import FILE, Record, check_apart


@pytest.mark.parametrize("content", [None, "{}", '{"images": [], "annotations": []}', "[]", "no JSON"])
def test_a_folder_of_others_is_left_alone(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "training"
    folder.mkdir()
    (folder / "photo.jpg").write_text("mine")
    if content is not None:
        (folder / FILE).write_text(content)
    for resume in (True, False):
        with pytest.raises(TrainingError, match="training is there already and was not made by a training"):
            Record.open(folder, {}, 4, resume)
    assert (folder / "photo.jpg").read_text() == "mine"


def test_an_empty_folder_and_a_trainings_own_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    folder.mkdir()
    (folder / (FILE + ".part")).touch()
    Record.open(folder, {"a": 1}, 4, True)
    (folder / "log").touch()
    assert Record.open(folder, {"a": 2}, 2, True).batch_size == 2
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_what_lies_in_the_folder_is_not_trained_on(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "training"
    folder.mkdir(parents=True)
    (tmp_path / "link.jpg").symlink_to(folder / "a.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / "b.jpg")
    check_apart(folder, [tmp_path / "out" / "training.jpg", tmp_path / "b.jpg"])
    for inside in (folder / "images" / "a.jpg", folder, tmp_path / "link.jpg", folder / "link.jpg"):
        with pytest.raises(TrainingError, match="where the training keeps its own files"):
            check_apart(folder, [tmp_path / "b.jpg", inside])
