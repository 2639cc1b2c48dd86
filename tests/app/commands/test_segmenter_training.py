"""`box2mask finetune --segmenter`: what it takes, what it says, and what it says no to."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from app.cli import build_parser, main
from app.commands.segmenter_training import own_options
from models.data import write
from models.finetuning import curve
from models.finetuning.segmenter.options import SegmenterOptions
from tests.models.finetuning.segmenter.conftest import make_rings, tiny_sam


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(make_rings(folder / "images", 5), folder / "annotations.json", "coco", images="reference")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam(tmp_path_factory.mktemp("tiny") / "sam")


def test_every_option_has_its_name_and_its_dashed_name() -> None:
    for one in dataclasses.fields(SegmenterOptions):
        value = {"int": "64", "bool": "true", "float": "0.5"}.get(str(one.type).split(" |")[0], str(one.default))
        for name in (one.name, one.name.replace("_", "-")):
            args = build_parser().parse_args(
                ["finetune", "data", "--out", "x", "--segmenter", "y", f"--{name}={value}"]
            )
            assert str(getattr(args, one.name)).lower() == value


def test_it_trains(
    data: Path, tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "draw", lambda history, path: None)
    command = ["finetune", str(data), "--segmenter", str(tiny), "--out", str(tmp_path / "out"), "--every", "2"]
    assert main([*command, "--number-of-epochs", "1", "--views_per_image", "2", "--clicks=0"]) == 0
    captured = capfd.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == (
        "training on 2 images with 2 objects, validating on 3 images with 3 objects; classes count for nothing"
    )
    figure = r"\d\.\d{3}"
    assert re.match(rf"before the training: mask IoU {figure}  by boxes {figure}  by clicks {figure}  filled", lines[1])
    assert re.match(rf"epoch 1/1: loss \d+\.\d+  mask IoU {figure}", lines[2])
    assert re.match(rf"{tmp_path / 'out'}: the segmenter (of epoch 1|as it was before, .*), mask_iou 0\.\d+$", lines[3])
    assert len(lines) == 4
    assert "encoding" in captured.err and "1/1" in captured.err and "loss" in captured.err, "the bars"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--box_score_threshold", "0.5"], "box_score_threshold: expected without --segmenter"),
        (["--optimizer", "sgd", "--precision", "16"], "optimizer, precision: expected without --segmenter"),
        (["--student", "mask-rcnn"], "--student: expected without --segmenter"),
        (["--from", "yolof", "--backbone-only"], "--from, --backbone-only: expected without --segmenter"),
        (["--azure-defaults"], "--azure-defaults: expected without --segmenter"),
        (["--train", "all"], "train: expected one of decoder, whole-decoder, encoder-lora, found 'all'"),
        (["--clicks", "-1"], "clicks: expected at least 0, found -1"),
        (["--metric_for_best_model", "recall"], "metric_for_best_model: expected one of mask_iou, box_iou, click_iou"),
        (["--train", "encoder-lora"], "train: encoder-lora runs the whole encoder"),
        (["--minutes", "0"], "minutes: expected more than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    data: Path,
    tiny: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("BOX2MASK_DEVICE", "cpu")
    command = ["finetune", str(data), "--segmenter", str(tiny), "--out", str(tmp_path / "out")]
    assert main([*command, *more]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [one.name for one in own_options()])
def test_a_segmenters_options_are_refused_of_a_detector(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "nowhere", "--out", "x", f"--{name}", "1"]) == 1
    assert f"{name}: expected --segmenter with it, as detectors have no such option" in capsys.readouterr().err


def test_what_is_no_segmenter_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", str(data), "--segmenter", "nothing-here", "--out", str(tmp_path / "out")]) == 1
    assert "segmenter: expected a SAM folder or one of " in capsys.readouterr().err
    assert main(["finetune", str(data), "--segmenter", "demo-yolof", "--out", str(tmp_path / "out")]) == 1
    assert "looked for a config.json" in capsys.readouterr().err


def test_help_says_which_options_a_segmenter_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    told = capsys.readouterr().out
    assert "training options of --segmenter:" in told and "number_of_epochs (-)" in told
