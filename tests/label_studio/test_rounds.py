"""A round of the loop with a real Label Studio: corrections fetched, what is left pre-labelled by uncertainty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.results.label_studio import labeling_config
from models.data import load
from models.data.formats.label_studio.writing import rectangle, region
from models.demo.scenes import render_scene
from models.demo.things import CLASS_NAMES
from tests.label_studio.conftest import SIZE_HW, Box2mask
from tests.label_studio.real_server import LabelStudio


def photos_of(folder: Path) -> list[Path]:
    folder.mkdir()
    for seed in range(4):
        scene = render_scene(np.random.default_rng(100 + seed), SIZE_HW, containers=(3, 4))
        Image.fromarray(scene.image).save(folder / f"shelf {seed}.png")
    return sorted(folder.iterdir())


def annotation(label: str) -> dict[str, Any]:
    value = {**rectangle((32.0, 24.0, 160.0, 120.0), SIZE_HW), "rectanglelabels": [label]}
    return {"result": [region("bbox", 0, "rectanglelabels", SIZE_HW, value)]}


def test_corrections_come_and_predictions_of_the_others_go(
    studio: LabelStudio, box2mask: Box2mask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = photos_of(tmp_path / "photos")
    project = studio.project(labeling_config(CLASS_NAMES), "round")
    tasks = [task["id"] for task in sorted(studio.upload(project, photos), key=lambda one: one["id"])]
    studio.ask("POST", f"/api/tasks/{tasks[0]}/annotations", json=annotation("can"))
    studio.ask("POST", f"/api/tasks/{tasks[1]}/annotations", json=annotation("can") | {"was_cancelled": True})

    out = tmp_path / "round"
    assert box2mask("label-studio", "pull", project, "--out", out) == 0
    data = load(out / "export.json")
    assert data.class_names == tuple(CLASS_NAMES)
    ((image, one),) = data.annotations()
    assert one.label == "can" and one.box_xyxy == pytest.approx((32, 24, 160, 120))
    assert Path(image.path).read_bytes() == photos[0].read_bytes()
    left = sorted((out / "open").iterdir())
    assert [path.read_bytes() for path in left] == [path.read_bytes() for path in photos[1:]]

    found = out / "found"
    arguments = ("--formats", "label-studio", "--order", "uncertainty", "--score-threshold", "0.15")
    assert box2mask("run", out / "open", "--out", found, *arguments) == 0
    assert box2mask("label-studio", "push", project, found) == 0
    assert "3 predictions stored" in capsys.readouterr().out
    listed = {
        line.split(",")[1]: float(line.split(",")[2]) for line in (found / "order.csv").read_text().splitlines()[1:]
    }
    now = {number: studio.task(number) for number in tasks}
    for path, number in zip(left, tasks[1:], strict=True):
        (prediction,) = now[number]["predictions"]
        assert prediction["result"] and {one["type"] for one in prediction["result"]} >= {"rectanglelabels"}
        assert now[number]["data"]["priority"] == listed[path.name]
        assert prediction["score"] == pytest.approx(1 - listed[path.name], abs=1e-4)
    assert not now[tasks[0]]["predictions"] and "priority" not in now[tasks[0]]["data"]
    # As the Data Manager sorts by the column of the task's data.
    view = {"project": project, "data": {"ordering": ["-tasks:data.priority"], "hiddenColumns": {}}}
    tab = studio.ask("POST", "/api/dm/views", json=view)["id"]
    shown = studio.ask("GET", "/api/tasks", params={"view": tab, "project": project, "fields": "all"})["tasks"]
    values = [one["data"]["priority"] for one in shown if "priority" in one["data"]]
    assert values == sorted(values, reverse=True) and len(values) == 3

    # Again: nothing twice. And what has been corrected since is no longer open.
    assert box2mask("label-studio", "push", project, found) == 0
    assert "0 predictions stored in project" in (said := capsys.readouterr().out) and "3 were there" in said
    studio.ask("POST", f"/api/tasks/{tasks[3]}/annotations", json=annotation("carton"))
    assert box2mask("label-studio", "pull", project, "--out", out) == 0
    assert "2 labelled photos" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "open").iterdir()) == [path.name for path in left[:2]]
    assert [one.label for _, one in load(out / "export.json").annotations()] == ["can", "carton"]


def test_what_cannot_be_had_is_a_sentence(
    studio: LabelStudio, box2mask: Box2mask, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert box2mask("label-studio", "pull", 999_999, "--out", tmp_path / "none") == 1
    assert "has no project 999999 that this account may see" in capsys.readouterr().err
    project = studio.project(labeling_config(CLASS_NAMES), "broken")
    tasks = [{"data": {"image": address}} for address in ("/data/upload/0/gone.png", "https://127.0.0.1:1/a.png")]
    studio.ask("POST", f"/api/projects/{project}/import", json=tasks)
    assert box2mask("label-studio", "pull", project, "--out", tmp_path / "round") == 1
    said = capsys.readouterr().err
    assert said.count("left out") == 2 and "2 photos could not be had" in said
    assert json.loads((tmp_path / "round" / "export.json").read_text()) == []
    assert box2mask("label-studio", "push", project, tmp_path / "round") == 1
    assert "expected the results of `box2mask run`" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    assert box2mask("label-studio", "pull", project, "--out", tmp_path / "other") == 1
    assert "expected a new folder" in capsys.readouterr().err
    monkeypatch.setenv("BOX2MASK_LABEL_STUDIO_TOKEN", "0" * 40)
    assert box2mask("label-studio", "pull", project, "--out", tmp_path / "round") == 1
    assert "BOX2MASK_LABEL_STUDIO_TOKEN" in capsys.readouterr().err
    monkeypatch.delenv("BOX2MASK_LABEL_STUDIO_URL")
    assert box2mask("label-studio", "pull", project, "--out", tmp_path / "round") == 1
    assert "BOX2MASK_LABEL_STUDIO_URL" in capsys.readouterr().err
