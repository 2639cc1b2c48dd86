"""`box2mask evaluate` as its users meet it, with small models of random weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from app.cli import main
from app.predictor import LocalPredictor
from app.settings import Settings

HEIGHT, WIDTH = 96, 128


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("BOX2MASK_", "AZUREML_")) and name != "BOX2MASK_DTYPE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("BOX2MASK_DEVICE", "cpu")


def coco(boxes_xywh: list[list[list[int]]], **changes: Any) -> dict[str, Any]:
    """Images 0.png, 1.png ... with cans in these boxes, whose masks are the upper halves of the boxes."""
    images = [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(len(boxes_xywh))]
    annotations = []
    for image, boxes in enumerate(boxes_xywh):
        for x, y, w, h in boxes:
            mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
            mask[y : y + h // 2, x : x + w] = 1
            rle = {"size": [HEIGHT, WIDTH], "counts": coco_mask.encode(mask)["counts"].decode()}
            number = len(annotations)
            one = {"id": number, "image_id": image, "category_id": 1, "bbox": [x, y, w, h], "segmentation": rle}
            annotations.append(one | {"iscrowd": 0, "area": int(mask.sum())} | changes)
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "can"}]}


@pytest.fixture
def write_data(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(content: dict[str, Any]) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        for number, entry in enumerate(content["images"]):
            pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / entry["file_name"])
        (folder / "annotations.json").write_text(json.dumps(content))
        return folder

    return write


BOXES = [[[10, 10, 40, 30], [70, 20, 30, 60]], [[0, 0, 128, 96]], []]


@pytest.mark.filterwarnings("ignore")  # MMDetection's own
def test_models_in_this_process_and_in_a_service_measure_the_same(
    model_folders: Any, service: Any, write_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(coco(BOXES))
    models = ("--detector", str(model_folders.detector), "--segmenter", str(model_folders.segmenter))
    kinds = ("--prompts", "ground-truth,detected,points", "--score-threshold", "0.1")
    (folder / "1.png").unlink()
    assert main(["evaluate", str(folder), *models, *kinds, "--out", str(tmp_path / "local")]) == 1
    told = capsys.readouterr()
    assert "1.png: cannot be read" in told.err
    assert "published, SAM ViT-H" in told.out and "report.html" in told.out
    assert main(["evaluate", str(folder), "--url", service.url, *kinds, "--out", str(tmp_path / "remote")]) == 1
    local, remote = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("local", "remote"))
    assert local == remote
    assert [one["prompts"] for one in local["masks"]] == ["ground-truth", "detected", "points"]
    assert local["data"]["images"] == 2 and [Path(one["image"]).name for one in local["failures"]] == ["1.png"]

    settings = Settings(detector="none", segmenter=str(model_folders.segmenter), device="cpu")
    with LocalPredictor(settings) as predictor:
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in BOXES[0]])
        found = predictor.segment(folder / "0.png", boxes)
    ious = []
    for one, (x, y, w, h) in zip(found, BOXES[0], strict=True):
        truth = np.zeros((HEIGHT, WIDTH), bool)
        truth[y : y + h // 2, x : x + w] = True
        assert one.rle is not None
        mask = coco_mask.decode(dict(one.rle)) > 0
        ious.append((mask & truth).sum() / (mask | truth).sum())
    assert local["masks"][0]["average_iou"] == pytest.approx(np.mean(ious))
    assert local["masks"][0]["filled_box"]["average_iou"] == pytest.approx(0.5)


@pytest.mark.filterwarnings("ignore")
def test_images_are_measured_as_they_are_shown(model_folders: Any, write_data: Any, tmp_path: Path) -> None:
    folder = write_data(coco(BOXES))
    models = ("--detector", str(model_folders.detector), "--segmenter", str(model_folders.segmenter))
    figures = []
    for orientations in ((1, 1), (3, 6)):
        for name, orientation in zip(("0.png", "1.png"), orientations, strict=True):
            exif = Image.Exif()
            exif[0x0112] = orientation
            stored = np.rot90(np.asarray(Image.open(folder / name)), {1: 0, 3: 2, 6: 1}[orientation])
            Image.fromarray(np.ascontiguousarray(stored)).save(folder / name, exif=exif)
        out = tmp_path / f"out{orientations[0]}"
        assert main(["evaluate", str(folder), *models, "--score-threshold", "0.1", "--out", str(out)]) == 0
        figures.append([(out / name).read_text() for name in ("evaluation.json", "report.html")])
    assert figures[0] == figures[1]
    out = tmp_path / "tiles"
    assert main(["evaluate", str(folder), *models, "--tiles", "64", "--out", str(out)]) == 0
    in_tiles, whole = json.loads((out / "evaluation.json").read_text()), json.loads(figures[0][0])
    assert (
        in_tiles["notes"][0] == "Images were looked at in tiles too: tiles 64." and in_tiles["boxes"] != whole["boxes"]
    )
    assert len(in_tiles["notes"]) == len(whole["notes"]) + 1


def test_every_segmenter_is_looked_for_before_the_first_is_asked(
    write_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.evaluation.answers.ask", None)
    several = ("--segmenter", "demo-sam", "--segmenter", "no/such")
    assert main(["evaluate", str(write_data(coco(BOXES))), *several, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("box2mask: --segmenter no/such: there is no such folder")


def test_boxes_alone_are_measured_by_a_service_and_from_a_file_whatever_the_settings_here(
    service: Any, write_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOX2MASK_DETECTOR", "none")
    folder = write_data(coco(BOXES, segmentation=[]))
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(coco(BOXES, segmentation=[], score=0.8)))
    for options in (("--url", service.url), ("--predictions", str(file))):
        assert main(["evaluate", str(folder), *options, "--out", str(tmp_path / "out")]) == 0
        document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
        assert document["boxes"]["objects"] == 3 and document["masks"] == []


def test_predictions_are_measured_without_any_model(
    write_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOX2MASK_DETECTOR", "no/such/folder")
    folder = write_data(coco(BOXES))
    predictions = coco([[[10, 10, 40, 24], [70, 20, 30, 60]], [], [[5, 5, 20, 20]]], score=0.8)
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(predictions))
    assert main(["evaluate", str(folder), "--predictions", str(file), "--out", str(tmp_path / "out")]) == 0
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (document["boxes"]["precision"], document["boxes"]["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert document["average_iou"] == pytest.approx((12 / 15 + 1) / 2)
    assert document["average_accuracy"] == pytest.approx((1 - 3 * 40 / (HEIGHT * WIDTH) + 1) / 2)
    assert document["average_iou_all_objects"] == pytest.approx((12 / 15 + 1) / 3)
    assert document["average_of"] == {"segmenter": "mine.json", "prompts": "detected"}
    assert "mine.json" in capsys.readouterr().out
    assert "data:image/jpeg" in (tmp_path / "out" / "report.html").read_text()


def test_a_list_of_results_is_measured_by_the_ids_of_the_data(
    write_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(coco(BOXES))
    found = coco([[[10, 10, 40, 24], [70, 20, 30, 60]], [], [[5, 5, 20, 20]]], score=0.8)["annotations"]
    listed = [{key: one[key] for key in ("image_id", "category_id", "bbox", "score")} for one in found]
    file = tmp_path / "results.bbox.json"
    file.write_text(json.dumps([*listed, listed[0] | {"image_id": 999}, listed[0] | {"bbox": [1, 2]}]))
    command = ["evaluate", str(folder), "--predictions", str(file), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "entry 4: image" in (said := capsys.readouterr().err) and "--skip-bad leaves them out" in said
    assert main([*command, "--skip-bad"]) == 0
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (document["boxes"]["detections"], document["boxes"]["right"]) == (3, 2)
    said = capsys.readouterr().err
    assert "1 entries are of images that are not in the data set" in said and "1 of 5 entries are left out" in said
    assert main([*command[:2], "--category-ids", "from-0"]) == 1
    assert "--category-ids: expected with --predictions" in capsys.readouterr().err


def test_a_result_that_is_worse_than_an_earlier_one_fails_and_says_by_which_figure(
    write_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(coco(BOXES))
    file, earlier = tmp_path / "mine.json", tmp_path / "good" / "evaluation.json"

    def evaluate(boxes: list[list[list[int]]], out: str, *options: str) -> int:
        """Of predictions whose masks are the upper halves of their boxes."""
        file.write_text(json.dumps(coco(boxes, score=0.8)))
        return main(["evaluate", str(folder), "--predictions", str(file), "--out", str(tmp_path / out), *options])

    assert evaluate(BOXES, "good") == 0
    gate = ("--not-worse-than", str(earlier))
    capsys.readouterr()
    assert evaluate(BOXES, "again", *gate) == 0  # as good is not worse
    told = capsys.readouterr()
    assert f"Compared with {earlier}" in told.out and told.err == ""
    lower = [[[10, 10, 40, 24], [70, 20, 30, 60]], *BOXES[1:]]  # IoU of box and mask 0.8 in one of three
    assert evaluate(lower, "lower", *gate) == 1
    told = capsys.readouterr()
    mean = (0.8 + 1 + 1) / 3
    assert told.err.startswith(f"box2mask: worse than {earlier}: mAP of boxes 0.") and told.err.count("\n") == 1
    assert told.err.endswith(f"IoU of masks (detected), none as 0 {mean:.4f}, was 1.0000\n")
    assert "-0.067" in told.out and (tmp_path / "lower" / "evaluation.json").exists()
    was, now = (json.loads((tmp_path / one / "evaluation.json").read_text()) for one in ("good", "lower"))
    fell = was["boxes"]["coco"]["mAP"] - now["boxes"]["coco"]["mAP"]
    assert 1 - mean < fell < 0.2, "boxes fell more than masks"
    assert evaluate(lower, "lower", *gate, "--by", "0.07") == 1
    assert "by more than 0.07: mAP of boxes" in (said := capsys.readouterr().err) and "IoU of masks" not in said
    assert evaluate(lower, "lower", *gate, "--by", "0.2") == 0
    # The other way round it is better; and a mask that is not found at all counts as 0.
    assert evaluate(BOXES, "better", "--not-worse-than", str(tmp_path / "lower" / "evaluation.json")) == 0
    assert evaluate([BOXES[0], [], []], "missed", *gate, "--by", "0.3") == 1
    assert f"IoU of masks (detected), none as 0 {2 / 3:.4f}, was 1.0000" in capsys.readouterr().err
    assert evaluate(BOXES, "good", *gate) == 1
    assert "its evaluation.json is to be compared with: expected another folder" in capsys.readouterr().err


def test_what_measured_something_else_is_nothing_to_compare_with(
    write_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_data(coco(BOXES))
    file, out = tmp_path / "mine.json", tmp_path / "out"
    file.write_text(json.dumps(coco(BOXES, score=0.8)))
    command = ["evaluate", str(folder), "--predictions", str(file), "--out", str(out)]
    assert main(command) == 0
    good = json.loads((out / "evaluation.json").read_text())
    command += ["--not-worse-than", str(tmp_path / "other.json")]
    unanswered = {"failures": [{"image": "9.png", "reason": "none"}]}
    for change, said in (
        ({"data": good["data"] | {"images": 4}}, "is of other data: of 4 images of can; here are 3 of can"),
        ({"data": good["data"] | {"images": 2}} | unanswered, "other images of it were answered: images 2 there, 3 h"),
        ({"data": good["data"] | {"classes": {"box": 3}}}, "is of other data: of 3 images of box; here are 3 of can"),
        ({"data": good["data"] | {"objects": 5}}, "is of other data, or other images of it were answered: objects 5"),
        ({"score_threshold": 0.5}, "is of --score-threshold 0.5, and this of 0.3: expected the same"),
        ({"masks": []}, "do not both have IoU of masks (detected), none as 0: expected the same --prompts"),
        ({"boxes": None}, "do not both have mAP of boxes: expected the same --prompts"),
        ({"masks": good["masks"] * 2}, "do not both have IoU of masks (detected, row 2), none as 0"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(good | change))
        assert main(command) == 1
        assert said in capsys.readouterr().err
    (tmp_path / "other.json").write_text(json.dumps(good | {"data": good["data"] | {"name": "elsewhere"}}))
    assert main(command) == 0


def test_data_that_cannot_be_used_is_told_with_every_reason(
    write_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = coco(BOXES)
    content["annotations"][0]["bbox"] = [1, 2]
    content["annotations"][2]["category_id"] = 7
    folder = write_data(content)
    assert main(["evaluate", str(folder), "--out", str(tmp_path / "out")]) == 1
    first, second = [line for line in capsys.readouterr().err.splitlines() if "annotations[" in line]
    assert "annotations[0]" in first and "bbox" in first and "annotations[2]" in second
    assert not (tmp_path / "out" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (coco(BOXES), ("--url", "http://localhost:1", "--detector", "none"), "--url and --detector exclude each other"),
        (coco(BOXES), ("--predictions", "x.json", "--url", "u"), "--predictions and --url exclude each other"),
        (coco(BOXES), ("--predictions", "no/x.json"), "no/x.json"),
        (coco(BOXES), ("--predictions", "x.json", "--prompts", "detected"), "--predictions and --prompts exclude"),
        (coco(BOXES), ("--url", "http://localhost:1", "--device", "cpu"), "--url and --device exclude each other"),
        (coco(BOXES), ("--detector", "no/such"), "--detector no/such: there is no such folder"),
        (coco(BOXES), ("--url", "http://127.0.0.1:1"), "there is no box2mask service"),
        (coco([[], []]), (), "there is nothing to measure: it has no annotations"),
        (coco(BOXES), ("--tile-merge", "fusion"), "--tile-merge: expected with --tiles"),
        (coco(BOXES), ("--tiles", "64", "--predictions", "x.json"), "--predictions and --tiles exclude each other"),
        (coco(BOXES, segmentation=[]), ("--detector", "none"), "it has no masks, and there is no detector"),
        (coco(BOXES), ("--by", "0.1"), "--by: expected with --not-worse-than"),
        (coco(BOXES), ("--not-worse-than", "no/e.json"), "no/e.json: expected the evaluation.json of an earlier"),
        (coco(BOXES), ("--not-worse-than", __file__), "of an earlier `box2mask evaluate`, found another file"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    content: dict[str, Any],
    options: tuple[str, ...],
    message: str,
    write_data: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["evaluate", str(write_data(content)), *options, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert told.startswith("box2mask: ") and message in told


@pytest.mark.parametrize(
    "options", [("--prompts", "boxes"), ("--score-threshold", "1.5"), ("--score-threshold", "x"), ("--prefix", "a")]
)
def test_options_that_cannot_be_understood(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", "photos", *options])
    assert exit_.value.code == 2 and f"{options[0]}: expected" in capsys.readouterr().err
