"""Which build of torch `make` takes on which machine."""

from __future__ import annotations

import importlib.util
import platform
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "torch_build.py"
VERSION = "2.13.0"


@pytest.fixture(scope="module")
def torch_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("box2mask_torch_build", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def link(version: str = VERSION, python: str = "", machine: str = "") -> str:
    """A link as on PyTorch's index."""
    python = python or f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheel = f"torch-{version}%2Bcpu-{python}-{python}-manylinux_2_28_{machine or platform.machine()}.whl"
    return f'<a href="/whl/cpu/{wheel}#sha256=0">{wheel.replace("%2B", "+")}</a><br/>\n'


@pytest.fixture
def index() -> Iterator[tuple[str, dict[str, str]]]:
    """An index: its address, and its pages by their paths, to be filled."""
    pages: dict[str, str] = {}

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write((found or "").encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/whl/cpu", pages
    server.shutdown()
    thread.join()
    server.server_close()


def never() -> str:
    raise AssertionError("the index is asked where its answer does not matter")


@pytest.mark.parametrize(
    ("installed", "gpu", "lacks", "system", "build"),
    [
        (None, False, "", "linux", "cpu"),
        (None, False, "no answer", "linux", "cuda"),
        (None, True, None, "linux", "cuda"),
        (None, False, None, "darwin", "cuda"),
        ("2.13.0+cpu", True, None, "linux", "kept"),
        ("2.13.0", False, None, "linux", "kept"),
        ("2.12.1+cpu", False, "", "linux", "cpu"),
        ("2.13.0.post1", False, "", "linux", "cpu"),
    ],
)
def test_what_auto_takes(
    torch_build: ModuleType, installed: str | None, gpu: bool, lacks: str | None, system: str, build: str
) -> None:
    found, reason = torch_build.choose(VERSION, installed, gpu, never if lacks is None else lambda: lacks, system)
    assert found == build
    assert reason and (not lacks or lacks in reason)


def test_the_index_has_the_build_for_this_python_and_processor(
    torch_build: ModuleType, index: tuple[str, dict[str, str]]
) -> None:
    address, pages = index
    others = link("2.12.0") + link(python="cp39") + link(machine="s390x") + link("2.13.0rc1")
    others += link().replace("%2B", "+").replace("+cpu", "") + link().replace("manylinux", "macosx")
    pages["/whl/cpu/torch/"] = others
    assert f"none of {VERSION}" in torch_build.cpu_build_lacks(address, VERSION)
    pages["/whl/cpu/torch/"] = others + link()
    assert torch_build.cpu_build_lacks(address, VERSION) == ""
    assert torch_build.cpu_build_lacks(address + "/", VERSION) == ""


def test_an_index_that_fails_is_none(torch_build: ModuleType, index: tuple[str, dict[str, str]]) -> None:
    address, _ = index
    assert "404" in torch_build.cpu_build_lacks(address, VERSION)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        assert "refused" in torch_build.cpu_build_lacks(f"http://127.0.0.1:{taken.getsockname()[1]}", VERSION)
    assert "no-such-index" in torch_build.cpu_build_lacks("no-such-index", VERSION)


def test_an_index_that_is_silent_is_not_waited_for(torch_build: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        reason = torch_build.cpu_build_lacks(f"http://127.0.0.1:{silent.getsockname()[1]}", VERSION, within_s=0.1)
        assert "no answer" in reason or "timed out" in reason
        assert time.monotonic() - began < 30


def test_the_version_is_the_projects(torch_build: ModuleType) -> None:
    assert torch_build.wanted_version(SCRIPT.parents[1] / "pyproject.toml") == VERSION


@pytest.mark.parametrize(
    ("build", "installed", "commands"),
    [
        ("auto", None, [["install", "--index-url", "torch==2.13.0+cpu"]]),
        ("auto", "2.13.0", []),
        ("cpu", "2.13.0", [["install", "--index-url", "torch==2.13.0+cpu"]]),
        ("cpu", "2.13.0+cpu", []),
        ("cuda", "2.13.0+cpu", [["uninstall"]]),
        ("cuda", "2.13.0", []),
        ("cuda", None, []),
    ],
)
@pytest.mark.parametrize("status", [0, 1])
def test_what_is_done(
    torch_build: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    build: str,
    installed: str | None,
    commands: list[list[str]],
    status: int,
) -> None:
    """A build that was asked for by name has to come; another is better than none where it was not."""
    ran: list[list[str]] = []

    class Subprocess:
        @staticmethod
        def run(command: list[str]) -> object:
            ran.append(command)
            return type("Done", (), {"returncode": status})

    monkeypatch.setattr(torch_build, "subprocess", Subprocess)
    monkeypatch.setattr(torch_build, "installed_version", lambda: installed)
    monkeypatch.setattr(torch_build, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(torch_build, "cpu_build_lacks", lambda index, version: "")
    monkeypatch.setattr(torch_build.sys, "argv", ["torch_build.py", build, "--index", "https://mirror.test/cpu"])
    ended = torch_build.main()
    assert len(ran) == len(commands)
    for command, words in zip(ran, commands, strict=True):
        assert set(words) <= set(command)
    assert all(
        command[command.index("--index-url") + 1] == "https://mirror.test/cpu"
        for command in ran
        if "--index-url" in command
    )
    assert ended == (status if ran and build != "auto" else 0)
    if status and ran and build == "auto":
        assert "could not be fetched" in capsys.readouterr().out
