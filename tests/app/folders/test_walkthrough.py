"""`box2mask walkthrough` as its users meet it, with few scenes and a short training."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.cli import build_parser, main
from app.folders import walkthrough
from app.folders.walkthrough import Walk

REPOSITORY = Path(__file__).parents[3]
SMALL = ("--number_of_epochs", "1", "--training_batch_size", "2", "--image_min_size", "96", "--image_max_size", "96")
DEMO = ("--data", "demo", "--scenes", "10", *SMALL, "--number_of_workers", "0", "--quiet")
STEPS = ("Draw scenes", "Split 80:20", "Fine-tune the detector on the boxes", "Request boxes and masks", "Measure them")
# Nothing listens there: what goes through these proxies fails at once.
DEAD = "http://127.0.0.1:9"
NO_NETWORK = {"http_proxy": DEAD, "https_proxy": DEAD, "all_proxy": DEAD, "no_proxy": ""}


def walk(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`box2mask walkthrough --out walk`, typed in `folder`, on a machine whose network is behind a broken proxy."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("BOX2MASK_", "AZUREML_"))}
    environment = own | NO_NETWORK | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-P", "-m", "app", "walkthrough", "--out", "walk", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("BOX2MASK_", "AZUREML_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a walk was killed while it drew its scenes, beside a user's own package `app`."""
    folder = tmp_path_factory.mktemp("walkthrough")
    (folder / "app.py").write_text("raise SystemExit('another app')\n")
    (folder / "walk" / "scenes" / "images").mkdir(parents=True)
    (folder / "walk" / "walk.json").write_text("{}")
    (folder / "walk" / "scenes" / "images" / "00000.jpg").write_bytes(b"half of a")
    (folder / "walk" / "scenes" / "images" / "00011.jpg").write_bytes(b"one too many")
    (folder / "walk" / "scenes" / "annotations.json").write_text('{"images": [')
    return folder


@pytest.fixture(scope="module")
def walked(folder: Path) -> subprocess.CompletedProcess[str]:
    return walk(folder, *DEMO)


@pytest.fixture(scope="module")
def out(folder: Path, walked: subprocess.CompletedProcess[str]) -> Path:
    return folder / "walk"


def test_it_goes_from_nothing_to_measured_masks(walked: subprocess.CompletedProcess[str], out: Path) -> None:
    assert walked.returncode == 0, walked.stderr
    assert re.findall(r"^\$ (?:BOX2MASK_\S+ )*(box2mask \w+(?: demo| split)?)", walked.stdout, re.MULTILINE) == [
        "box2mask data demo", "box2mask data split", "box2mask finetune", "box2mask serve", "box2mask run",
        "box2mask evaluate",
    ]  # fmt: skip
    done = re.findall(r"^ *\d+ s  (.*)$", walked.stdout.split("== Done")[1], re.MULTILINE)
    assert done == [*STEPS[:3], "Serve", *STEPS[3:]]

    assert len(list((out / "scenes" / "images").iterdir())) == 10, "and nothing of the walk that was killed"
    for part, count in (("train", 8), ("validation", 2)):
        content = json.loads((out / "split" / part / "annotations.json").read_text())
        assert len(content["images"]) == count == len(list((out / "split" / part / "images").iterdir()))
    metadata = json.loads((out / "detector" / "model_metadata.json").read_text())
    assert metadata["finished"] and metadata["data"]["training"]["images"] == 8
    assert metadata["options"]["image_max_size"] == 96, "options that are not the walk's are finetune's"

    objects = json.loads((out / "masks" / "coco.json").read_text())["annotations"]
    masks = sorted((out / "masks" / "masks").glob("*/*.png"))
    assert objects and len(masks) == len(objects)
    with Image.open(masks[0]) as mask:
        assert mask.mode == "L" and set(mask.tobytes()) <= {0, 255}
    figures = json.loads((out / "evaluation" / "evaluation.json").read_text())
    assert figures["data"]["images"] == 2 and figures["data"]["objects_with_masks"] == figures["data"]["objects"] > 0
    for name in ("average_iou", "average_accuracy"):
        assert 0 < figures[name] <= 1
    assert figures["average_of"]["prompts"] == "detected"
    assert "data:image/" in (out / "evaluation" / "report.html").read_text()


def test_the_service_has_ended(walked: subprocess.CompletedProcess[str]) -> None:
    (port,) = re.findall(r"^ready at http://127\.0\.0\.1:(\d+)", walked.stdout, re.MULTILINE)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()


def test_a_second_walk_does_what_is_not_done_and_gives_the_same_figures(out: Path) -> None:
    kept = [out / "detector" / "yolof_r18_demo.safetensors", out / "scenes" / "annotations.json"]
    before = [path.stat().st_mtime_ns for path in kept]
    figures = json.loads((out / "evaluation" / "evaluation.json").read_text())
    shutil.rmtree(out / "evaluation")
    record = out / "walk.json"  # as if the walk had been killed within the split
    done = json.loads(record.read_text())
    del done["Split 80:20"]
    record.write_text(json.dumps(done))
    (out / "split" / "validation" / "annotations.json").unlink()

    again = walk(out.parent, *DEMO)
    assert again.returncode == 0, again.stderr
    titles = re.findall(r"^ *(before|\d+ s)  (.*)$", again.stdout.split("== Done")[1], re.MULTILINE)
    assert [title for when, title in titles if when == "before"] == [STEPS[0], STEPS[2]]
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert json.loads((out / "evaluation" / "evaluation.json").read_text()) == figures


