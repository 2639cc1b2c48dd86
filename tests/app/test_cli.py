"""`box2mask serve`: it starts, says what it serves, stops when asked, and says in a sentence why it cannot start."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
Serve = Callable[..., AbstractContextManager[Any]]


def test_help_names_every_command(run_command: Run) -> None:
    ended = run_command("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    for command in ("serve", "weights"):
        assert f"\n    {command} " in ended.stdout
    assert "examples:" in ended.stdout


def test_the_help_of_serve_points_at_the_settings(run_command: Run) -> None:
    ended = run_command("serve", "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "README.md" in ended.stdout and "BOX2MASK_PORT=8080" in ended.stdout


@pytest.mark.parametrize("arguments", [(), ("sevre",), ("serve", "--port", "1")])
def test_a_command_line_that_means_nothing_is_refused(run_command: Run, arguments: tuple[str, ...]) -> None:
    ended = run_command(*arguments)
    assert ended.returncode == 2
    assert "usage: box2mask" in ended.stderr and "Traceback" not in ended.stderr


def test_serve_says_what_it_serves_and_stops_when_asked(serve: Serve, model_folders: Any) -> None:
    with serve(BOX2MASK_DETECTOR="none", BOX2MASK_SEGMENTER=str(model_folders.segmenter)) as service:
        announced, detector, segmenter = service.log().splitlines()[:3]
        assert announced == (
            f"box2mask is loading its models; it will listen on {service.url} (POST /score, docs at /docs)"
        )
        assert (detector, segmenter) == ("  detector: none", f"  segmenter: segmenter ({model_folders.segmenter})")
        assert "weights pull" not in service.log()  # full-size weights are not for who brings their own
        assert httpx.get(f"{service.url}/version").json()["detector"] is None
    assert service.process.returncode == 0  # after SIGTERM
    assert "Traceback" not in service.log()


def test_serve_with_demo_weights_says_how_to_get_the_full_ones(serve: Serve) -> None:
    with serve(BOX2MASK_DETECTOR="none", BOX2MASK_SEGMENTER="demo-sam") as service:
        log = service.log()
        assert "  segmenter: demo-sam (" in log and "demo weights" in log
        assert ".venv/bin/box2mask weights pull yolof sam-huge" in log
        assert httpx.get(f"{service.url}/version").json()["demo_weights"] is True
    assert service.process.returncode == 0


# Starts that fail


def failure(run_command: Run, **settings: str) -> str:
    """The sentence with which `serve` ends, which is the last line, on standard error, with status 3."""
    ended = run_command("serve", **({"BOX2MASK_HOST": "127.0.0.1", "BOX2MASK_PORT": "0"} | settings))
    assert ended.returncode == 3, ended.stderr
    assert "Traceback" not in ended.stderr and ended.stdout == ""
    return ended.stderr.splitlines()[-1]


def test_a_bad_setting_is_named(run_command: Run) -> None:
    said = failure(run_command, BOX2MASK_PORT="http", BOX2MASK_DTYPE="int8")
    assert said.startswith("box2mask: BOX2MASK_PORT: Input should be a valid integer")
    assert said.endswith("BOX2MASK_DTYPE: Input should be 'float32', 'bfloat16' or 'float16', got 'int8'")


def test_a_folder_that_is_not_there_is_named(run_command: Run, tmp_path: Path) -> None:
    said = failure(run_command, BOX2MASK_DETECTOR=f"{tmp_path}/nothing")
    assert said.startswith(f"box2mask: BOX2MASK_DETECTOR={tmp_path}/nothing: there is no such folder, and no weights")


def test_a_port_in_use_is_told(run_command: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = failure(run_command, BOX2MASK_PORT=str(port))
    assert said == (
        f"box2mask: cannot listen on 127.0.0.1 port {port}: Address already in use; BOX2MASK_PORT takes another port"
    )


def test_corrupt_weights_are_told(run_command: Run, model_folders: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sam"
    shutil.copytree(model_folders.segmenter, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    said = failure(run_command, BOX2MASK_DETECTOR="none", BOX2MASK_SEGMENTER=str(folder))
    assert said.startswith(f"box2mask: {weights} is not a safetensors file, or is truncated: ")


def test_a_mounted_folder_that_is_damaged_is_told(run_command: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    said = failure(run_command, AZUREML_MODEL_DIR=str(tmp_path))
    assert said.startswith(f"box2mask: {tmp_path}/config.json is not JSON: ")
