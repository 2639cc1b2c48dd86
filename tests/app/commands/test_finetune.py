"""`box2mask finetune`: what it takes, what it says, and what it says no to."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.cli import build_parser, main
from models.data import Annotation, Dataset, LabelledImage, write
from models.demo.scenes import render_scene
from models.demo.things import CLUTTER
from models.detector import mmcv_ops
from models.finetuning.options import TrainingOptions
from models.weights import places

DEMO = Path(__file__).parents[3] / "weights" / "demo" / "yolof"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    images = []
    for index in range(3):
        scene = render_scene(np.random.default_rng(index), (64, 64), clutter=(0, 0))
        Image.fromarray(scene.image).save(folder / f"{index}.png")
        annotations = tuple(
            Annotation("thing", tuple(map(float, box)))
            for box, label in zip(scene.boxes_xyxy, scene.labels, strict=True)
            if label != CLUTTER
        )
        images.append(LabelledImage(folder / f"{index}.png", (64, 64), annotations))
    write(Dataset(("thing",), tuple(images)), folder / "coco", "coco")
    return folder / "coco"


def test_every_option_has_its_name_and_its_dashed_name() -> None:
    for one in dataclasses.fields(TrainingOptions):
        value = {"int": "64", "bool": "true", "float": "0.5"}.get(str(one.type).split(" |")[0], str(one.default))
        for name in (one.name, one.name.replace("_", "-")):
            args = build_parser().parse_args(["finetune", "data", "--out", "x", f"--{name}={value}"])
            assert str(getattr(args, one.name)).lower() == value


def test_help_needs_no_heavy_imports() -> None:
    code = (
        "import sys\nfrom app.cli import main\n"
        "try: main(['finetune', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'mmengine', 'mmdet'} & sys.modules.keys()"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "examples:" in outcome.stdout and "--metric_for_best_model" in outcome.stdout


def test_it_trains(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is imported first here
        mmcv_ops.install()
        import mmdet.models  # noqa: F401
    command = ["finetune", str(data), "--from", str(DEMO), "--out", str(tmp_path / "out"), "--every", "3"]
    options = ["--number-of-epochs", "1", "--image_max_size", "64", "--image_min_size=64", "--number_of_workers", "0"]
    assert main([*command, *options]) == 0
    captured = capfd.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("training on 2 images with ") and lines[0].endswith("classes: thing")
    assert "a new class head for thing in place of can, carton, milk_bottle, water_bottle" in lines[1]
    assert re.match(r"epoch 1/1: loss \d+\.\d+  mAP@50 \d\.\d+ .* best", lines[2])
    assert lines[3].startswith(f"{tmp_path / 'out'}: the detector of epoch 1, mean_average_precision ")
    assert len(lines) == 4, "and nothing of MMEngine's"
    assert "1/1" in captured.err and "loss" in captured.err, "the bar"
    metadata = json.loads((tmp_path / "out" / "model_metadata.json").read_text())
    assert metadata["classes"] == ["thing"] and metadata["started_from"]["config"] == "yolof_r18_demo.py"

    assert main([*command, *options, "--random_seed", "1"]) == 1
    assert "another training (random_seed 42 there, 1 here)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--learning_rate", "-1"], "learning_rate: expected more than 0, found -1.0"),
        (["--from", "nowhere"], "from: expected a detector folder or one of .*, found 'nowhere'"),
        (["--every", "1"], "every: expected at least 2, found 1"),
        (["--every", "2", "--validation", "x"], "every: expected either --validation or --every"),
        (["--minutes", "0"], "minutes: expected more than 0, found 0"),
        (["--extra_optim_args", "momentum 3"], "extra_optim_args: expected name=value parts"),
        (["--validation", "nowhere"], "nowhere: there is no such file or folder"),
        (["--extra_optim_args", "momentum=3"], "extra_optim_args: adamw has no argument 'momentum'"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    start = [] if "--from" in arguments else ["--from", str(DEMO)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["finetune", str(data), "--out", str(tmp_path / "out"), *start, *arguments]) == 1
    error = capsys.readouterr().err
    assert re.match(f"box2mask: {expected}", error), error
    assert len(error.splitlines()) == 1


def test_weights_that_were_not_pulled(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOX2MASK_WEIGHTS_DIR", str(tmp_path / "weights"))
    assert main(["finetune", str(data), "--out", str(tmp_path / "out"), "--from", "yolof"]) == 1
    assert capsys.readouterr().err == "box2mask: from: yolof is not here: run `box2mask weights pull yolof`\n"
    shutil.copy(DEMO.parents[1] / "manifest.json", tmp_path)
    monkeypatch.setattr(places, "CHECKOUT", tmp_path)
    assert main(["finetune", str(data), "--out", str(tmp_path / "out")]) == 1
    assert "there are no weights here" in capsys.readouterr().err


def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.jsonl").write_text('{"image_url": "a.png"\n')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["finetune", str(tmp_path / "train.jsonl"), "--from", str(DEMO), "--out", str(tmp_path / "o")]) == 1
    assert "train.jsonl:1: " in capsys.readouterr().err