def test_another_walk_does_not_go_on_in_the_same_folder(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["walkthrough", "--out", str(out), "--data", "demo", "--scenes", "11"]) == 1
    (error,) = capfd.readouterr().err.splitlines()
    assert error.startswith("box2mask: Draw scenes: ") and "scenes --scenes 10` and not by" in error
    # Seen from elsewhere it is the same walk: only what differs is named.
    assert main(["walkthrough", "--out", str(out), "--data", "demo", "--scenes", "10", "--number_of_epochs", "2"]) == 1
    (error,) = capfd.readouterr().err.splitlines()
    assert error.startswith("box2mask: Fine-tune the detector on the boxes: ")


def test_a_service_that_does_not_start_is_said(
    out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOX2MASK_DEVICE", "abacus")
    assert main(["walkthrough", "--out", str(out), *DEMO]) == 1
    (error,) = capfd.readouterr().err.splitlines()
    assert error == f"box2mask: Serve: the service did not become ready; {out / 'service.log'} says why"
    assert "the device abacus (BOX2MASK_DEVICE or --device) cannot be used here" in (out / "service.log").read_text()


def test_masks_of_one_segmenter_are_not_gone_on_with_by_another(
    out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOX2MASK_SEGMENTER", "sam-base")
    for named, now in (((), "sam-base"), (("--segmenter", "demo-sam"), "demo-sam")):
        assert main(["walkthrough", "--out", str(out), *DEMO, *named]) == 1
        told = capfd.readouterr()
        (error,) = told.err.splitlines()
        assert f"made with the segmenter auto and not {now}: choose another folder" in error
        (command,) = re.findall(r"`box2mask (evaluate .*)`$", error)
        args = build_parser().parse_args(command.split())
        assert args.data == out / "split" / "validation" and args.detector == str(out / "detector")
        assert args.segmenter == ["auto", now]
        assert "== Serve" not in told.out
    monkeypatch.setenv("BOX2MASK_SEGMENTR", "none")
    assert main(["walkthrough", "--out", str(out), *DEMO]) == 1
    assert capfd.readouterr().err == "box2mask: BOX2MASK_SEGMENTR: there is no such setting\n"


@pytest.fixture(scope="module")
def taught(out: Path) -> subprocess.CompletedProcess[str]:
    """The same walk with a student: it goes on from where it ended."""
    return walk(out.parent, *DEMO, "--student", "rtmdet-ins")


def test_a_student_learns_sams_masks_and_is_served(taught: subprocess.CompletedProcess[str], out: Path) -> None:
    titles = [line for line in taught.stdout.splitlines() if line.startswith("== ")]
    assert [title for title in titles if "tudent" in title or "SAM" in title] == [
        "== Let SAM make masks by the boxes of the training photos", "== Train the student on these masks",
    ]  # fmt: skip
    assert taught.stdout.count("ready at ") == 2, "the detector's service and the student's"
    true_boxes = json.loads((out / "split" / "train" / "annotations.json").read_text())["annotations"]
    learnt = json.loads((out / "training-masks" / "coco.json").read_text())["annotations"]
    assert len(learnt) == len(true_boxes) and all(one["segmentation"]["counts"] for one in learnt)
    metadata = json.loads((out / "student" / "model_metadata.json").read_text())
    assert metadata["finished"] and metadata["metrics"]["mask_mean_average_precision"] is not None
    assert metadata["options"]["image_max_size"] == 96, "options of finetune's are both trainings'"
    assert (out / "student" / "rtmdet-ins.safetensors").exists()


def test_the_students_masks_stand_beside_sams(taught: subprocess.CompletedProcess[str], out: Path) -> None:
    assert taught.returncode == 0, taught.stderr
    table = taught.stdout.split("mean IoU with the true ones:")[1]
    rows = re.findall(r"^ +(\d\.\d{3}|-) +(\d\.\d{3}|-)  (.+)$", table, re.MULTILINE)
    assert [what for _, _, what in rows] == [
        "SAM, by true boxes", "SAM, by the detector's boxes", "the student", "the detector's boxes, filled",
    ]  # fmt: skip
    assert (out / "student-evaluation" / "report.html").exists()


def test_commands_of_a_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def noted(walk: Walk, title: str, makes: Path | None, *arguments: str | Path, whole: bool = False) -> None:
        asked.append([str(one) for one in arguments])

    @contextmanager
    def served(detector: Path, *_: object) -> Iterator[str]:
        asked.append(["serve", str(detector)])
        yield "http://127.0.0.1:1"

    monkeypatch.setattr(Walk, "_step", noted)
    monkeypatch.setattr(walkthrough, "served", served)
    Walk(tmp_path, "demo", segmenter="demo-sam", training_options=("--quiet",), student=str(REPOSITORY)).run()
    *_, run, finetune, serve, evaluate = asked
    assert serve == ["serve", str(tmp_path / "student")]
    args = build_parser().parse_args(finetune)
    assert args.start == str(REPOSITORY) and args.student is None and args.quiet
    assert args.metric_for_best_model == "mask_mean_average_precision"
    assert args.data == tmp_path / "training-masks" / "coco.json"
    assert args.images_root == Path(build_parser().parse_args(run).images[0]) == tmp_path / "split" / "train" / "images"
    assert build_parser().parse_args(run).segmenter == "demo-sam"
    args = build_parser().parse_args(evaluate)
    assert args.data == tmp_path / "split" / "validation" and args.masks == ("detector",)


def test_figures_are_those_of_both_evaluations(tmp_path: Path) -> None:
    def write(folder: str, *masks: tuple[str, float, float]) -> None:
        entries = [
            {
                "prompts": prompts,
                "average_iou": found,
                "average_iou_all_objects": every,
                "filled_box": {"average_iou": 0.5, "average_iou_all_objects": 0.4},
            }
            for prompts, found, every in masks
        ]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "evaluation.json").write_text(json.dumps({"masks": entries}))

    write("evaluation", ("ground-truth", 0.9, 0.9), ("detected", 0.8, 0.7))
    write("student-evaluation", ("detected", 0.75, 0.6))
    assert [(one.what, one.found, one.every) for one in Walk(tmp_path, student="rtmdet-ins").figures()] == [
        ("SAM, by true boxes", 0.9, 0.9),
        ("SAM, by the detector's boxes", 0.8, 0.7),
        ("the student", 0.75, 0.6),
        ("the detector's boxes, filled", 0.5, 0.4),
    ]


def test_a_student_that_is_none_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "walk"
    assert main(["walkthrough", "--out", str(out), "--data", "demo", "--student", "yolo"]) == 1
    assert capsys.readouterr().err == (
        "box2mask: --student yolo: expected rtmdet-ins, mask-rcnn or the folder of a detector with masks\n"
    )
    assert not out.exists()


def test_folders_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "mine.txt").write_text("mine")
    assert main(["walkthrough", "--out", str(tmp_path), "--data", "demo"]) == 1
    assert capsys.readouterr().err == (
        f"box2mask: {tmp_path}: expected a new folder or an earlier walk's, found split in it\n"
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["split", "mine.txt"]
    assert main(["walkthrough", "--out", str(tmp_path / "split" / "mine.txt"), "--data", "demo"]) == 1
    assert "mine.txt cannot be used: " in capsys.readouterr().err


def test_a_step_that_fails_is_named(out: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    new, nowhere = tmp_path / "new", tmp_path / "nowhere"
    assert main(["walkthrough", "--out", str(new), "--data", str(nowhere)]) == 1
    assert capfd.readouterr().err == (
        f"box2mask: --data {nowhere}: there is no such data set; expected odFridgeObjects, demo or a path\n"
    )
    assert not new.exists()

    (tmp_path / "annotations.jsonl").write_text('{"image_url": "a.png"\n')
    assert main(["walkthrough", "--out", str(new), "--data", str(tmp_path / "annotations.jsonl")]) == 1
    reason, step = capfd.readouterr().err.splitlines()
    assert "annotations.jsonl:1: " in reason
    assert step.startswith("box2mask: Split 80:20: `box2mask data split ") and step.endswith("ended with status 1")

    assert main(["walkthrough", "--out", str(new), "--data", str(out / "scenes"), "--nmber_of_epochs", "1"]) == 1
    *reasons, step = capfd.readouterr().err.splitlines()
    assert "box2mask: error: unrecognized arguments: --nmber_of_epochs 1" in reasons
    assert step.startswith("box2mask: Fine-tune the detector on the boxes: `box2mask finetune ")


def test_without_a_network_scenes_are_drawn_in_place_of_the_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)
    with pytest.raises(httpx.ConnectError):
        httpx.get("https://example.org")
    # No scenes at all cannot be drawn, and the walk need not go further here.
    assert main(["walkthrough", "--out", str(tmp_path / "walk"), "--data", "odFridgeObjects", "--scenes", "0"]) == 1
    told = capfd.readouterr()
    assert "$ box2mask data pull odFridgeObjectsMask" in told.out
    assert "The photos cannot be had here; the walk goes on with drawn scenes of the same four classes." in told.out
    assert "cannot download https://" in told.err
    assert told.err.splitlines()[-1].startswith("box2mask: Draw scenes: `box2mask data demo ")


def test_every_command_of_its_page_is_one_that_the_command_line_takes() -> None:
    page = (REPOSITORY / "docs" / "walkthrough.md").read_text()
    commands = re.findall(r"^(?: {4})?box2mask (.+)$", page, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        args, more = build_parser().parse_known_args(command.split())
        if command.startswith("walkthrough"):
            build_parser().parse_args(["finetune", "data", "--out", "x", *more])
        else:
            assert not more, command
