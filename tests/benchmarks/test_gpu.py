from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import TINY, Bench
from benchmarks.gpu.random_sam import Models

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def test_whole_script_runs_without_a_gpu(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "WHEELS"))}
    environment |= {"OUT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([SCRIPT, "--cpu"], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (result,) = tmp_path.iterdir()
    text = result.read_text()
    for case in ("encode 1", "encode 4", "decode 1", "decode 3", "one image to the device", "| YOLOF |"):
        assert case in text
    for check in ("folded", "while the other lane works", "pixels that packing", "as served", "start to ready"):
        assert check in text
    assert "FAILED" not in text


def test_a_failed_check_fails_the_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(bench: Bench, models: Models) -> None:
        raise RuntimeError("no kernel image")

    for part in ("encode", "decode", "both_lanes", "transfers"):
        monkeypatch.setattr(gpu, part, lambda bench, models: None)
    monkeypatch.setattr(Models, "random", lambda bench: None)
    for part in ("demo", "served", "yolof", "cold_start"):
        monkeypatch.setattr(gpu, part, lambda bench: None)
    monkeypatch.setattr(gpu, "check_kernels", lambda bench, models: bench.check("something", 0.5, at_most=1))
    assert gpu.main(["--cpu", "--out", str(tmp_path)]) == 0
    monkeypatch.setattr(gpu, "check_kernels", refuse)
    monkeypatch.setattr(gpu, "encode", lambda bench, models: bench.check("something", 0.5, at_most=1))
    assert gpu.main(["--cpu", "--out", str(tmp_path)]) == 1
    assert "no kernel image" in capsys.readouterr().err
    assert "| something | 0.5 | at most 1 | ok |" in next(tmp_path.iterdir()).read_text()  # the others still ran


@pytest.mark.parametrize(
    ("found", "limits", "passes"),
    [
        (0.5, {"at_most": 0.5}, True),
        (0.6, {"at_most": 0.5}, False),
        (0.6, {"at_least": 0.5}, True),
        (0.4, {"at_least": 0.5}, False),
        (math.nan, {"at_most": 0.5}, False),
        (math.nan, {"at_least": 0.5}, False),
    ],
)
def test_limits(found: float, limits: dict[str, float], passes: bool) -> None:
    bench = Bench(torch.device("cpu"), TINY)
    bench.check("something", found, **limits)
    bench.check("something else", 0, at_most=1)
    assert bench.passed is passes


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "--cpu" in capsys.readouterr().err
