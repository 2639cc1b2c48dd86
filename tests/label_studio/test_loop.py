"""Two rounds' worth of docs/labelling.md's loop: a project's corrections make models that its open tasks are from."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.results.label_studio import labeling_config
from models.data import load
from models.data.formats.label_studio.writing import brush, rectangle, region
from models.demo.scenes import Scene, render_scene
from models.demo.things import CLASS_NAMES, CLUTTER
from tests.app.conftest import Service, serving, write_detector
from tests.app.same_answers import assert_same
from tests.app.scoring_requests import row, to_sam, to_yolof
from tests.label_studio.conftest import SIZE_HW, Box2mask
from tests.label_studio.real_server import LabelStudio

ADMIN = "a-key-that-a-machine-has-drawn"
LABELLED, SKIPPED = (0, 2, 3, 5, 6, 8), 7  # of ten photos; 1, 4 and 9 nobody has looked at
# Just enough steps for both to become better at such photos.
OF_DETECTOR = (
    *("--from", "demo-yolof", "--number-of-epochs", "4", "--learning-rate", "0.0003", "--number_of_workers", "0"),
    *("--metric_for_best_model", "coco_mean_average_precision", "--apply_augmentations", "false"),
)
OF_SEGMENTER = (
    *("--segmenter", "demo-sam", "--number-of-epochs", "20", "--learning-rate", "0.0005", "--views_per_image", "1"),
    *("--metric_for_best_model", "box_iou", "--old_share", "0", "--keep_old", "0"),
)


def negatives(folder: Path) -> list[Scene]:
    """Photos in the colours of negatives, which the demo models do not know; with the truth about each."""
    folder.mkdir()
    scenes = [render_scene(np.random.default_rng(500 + seed), SIZE_HW, containers=(2, 3)) for seed in range(10)]
    for number, scene in enumerate(scenes):
        Image.fromarray(255 - scene.image).save(folder / f"shelf {number}.png")
    return scenes


def correction(scene: Scene) -> dict[str, Any]:
    """Box and mask of every container, as somebody who does it well draws them."""
    result = []
    for number, (box, label, mask) in enumerate(zip(scene.boxes_xyxy, scene.labels, scene.masks, strict=True)):
        if label == CLUTTER:
            continue
        name = [CLASS_NAMES[label]]
        around = {**rectangle(box.tolist(), SIZE_HW), "rectanglelabels": name}
        drawn = brush(mask) | {"brushlabels": name}
        result += [
            region("box", number, "rectanglelabels", SIZE_HW, around),
            region("mask", number, "brushlabels", SIZE_HW, drawn, parentID=f"box{number}"),
        ]
    return {"result": result}


def what_it_is(studio: LabelStudio, number: int) -> dict[str, Any]:
    """Of a task all that people and models made of it."""
    task = studio.task(number)
    annotations = [{key: one[key] for key in ("id", "result", "updated_at")} for one in task["annotations"]]
    return {key: task[key] for key in ("data", "predictions", "updated_at")} | {"annotations": annotations}


def names(data: Path) -> set[str]:
    return {image.name for image in load(data).images}


@contextmanager
def asking(service: Service, *requests: tuple[str, Any]) -> Iterator[list[list[Any]]]:
    """A client for each request, who sends it again and again while this lasts; the answers, which must be all 200."""
    over = threading.Event()

    def keep_asking(path: str, content: Any) -> list[Any]:
        answers = []
        with httpx.Client(base_url=service.url, timeout=120) as http:
            while not over.is_set():
                response = http.post(path, json=content)
                assert response.status_code == 200, response.text
                answers.append(response.json())
        return answers

    answers: list[list[Any]] = []
    with ThreadPoolExecutor(len(requests)) as clients:
        works = [clients.submit(keep_asking, *one) for one in requests]
        try:
            yield answers
        finally:
            over.set()
        answers += [work.result() for work in works]


def same(one: Any, other: Any) -> bool:
    try:
        assert_same(one, other)
    except AssertionError:
        return False
    return True


@pytest.mark.filterwarnings("ignore")  # MMDetection's own
def test_what_people_correct_makes_models_that_pre_label_what_is_left(
    studio: LabelStudio, box2mask: Box2mask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = negatives(tmp_path / "photos")
    project = studio.project(labeling_config(CLASS_NAMES), "loop")
    uploaded = studio.upload(project, sorted((tmp_path / "photos").iterdir()))
    tasks = sorted(task["id"] for task in uploaded)
    for number in LABELLED:
        studio.ask("POST", f"/api/tasks/{tasks[number]}/annotations", json=correction(scenes[number]))
    studio.ask("POST", f"/api/tasks/{tasks[SKIPPED]}/annotations", json={"result": [], "was_cancelled": True})
    before = {number: what_it_is(studio, tasks[number]) for number in LABELLED}

    # 1. What was corrected comes, a third of it to be measured on.
    out, parts = tmp_path / "round", tmp_path / "round" / "parts-1"
    assert box2mask("label-studio", "pull", project, "--out", out) == 0
    of_task = {task: name for name, task in json.loads((out / "tasks.json").read_text())["tasks"].items()}
    assert names(out / "export.json") == {of_task[tasks[number]] for number in LABELLED}
    assert box2mask("data", "split", out / "export.json", parts, "--every", "3", "--to", "coco") == 0
    held_out = names(parts / "validation")
    assert held_out == {of_task[tasks[number]] for number in (0, 5)}
    assert names(parts / "train") == names(out / "export.json") - held_out

    # 2. The models learn from the rest.
    detector, segmenter = tmp_path / "shelf-1", tmp_path / "shelf-1-sam"
    train = ("finetune", parts / "train", "--validation", parts / "validation", "--quiet")
    assert box2mask(*train, "--out", detector, *OF_DETECTOR) == 0
    assert box2mask(*train, "--out", segmenter, *OF_SEGMENTER) == 0
    for model in (detector, segmenter):
        data = json.loads((model / "model_metadata.json").read_text())["data"]
        assert (data["training"]["images"], data["validation"]["images"]) == (4, 2)
    assert "as it was before" not in capsys.readouterr().out

    settings = {f"BOX2MASK_{name}": value for name, value in (
        ("DEVICE", "cpu"), ("DETECTOR", "demo-yolof"), ("SEGMENTER", "demo-sam"), ("ADMIN_KEY", ADMIN),
    )}  # fmt: skip
    with serving(tmp_path / "service.log", settings) as service:
        # 3. Measured on what was held out: the models in service, the new ones, and some that are worse.
        evaluate = ("evaluate", parts / "validation", "--out")
        assert box2mask(*evaluate, out / "before", "--url", service.url) == 0
        gate = ("--not-worse-than", out / "before" / "evaluation.json", "--by", "0.01")
        write_detector(tmp_path / "random")
        capsys.readouterr()
        assert box2mask(*evaluate, out / "bad", "--detector", tmp_path / "random", *gate) == 1
        assert f"worse than {out / 'before' / 'evaluation.json'} by more than 0.01: mAP" in capsys.readouterr().err
        assert box2mask(*evaluate, out / "after", "--detector", detector, "--segmenter", segmenter, *gate) == 0
        old, new = (json.loads((out / name / "evaluation.json").read_text()) for name in ("before", "after"))
        assert old["data"]["images"] == 2 and old["data"] == new["data"]
        assert new["boxes"]["coco"]["mAP"] > old["boxes"]["coco"]["mAP"]

        # 4. The service takes the new ones while it is asked.
        photo = base64.b64encode((out / "images" / min(held_out)).read_bytes()).decode()
        requests = [
            ("/pipeline/score", to_yolof(photo)),
            ("/sam/score", to_sam(row(photo, points="[[[160, 120]]]", labels="[[1]]"))),
            ("/sam/score", to_sam(row(photo, boxes="[[40, 40, 200, 200]]"))),
        ]
        models = {"detector": str(detector), "segmenter": str(segmenter)}
        with httpx.Client(base_url=service.url, timeout=120) as http:
            truth = [[http.post(path, json=content).json() for path, content in requests]]
            with asking(service, *requests) as answers:
                asked = http.post("/models/reload", json=models, headers={"authorization": f"Bearer {ADMIN}"})
                assert asked.status_code == 200, asked.text
                truth.append([http.post(path, json=content).json() for path, content in requests])
            served = http.get("/version").json()
        assert not any(same(*one) for one in zip(*truth, strict=True))
        for index, of_client in enumerate(answers):
            assert of_client
            assert all(same(one, truth[0][index]) or same(one, truth[1][index]) for one in of_client)
        assert box2mask(*evaluate, out / "served", "--url", service.url) == 0
        measured = json.loads((out / "served" / "evaluation.json").read_text())
        assert measured["masks"] == new["masks"] and measured["boxes"] == new["boxes"]

        # 5. They pre-label what is left, but for a photo that somebody has corrected meanwhile.
        order = ("--order", "uncertainty", "--formats", "label-studio", "--score-threshold", "0.1")
        assert box2mask("run", out / "open", "--out", out / "found", *order, "--url", service.url) == 0
    studio.ask("POST", f"/api/tasks/{tasks[9]}/annotations", json=correction(scenes[9]))
    before[9] = what_it_is(studio, tasks[9])
    capsys.readouterr()
    assert box2mask("label-studio", "push", project, out / "found") == 0
    assert capsys.readouterr().out.startswith("3 predictions stored") and len(of_task) == 10
    for number, task in before.items():
        assert what_it_is(studio, tasks[number]) == task, "a corrected task stays as it was"
    version = studio.ask("GET", f"/api/projects/{project}")["model_version"]
    for number in (1, 4, SKIPPED):
        task = studio.task(tasks[number])
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == version and prediction["result"]
        assert prediction["score"] == pytest.approx(1 - task["data"]["priority"], abs=1e-4)
    for kind in ("detector", "segmenter"):
        assert served[kind]["name"] == Path(models[kind]).name
        assert served[kind]["name"] in version and served[kind]["sha256"][:16] in version

    # The next round: what was held out stays so, wherever the new corrections stand.
    studio.ask("POST", f"/api/tasks/{tasks[1]}/annotations", json=correction(scenes[1]))
    assert box2mask("label-studio", "pull", project, "--out", out) == 0
    again = ("--every", "3", "--to", "coco", "--keep", parts)
    assert box2mask("data", "split", out / "export.json", out / "parts-2", *again) == 0
    assert names(out / "parts-2" / "validation") >= held_out and names(out / "parts-2" / "train") >= names(
        parts / "train"
    )
    assert len(load(out / "parts-2" / "train")) + len(load(out / "parts-2" / "validation")) == 8
