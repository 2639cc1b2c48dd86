"""Folders that are there whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.atomic_files import UNFINISHED, into_folder, is_empty

REPOSITORY = Path(__file__).parents[2]
DIES = """
import os, signal, sys
from pathlib import Path
from models.atomic_files import into_folder
with into_folder(Path(sys.argv[1])) as unfinished:
    (unfinished / "images").mkdir()
    (unfinished / "images" / "a.jpg").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [(), ("images/b.jpg", "notes.txt")])
def test_what_is_written_joins_what_is_there(tmp_path, there):
    for name in there:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).touch()
    with into_folder(tmp_path / "out") as unfinished:
        (unfinished / "images").mkdir()
        (unfinished / "images" / "a.jpg").touch()
        (unfinished / "x.json").touch()
        assert "x.json" not in names(tmp_path / "out")
    assert names(tmp_path / "out") == sorted({"images", "images/a.jpg", "x.json", *there})


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk"), into_folder(tmp_path / "out") as unfinished:
        (unfinished / "x.json").touch()
        raise OSError("disk full")
    assert names(tmp_path) == []


def test_nothing_is_replaced(tmp_path):
    (tmp_path / "x.json").write_text("mine")
    with pytest.raises(FileExistsError, match="x.json is there already"), into_folder(tmp_path) as unfinished:
        (unfinished / "x.json").write_text("other")
    assert (tmp_path / "x.json").read_text() == "mine" and names(tmp_path) == ["x.json"]


def test_a_process_that_is_killed_stops_nobody(tmp_path):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", DIES, str(out)], cwd=REPOSITORY)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == [UNFINISHED] and is_empty(out)
    with into_folder(out) as unfinished:
        assert os.listdir(unfinished) == []
        (unfinished / "x.json").touch()
    assert names(out) == ["x.json"]
