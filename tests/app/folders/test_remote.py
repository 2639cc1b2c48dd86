"""`box2mask run` on a store, and on a list of addresses: real servers of stores, and models that take no time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.cli import main
from app.folders import shards, storage
from app.folders.destination import Destination
from app.folders.journal import Journal
from app.folders.sources import SourceError, find_images
from app.folders.storage import RemotePath, StorageError, place
from benchmarks.sleeping_models import Sleeping
from tests.app.conftest import web_server
from tests.s3 import google_server, make_bucket, make_google_bucket, s3_server

REPOSITORY = Path(__file__).parents[3]
NAMES = ("_a.jpg", "b c.png", "sub/ü?#%41+.webp", "sub/d.jpg", "e.jpg", "f.jpg", "g.jpg", "h.jpg")
Run = Callable[..., int]


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as variables:
        yield variables


@pytest.fixture(scope="module")
def google() -> Iterator[dict[str, str]]:
    with google_server() as variables:
        yield variables


# For what stores do differently.
both = pytest.mark.parametrize("bucket", ["s3", "gs"], indirect=True)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> RemotePath:
    """An empty one; of S3 if the test does not ask for another store."""
    scheme = getattr(request, "param", "s3")
    server: dict[str, str] = request.getfixturevalue("google" if scheme == "gs" else "server")
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    storage._file_system.cache_clear()
    name = "of-" + re.sub("[^a-z]", "-", request.node.name.lower())[:50].strip("-")
    make_google_bucket(name) if scheme == "gs" else make_bucket(name)
    return RemotePath.parse(f"{scheme}://{name}")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`box2mask run` in this process; gives its exit status."""
    models = Sleeping(0, 0)

    def open_predictor(*args: Any, **kwargs: Any) -> Any:
        return nullcontext(models())

    monkeypatch.setattr("app.predictor.open_predictor", open_predictor)
    for name in os.environ:
        if name.startswith(("BOX2MASK_", "AZUREML_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BOX2MASK_DETECTOR", "demo-yolof")
    monkeypatch.setenv("BOX2MASK_SEGMENTER", "demo-sam")
    return lambda *arguments: main(["run", *map(str, arguments)])


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here") / "photos"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def bring(folder: Path, to: RemotePath) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            (to / path.relative_to(folder).as_posix()).upload(path)


def files(folder: RemotePath) -> dict[str, bytes]:
    found = {path.under(folder): path for path, is_folder in folder.entries(recursive=True) if not is_folder}
    return {name: path.read_bytes() for name, path in found.items() if name is not None}


def files_here(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is found


def test_a_store_is_listed_to_its_end_and_what_is_no_image_is_said(bucket: RemotePath) -> None:
    folder = bucket / "photos"
    for number in range(1030):  # a listing has 1000 to a page
        (folder / f"many/{number:04}.jpg").write_bytes(b"x")
    for name in ("_a.WEBP", "b c.png", "ü?#%41+.jpg", "notes.txt", ".hid/x.jpg", ".hid/y.jpg", "out/masks/a.jpg"):
        (folder / name).write_bytes(b"x")
    found = find_images([folder], recursive=True, leave_out=folder / "out")
    names = [image.name for image in found.images]
    assert names == sorted([*(f"many/{number:04}.jpg" for number in range(1030)), "_a.WEBP", "b c.png", "ü?#%41+.jpg"])
    assert found.notes == ("notes.txt: left out, as it has no image's suffix", ".hid: left out, as it is hidden")
    assert {image.path.stat().st_size for image in found.images if not isinstance(image.path, str)} == {1}

    flat = find_images([folder], recursive=False, leave_out=folder / "out")
    assert [image.name for image in flat.images] == ["_a.WEBP", "b c.png", "ü?#%41+.jpg"]
    assert flat.notes[-1] == "many: not gone into; --recursive does"
    one = find_images([folder / "many/0007.jpg", folder / "b c.png"], recursive=False, leave_out=bucket / "out")
    assert [image.name for image in one.images] == ["b c.png", "many/0007.jpg"] and str(one.root) == str(folder)


@both
def test_of_folders_only_those_are_passed_over_that_are_said(bucket: RemotePath) -> None:
    """Google's store has no folders to list, but for those with an object of their own."""
    folder = bucket / "photos"
    for name in ("b.png", "a.jpg", "many/0.jpg", "many/deep/1.jpg", "other/notes.txt", "dark/sub/1.jpg"):
        (folder / name).write_bytes(b"x")
    flat = find_images([folder], recursive=False, leave_out=folder / "out")
    assert [image.name for image in flat.images] == ["a.jpg", "b.png"]
    assert flat.notes[-1] == "dark, many, other: not gone into; --recursive does"
    with pytest.raises(SourceError, match="found none; --recursive looks into its 1 folder too"):
        find_images([folder / "dark"], recursive=False, leave_out=folder / "out")


def test_keys_that_are_no_paths_are_left_out(bucket: RemotePath, server: dict[str, str]) -> None:
    import httpx

    for key in ("photos/a.jpg", "photos//b.jpg", "photos/empty/"):
        httpx.put(
            f"{server['AWS_ENDPOINT_URL']}/{bucket.root.removeprefix('s3://')}/{key}",
            content=b"" if key.endswith("/") else b"x",
        )
    found = find_images([bucket / "photos"], recursive=True, leave_out=bucket / "out")
    assert [image.name for image in found.images] == ["a.jpg"]
    assert found.notes == (f"{bucket}/photos//b.jpg: left out, as an empty name, . or .. in a key cannot be followed",)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ("{bucket}/nothing", "nothing: there is no such file or folder"),
        ("s3://there-is-no-such-bucket/photos", "there is no such file or folder"),
        ("ftp://host/photos", "expected a path, or an address that begins with s3://"),
        ("abfss://container/photos", "expected the account too"),
        ("{bucket}/photos {here}", "expected images of one place, found several"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(
    run: Run, bucket: RemotePath, local: Path, capsys: pytest.CaptureFixture[str], images: str, reason: str
) -> None:
    (bucket / "photos/a.jpg").write_bytes(b"x")
    asked = [one.format(bucket=bucket, here=local) for one in images.split()]
    assert run(*asked, "--out", bucket / "out") == 1
    said = capsys.readouterr()
    assert reason in said.err and len(said.err.splitlines()) == 1


def test_a_store_that_does_not_answer_is_said_in_a_sentence(
    run: Run, bucket: RemotePath, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    storage._file_system.cache_clear()
    assert run(bucket / "photos", "--out", bucket / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"box2mask: {bucket}/photos: ") and "AWS Error" in line


def test_googles_store_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow alone would try for a quarter of an hour."""
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(storage, "_GOOGLE_RETRIES", timedelta(seconds=1))
    storage._file_system.cache_clear()
    try:
        with pytest.raises(OSError, match="^gs://bucket/photos: .*Could not connect to server$"):
            place("gs://bucket/photos").kind()  # type: ignore[union-attr]
    finally:
        storage._file_system.cache_clear()


def test_without_pyarrow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    storage._file_system.cache_clear()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StorageError, match=re.escape("needs pyarrow: pip install 'box2mask[remote]'")):
        place("s3://bucket/photos")


# What is written


@both
def test_results_in_a_store_are_those_of_a_folder_here(
    run: Run, bucket: RemotePath, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(local, bucket / "photos")
    (bucket / "photos/bad.jpg").write_bytes(b"text")
    assert run(local, "--out", tmp_path / "out", "--recursive", "--image-url", bucket / "photos") == 0
    assert run(bucket / "photos", "--out", bucket / "out", "--recursive") == 1
    said = capsys.readouterr()
    assert f"{bucket}/photos/bad.jpg: expected a JPEG" in said.err and f"{bucket}/out/failed.jsonl says why" in said.err
    here, away = files_here(tmp_path / "out"), files(bucket / "out")
    assert json.loads(away.pop("failed.jsonl"))["image"] == "bad.jpg"
    del here["journal.jsonl"], away["journal.jsonl"]
    assert away == here and "masks/sub/ü?#%41+.webp/002.png" in away
    assert f"{bucket}/photos/b c.png" in away["azureml.jsonl"].decode()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]  # nothing is left here

    (bucket / "photos/bad.jpg").unlink()
    assert run(bucket / "photos", "--out", bucket / "out", "--recursive") == 0
    assert "failed.jsonl" not in files(bucket / "out")
    assert "8 images, 8 of them from before" in capsys.readouterr().out
    assert run(bucket / "photos", "--out", bucket / "out", "--recursive", "--score-threshold", "0.7") == 1
    assert f"{bucket}/out: the results there were made in another way" in capsys.readouterr().err


def test_a_photo_that_has_changed_is_done_again_and_leaves_no_old_masks(
    run: Run, bucket: RemotePath, local: Path
) -> None:
    bring(local, bucket / "photos")
    arguments = (bucket / "photos", "--out", bucket / "out", "--formats", "coco,masks")
    assert run(*arguments) == 0
    (bucket / "out/masks/e.jpg/003.png").write_bytes(b"of an earlier result with more objects")
    (bucket / "photos/e.jpg").upload(local / "sub/d.jpg")
    before = files(bucket / "out")
    assert run(*arguments) == 0
    after = files(bucket / "out")
    assert set(before) - set(after) == {"masks/e.jpg/003.png"}
    assert {name for name in after if after[name] != before[name]} <= {
        "coco.json", "journal.jsonl", *(f"masks/e.jpg/00{number}.png" for number in range(3))
    }  # fmt: skip
    assert after["masks/e.jpg/000.png"] != before["masks/e.jpg/000.png"]


def test_another_format_gets_the_images_of_before(run: Run, bucket: RemotePath, local: Path) -> None:
    bring(local, bucket / "photos")
    assert run(bucket / "photos", "--out", bucket / "out", "--formats", "coco") == 0
    assert run(bucket / "photos", "--out", bucket / "out", "--formats", "overlay,masks") == 0
    found = files(bucket / "out")
    assert len([name for name in found if name.startswith("overlays/")]) == 6
    assert len([name for name in found if name.startswith("masks/")]) == 18
    assert len(found["journal.jsonl"].splitlines()) == 1 + 6 + 6
    assert run(bucket / "photos", "--out", bucket / "out", "--formats", "overlay,masks") == 0  # and that was noted
    assert files(bucket / "out")["journal.jsonl"] == found["journal.jsonl"]


@both
def test_a_restart_forgets_what_was_there_and_a_strangers_folder_is_left_alone(
    run: Run, bucket: RemotePath, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(local, bucket / "photos")
    assert run(bucket / "photos", "--out", bucket / "out") == 0
    assert run(bucket / "photos/e.jpg", "--out", bucket / "out", "--formats", "coco", "--restart") == 0
    assert set(files(bucket / "out")) == {"coco.json", "journal.jsonl"}
    (bucket / "other/masks/mine.png").write_bytes(b"precious")
    assert run(bucket / "photos", "--out", bucket / "other", "--restart") == 1
    assert "found masks and no journal.jsonl" in capsys.readouterr().err
    assert set(files(bucket / "other")) == {"masks/mine.png"}


# A process that is killed when the lines of three images are in the store, and others are not.
KILLED = """
import os, signal, sys
from contextlib import nullcontext
import app.predictor
from app.cli import main
from app.folders import shards
from benchmarks.sleeping_models import Sleeping

models = Sleeping(0, 0)()
app.predictor.open_predictor = lambda *args, **kwargs: nullcontext(models)
shards._MOST_LINES = 3
flush = shards.ShardWriter.flush

def killed(self):
    flush(self)
    os.kill(os.getpid(), signal.SIGKILL)

shards.ShardWriter.flush = killed
main(sys.argv[1:])
"""


@both
def test_a_run_that_was_killed_goes_on_from_the_shards(
    run: Run, bucket: RemotePath, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(local, bucket / "photos")
    arguments = [str(one) for one in (bucket / "photos", "--recursive", "--out")]
    command = [sys.executable, "-c", KILLED, "run", *arguments, f"{bucket}/out"]
    for times in (1, 2):
        assert subprocess.run(command, cwd=REPOSITORY, timeout=120).returncode == -signal.SIGKILL
        found = files(bucket / "out")
        assert len([name for name in found if name.startswith("journal/")]) == times
        assert len(found["journal.jsonl"].splitlines()) == 1 and "coco.json" not in found
    assert run(*arguments, bucket / "out") == 0
    assert "8 images, 6 of them from before" in capsys.readouterr().out
    assert run(*arguments, bucket / "whole") == 0
    found, whole = files(bucket / "out"), files(bucket / "whole")
    lines = found.pop("journal.jsonl").splitlines()[1:]
    del whole["journal.jsonl"]
    assert found == whole
    assert sorted(json.loads(line)["image"] for line in lines) == sorted(NAMES)


def test_lines_of_others_are_read_once_and_not_written_again(bucket: RemotePath) -> None:
    """Of a run on a cluster, whose shards other processes put into the store."""

    def line(name: str) -> bytes:
        return json.dumps({"image": name, "size_hw": [1, 1], "objects": [], "stamp": {}}).encode() + b"\n"

    def shards_there() -> list[int]:
        """Of each the number of lines."""
        found = files(bucket / "out").items()
        return sorted(len(content.splitlines()) for name, content in found if name.startswith("journal/"))

    def begun() -> tuple[Destination, Journal]:
        destination = Destination(bucket / "out")
        return destination, destination.open_journal({"settings": {}}, restart=False)

    destination, journal = begun()
    shards.put(bucket / "out", destination.number, [line("a.jpg"), line("b.jpg")], "a block")
    destination.close(journal)
    destination, journal = begun()
    assert journal.names() == ["a.jpg", "b.jpg"]
    journal.forget("b.jpg")
    shards.put(bucket / "out", destination.number, [line("c.jpg")], "another block")
    destination.gather(journal)  # the line of b.jpg that is still there is not newer than that
    assert journal.names() == ["a.jpg", "c.jpg"] and shards_there() == [1, 2]
    destination.close(journal)  # as after an error: what this process alone knows is not lost
    assert shards_there() == [1, 1, 2]

    destination, journal = begun()
    assert journal.names() == ["a.jpg", "c.jpg"]
    destination.finish(journal)
    assert set(files(bucket / "out")) == {"journal.jsonl"}
    destination.close(journal)


def test_a_training_set_of_copies_is_for_folders_here(
    run: Run, bucket: RemotePath, local: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(local, "--out", bucket / "out", "--formats", "yolo-seg") == 1
    assert "--formats yolo-seg: it holds copies of the images" in capsys.readouterr().err


# Addresses


def test_images_at_addresses_are_fetched(
    run: Run, local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server({"/shelf/a%20b.jpg": (local / "e.jpg").read_bytes(), "/shelf/c.jpg?v=1": b"text"}) as url:
        listed = tmp_path / "photos.txt"
        listed.write_text(f"# ours\n{url}/shelf/a%20b.jpg\n\n{url}/shelf/c.jpg?v=1\n{url}/shelf/gone.jpg\n")
        assert run(listed, "--out", tmp_path / "out", "--formats", "masks,jsonl") == 1
        said = capsys.readouterr().err
        assert f"{url}/shelf/c.jpg?v=1: expected a JPEG" in said and "gone.jpg: " in said and "404" in said
        assert json.loads((tmp_path / "out/azureml.jsonl").read_text())["image_url"] == f"{url}/shelf/a%20b.jpg"
        assert (tmp_path / "out/masks/a b.jpg/000.png").is_file()
        monkeypatch.setenv("BOX2MASK_IMAGE_URLS", "off")
        assert run(listed, "--out", tmp_path / "out") == 1
        assert "BOX2MASK_IMAGE_URLS=off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("photos/a.jpg", "photos.txt:1: expected an http(s) address of an image, found 'photos/a.jpg'"),
        ("http://host/a/../../b.jpg", "photos.txt:1: expected an address without .. in its path"),
        ("http://host/a.jpg?1\nhttp://host/a.jpg?2", "photos.txt:2: expected one address for each path"),
        ("http://host/a.jpg\nhttp://other/a.jpg", "expected addresses of one host, found several"),
        ("# none", "expected http(s) addresses of images, one to a line, found none"),
    ],
)
def test_a_list_that_cannot_be_used_says_where(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "photos.txt"
    path.write_text(text)
    with pytest.raises(SourceError, match=re.escape(reason)):
        find_images([path], recursive=False, leave_out=tmp_path / "out")
