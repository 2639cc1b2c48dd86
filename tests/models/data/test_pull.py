"""Pulling a data set: from a loopback server that breaks off, from a file, and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import io
import socket
import stat
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from models.data import load
from models.data.pull import KNOWN, PullError, pull, unzip

NAME = "odFridgeObjects"
CLASSES = KNOWN[NAME].class_names
ANNOTATION = """\
<annotation><filename>{name}.jpg</filename><path>../images/{name}.jpg</path>
<size><width>8</width><height>6</height><depth>3</depth></size>
<object><name>{label}</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>
"""


def archive(count: int = 128, label: str = "", image: bytes | None = None) -> bytes:
    """A zip laid out as the published one, with pictures of a few bytes."""
    if image is None:
        picture = io.BytesIO()
        Image.new("RGB", (8, 6)).save(picture, "JPEG")
        image = picture.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for index in range(1, count + 1):
            opened.writestr(f"{NAME}/images/{index}.jpg", image)
            text = ANNOTATION.format(name=index, label=label or CLASSES[index % 4])
            opened.writestr(f"{NAME}/annotations/{index}.xml", text)
    return file.getvalue()


ZIP = archive()


class Server(http.server.ThreadingHTTPServer):
    """Answers with `content`, with ranges; breaks off after as many bytes as `cuts` says, in turn."""

    content = ZIP

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/{NAME}.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        total = len(self.server.content)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(total - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        body = self.server.content[start:]
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_broken_download_goes_on_and_the_result_is_the_data_set(server, tmp_path):
    server.cuts = [1000, 2000]
    said: list[str] = []
    folder = pull(NAME, tmp_path / "data", server.url, report=said.append, sleep=lambda seconds: None)
    assert server.ranges == [None, "bytes=1000-", "bytes=3000-"]
    dataset = load(folder)
    assert len(dataset) == 128 and dataset.class_names == CLASSES
    digest = hashlib.sha256(ZIP).hexdigest()
    assert said[-2:] == [
        f"{NAME}: sha256 {digest}",
        f"{NAME}: 128 images with 128 objects of 4 classes, {folder}",
    ]
    assert left(tmp_path / "data") == [NAME, f"{NAME}.zip.sha256"]
    assert (tmp_path / "data" / f"{NAME}.zip.sha256").read_text() == f"{digest}  {NAME}.zip\n"
    pull(NAME, tmp_path / "data", server.url, report=said.append)
    assert said[-1] == f"{NAME}: already there, {folder}" and len(server.ranges) == 3


def test_a_stopped_pull_goes_on_in_the_next(server, tmp_path):
    class Stopped(Exception):
        pass

    def stop(seconds: float) -> None:
        raise Stopped

    server.cuts = [1500]
    with pytest.raises(Stopped):
        pull(NAME, tmp_path, server.url, sleep=stop)
    pull(NAME, tmp_path, server.url)
    assert server.ranges == [None, "bytes=1500-"]


def test_the_start_of_another_address_is_not_gone_on_with(server, tmp_path):
    test_a_stopped_pull_goes_on_in_the_next(server, tmp_path / "a")
    server.ranges.clear()
    server.cuts = [1500]
    with pytest.raises(RuntimeError):
        pull(NAME, tmp_path / "b", server.url, sleep=_raise)
    pull(NAME, tmp_path / "b", f"{server.url}?mirror")
    assert server.ranges == [None, None]


def _raise(seconds: float) -> None:
    raise RuntimeError


def test_a_file_is_taken_in_place_of_the_network_and_stays(tmp_path):
    file = tmp_path / "mine.zip"
    file.write_bytes(ZIP)
    pull(NAME, tmp_path / "data", str(file))
    assert file.read_bytes() == ZIP and left(tmp_path / "data") == [NAME, f"{NAME}.zip.sha256"]


def test_without_a_network_there_is_one_sentence_that_says_what_to_do(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.zip"
        with pytest.raises(PullError, match=f"cannot download {url} .*--from FILE") as caught:
            pull(NAME, tmp_path, url, sleep=lambda seconds: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>sign in</html>", "is no sound zip file"),
        (ZIP[:-40], "is no sound zip file"),
        (archive(127), "expected 128 images of the classes can, carton, milk_bottle, water_bottle, found 127 of"),
        (archive(128, label="dog"), "found 128 of dog"),
        (archive(128, label=" "), "annotations/1.xml:3: name: expected text, found '' \\(and 127 more\\)"),
        (archive(128, image=b"no picture"), "images/1.jpg cannot be read"),
        (
            ZIP.replace(b"odFridgeObjects/", b"odFridgeObjectz/"),
            "expected a folder odFridgeObjects in it, found odFrid",
        ),
    ],
)
def test_what_is_not_the_data_set_never_gets_its_name(server, tmp_path, content, reason):
    server.content = content
    with pytest.raises(PullError, match=reason):
        pull(NAME, tmp_path, server.url)
    assert left(tmp_path) == []
    server.content = ZIP
    pull(NAME, tmp_path, server.url)


def test_a_folder_that_is_there_and_wrong_is_not_touched(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "mine.txt").write_text("keep")
    with pytest.raises(PullError, match="not what it should be"):
        pull(NAME, tmp_path)
    assert left(tmp_path / NAME) == ["mine.txt"]


def test_unknown_names_and_sources(tmp_path):
    with pytest.raises(PullError, match="the known ones are odFridgeObjects, odFridgeObjectsMask"):
        pull("odFridge", tmp_path)
    with pytest.raises(PullError, match="neither an http"):
        pull(NAME, tmp_path, "nowhere.zip")


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt"])
def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("fine.txt", "fine")
        opened.writestr(name, "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(PullError, match="expected paths inside the folder"):
        unzip(file, tmp_path / "in")
    assert left(tmp_path / "in") == [] and left(tmp_path) == ["in", "x.zip"]


def test_links_and_zip_bombs_are_refused(tmp_path, monkeypatch):
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as opened:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(PullError, match="a link or device"):
        unzip(file, tmp_path)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("zeros", bytes(1 << 20))
    monkeypatch.setattr("models.data.pull.LARGEST_BYTES", 1 << 19)
    with pytest.raises(PullError, match="expected at most"):
        unzip(file, tmp_path)
    assert left(tmp_path) == ["x.zip"]
