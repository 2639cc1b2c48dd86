"""`box2mask serve`: it starts, says what it serves, stops when asked, and says in a sentence why it cannot start."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli import main

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
Serve = Callable[..., AbstractContextManager[Any]]


def test_help_names_every_command(run_command: Run) -> None:
    ended = run_command("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    for command in ("serve", "weights"):
        assert f"\n    {command} " in ended.stdout
    assert "examples:" in ended.stdout


def test_output_that_nobody_reads_ends_it_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "app", "detectors"]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_help_needs_no_heavy_import() -> None:
    heavy = {"torch", "httpx", "pydantic"}
    code = f"import sys, app.cli; app.cli.build_parser().format_help(); print({heavy} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_the_help_of_serve_points_at_the_settings(run_command: Run) -> None:
    ended = run_command("serve", "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "  BOX2MASK_DETECTOR=auto\n      Detector folder" in ended.stdout and "BOX2MASK_PORT=8080" in ended.stdout


@pytest.mark.parametrize("arguments", [(), ("sevre",), ("serve", "--port", "1")])
def test_a_command_line_that_means_nothing_is_refused(run_command: Run, arguments: tuple[str, ...]) -> None:
    ended = run_command(*arguments)
    assert ended.returncode == 2
    assert "usage: box2mask" in ended.stderr and "Traceback" not in ended.stderr


def test_serve_says_what_it_serves_and_stops_when_asked(serve: Serve) -> None:
    with serve(BOX2MASK_DETECTOR="none", BOX2MASK_SEGMENTER="demo-sam") as service:
        announced, detector, segmenter = service.log().splitlines()[:3]
        assert announced == (
            f"box2mask is loading its models; it will listen on {service.url} (POST /score, docs at /docs)"
        )
        assert detector == "  detector: none"
        assert segmenter.startswith("  segmenter: demo-sam (") and segmenter.endswith(") - demo weights")
        assert "    box2mask weights pull yolof sam-huge" in service.log()
        assert httpx.get(f"{service.url}/version").json()["demo_weights"] is True
    assert service.process.returncode == 0  # after SIGTERM
    assert "Traceback" not in service.log()


def test_who_brings_models_is_not_told_to_pull_others(service: Any, model_folders: Any) -> None:
    log = service.log()
    assert f"  detector: detector ({model_folders.detector})\n" in log
    assert f"  segmenter: segmenter ({model_folders.segmenter})\n" in log
    assert "weights pull" not in log and "demo" not in log.lower()


# Starts that fail: with status 3, as AzureML's scoring server does


def test_a_bad_setting_is_named(run_command: Run) -> None:
    ended = run_command("serve", BOX2MASK_PORT="http", BOX2MASK_DTYPE="int8")
    assert (ended.returncode, ended.stdout) == (3, "")
    (said,) = ended.stderr.splitlines()
    assert said.startswith("box2mask: BOX2MASK_PORT: Input should be a valid integer")
    assert said.endswith("; BOX2MASK_DTYPE: Input should be 'auto', 'float32', 'bfloat16' or 'float16', got 'int8'")


def test_weights_that_do_not_load_are_told_without_a_traceback(
    run_command: Run, model_folders: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "sam"
    shutil.copytree(model_folders.segmenter, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    ended = run_command("serve", BOX2MASK_DETECTOR="none", BOX2MASK_SEGMENTER=str(folder), BOX2MASK_PORT="0")
    assert ended.returncode == 3
    assert f"ERROR uvicorn.error: {weights} is not a safetensors file, or is truncated: " in ended.stderr
    assert "Traceback" not in ended.stderr and "File " not in ended.stderr


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("cluster", "--ray: expected local, auto or host:port, got 'cluster'"),
        ("127.0.0.1:1", "--ray 127.0.0.1:1: there is no such cluster: "),
    ],
)
def test_a_cluster_that_is_not_there_is_told(run_command: Run, address: str, said: str) -> None:
    ended = run_command("serve", "--ray", address, BOX2MASK_SEGMENTER="demo-sam", BOX2MASK_DETECTOR="none")
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1].startswith(f"box2mask: {said}")


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `serve` says where it ends before it has loaded anything."""

    def serve(**settings: str) -> str:
        for name in [name for name in os.environ if name.startswith(("BOX2MASK_", "AZUREML_"))]:
            monkeypatch.delenv(name)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        assert main(["serve"]) == 3
        (said,) = capsys.readouterr().err.splitlines()
        return said

    return serve


def test_a_folder_that_is_not_there_is_named(refusal: Callable[..., str], tmp_path: Path) -> None:
    said = refusal(BOX2MASK_DETECTOR=f"{tmp_path}/nothing")
    assert said.startswith(f"box2mask: BOX2MASK_DETECTOR={tmp_path}/nothing: there is no such folder, and no weights")


def test_a_mounted_folder_that_is_damaged_is_told(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    said = refusal(AZUREML_MODEL_DIR=str(tmp_path))
    assert said.startswith(f"box2mask: {tmp_path}/config.json is not JSON: ")


def test_a_port_in_use_is_told(refusal: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(BOX2MASK_HOST="127.0.0.1", BOX2MASK_PORT=str(port))
    assert said == (
        f"box2mask: cannot listen on 127.0.0.1 port {port}: Address already in use; BOX2MASK_PORT takes another port"
    )
