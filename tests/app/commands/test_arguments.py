"""What commands have in common: how they read a data set and say what is wrong with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from app.cli import main
from app.commands.arguments import add_data_arguments, failed, read_data
from models.data import DataError

TABLE = "paths:\n  - file: ./x.jsonl\ntransformations:\n  - read_json_lines:\n      invalid_lines: drop\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """An MLTable folder of three lines, two of which are broken and to be dropped."""
    box = {"label": "can", "topX": 0.0, "topY": 0.0, "bottomX": 1.0, "bottomY": 1.0}
    entry = {"image_url": "store://1.png", "image_details": {"width": 4, "height": 4}, "label": [box]}
    (tmp_path / "x.jsonl").write_text(f"{{\n{json.dumps(entry)}\n[]\n")
    (tmp_path / "MLTable").write_text(TABLE)
    return tmp_path


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    return parser.parse_args(given)


def test_what_is_left_out_is_said(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = read_data(options("--prefix", "store:/=photos"), table)
    assert [image.path for image in dataset.images] == [Path("photos/1.png").absolute()]
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(f"box2mask: {table / 'x.jsonl'}:1: not JSON: ")
    assert second.startswith(f"box2mask: {table / 'x.jsonl'}:3: expected an object, found []")
    assert "1 image was not found: " in third and "--images-root DIR says where they are" in third


def test_format_and_root_are_those_given(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = table / "x.jsonl"
    file.write_text(file.read_text().replace("store://", ""))
    given = options("--format", "jsonl", "--images-root", "elsewhere")
    with pytest.raises(DataError) as caught:  # it is the MLTable that asks for lines to be dropped
        read_data(given, table)
    assert failed(caught.value) == 1
    assert f"box2mask: 2 problems:\n  {file}:1: not JSON: " in capsys.readouterr().err
    given.skip_bad = True
    assert [image.path for image in read_data(given, table).images] == [Path("elsewhere/1.png")]
    assert capsys.readouterr().err.startswith(f"box2mask: left out: {file}:1: not JSON: ")


def test_of_many_the_first_are_said_and_how_many_more_there_are(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (table / "x.jsonl").write_text("{\n" * 25)
    read_data(options(), table)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "box2mask: ... and 22 more like this; `box2mask data check --all` shows each"


def test_evaluate_reads_so(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "--prefix",
        "store:/=photos",
        "--format",
        "mltable",
        "--images-root",
        "here",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["evaluate", str(table), *given, "--predictions", str(tmp_path / "none.json")]) == 1
    told = capsys.readouterr().err
    assert f"{table / 'x.jsonl'}:1: not JSON" in told and told.splitlines()[-1].startswith("box2mask: ")
    assert "none.json" in told
