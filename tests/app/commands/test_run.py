"""`box2mask run` as its users meet it, with the demo weights: results, going on after a kill, and what it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from app.cli import main
from app.commands import run_options, tile_options
from app.contract import grid_params, tile_params
from app.engine import loading
from app.engine.loading import Choice
from app.folders import outputs
from app.folders.batch import images_in_networks
from app.folders.journal import Journal, JournalError
from app.folders.room import Room
from app.prediction import PredictedObject, Predictor
from app.predictor import LocalPredictor, ServicePredictor
from app.results.image_result import ImageResult
from app.scoring.scorer import PIPELINE_SCORE_THRESHOLD
from app.settings import Settings
from models import uncertainty
from models.data import load
from models.demo.scenes import render_scene
from models.masks.boxes import box_around
from models.masks.cleaning import Cleaning
from models.rle import decode_rle
from models.segmenter.grid import Grid
from tests.app.same_answers import FLOAT32, bounds

pytestmark = pytest.mark.any_dtype

REPOSITORY = Path(__file__).parents[3]
THRESHOLD = "0.15"
Run = Callable[..., int]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run") / "photos"
    for seed, name in enumerate(("a.jpg", "b.png", "sub/a.jpg", "sub/c.webp", "d.bmp", "e.jpg", "f.jpg", "g.jpg")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scene = render_scene(np.random.default_rng(seed), (96, 128), containers=(1, 2), clutter=(0, 1))
        Image.fromarray(scene.image).save(path)
    return root


@pytest.fixture(scope="module")
def loaded() -> Iterator[dict[Settings, LocalPredictor]]:
    predictors: dict[Settings, LocalPredictor] = {}
    yield predictors
    for predictor in predictors.values():
        predictor.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, loaded: dict[Settings, LocalPredictor]) -> Run:
    """`box2mask run` in this process, with the demo weights; gives its exit status.

    Models stay loaded from one command to the next, as loading them is what takes the time.
    """

    def open_predictor(
        settings: Settings, url: str | None, choice: Choice | None, mask_params: dict[str, Any], *, for_folders: bool
    ) -> AbstractContextManager[Predictor]:
        if url is not None:
            return ServicePredictor(url)
        if settings not in loaded:
            loaded[settings] = LocalPredictor(settings, choice, for_folders=for_folders)
        loaded[settings].mask_params = mask_params
        return nullcontext(loaded[settings])

    monkeypatch.setattr("app.predictor.open_predictor", open_predictor)
    for name in os.environ:
        if name.startswith(("BOX2MASK_", "AZUREML_")) and name != "BOX2MASK_DTYPE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("BOX2MASK_DETECTOR", "demo-yolof")
    monkeypatch.setenv("BOX2MASK_SEGMENTER", "demo-sam")
    monkeypatch.setenv("BOX2MASK_DEVICE", "cpu")
    return lambda *arguments: main(["run", *map(str, arguments)])


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run over all photos that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOX2MASK_DETECTOR", "demo-yolof")
        patch.setenv("BOX2MASK_SEGMENTER", "demo-sam")
        patch.setenv("BOX2MASK_DEVICE", "cpu")
        assert main(["run", str(photos), "--out", str(out), "--recursive", "--score-threshold", THRESHOLD]) == 0
    return out


def hashes(out: Path) -> dict[str, str]:
    """Every file but the journal, whose order and times are its own."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "journal.jsonl")
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_same(out: Path, whole: Path) -> None:
    """Same files, though made by two processes, in which the last bit of an `iou_score` may differ."""
    ours, theirs = hashes(out), hashes(whole)
    del ours["coco.json"], theirs["coco.json"]
    assert ours == theirs
    found, wanted = (json.loads((folder / "coco.json").read_text()) for folder in (out, whole))
    scores = [[one.pop("iou_score") for one in data["annotations"]] for data in (found, wanted)]
    assert found == wanted and scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_the_results_of_every_format_are_of_the_same_objects(whole: Path, photos: Path) -> None:
    data = COCO(str(whole / "coco.json"))
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file())
    assert [one["file_name"] for one in data.dataset["images"]] == names
    assert len(data.anns) >= len(names)
    lines = load(whole / "azureml.jsonl")
    tasks = json.loads((whole / "label_studio.json").read_text())
    cvat = (whole / "cvat.xml").read_text()
    assert [image.path.resolve() for image in lines.images] == [(photos / name).resolve() for name in names]
    for image, line, task in zip(data.dataset["images"], lines.images, tasks, strict=True):
        annotations = data.loadAnns(data.getAnnIds(imgIds=[image["id"]]))
        assert all(one["score"] >= float(THRESHOLD) for one in annotations)
        assert (image["height"], image["width"]) == line.size_hw == (96, 128)
        with Image.open(whole / "overlays" / f"{image['file_name']}.jpg") as overlay:
            assert overlay.size == (128, 96)
        files = sorted((whole / "masks" / image["file_name"]).glob("*"))
        assert [file.name for file in files] == [f"{number:03}.png" for number in range(len(annotations))]
        for annotation, file, other in zip(annotations, files, line.annotations, strict=True):
            mask = data.annToMask(annotation)
            assert (np.asarray(Image.open(file)) == mask * 255).all()
            assert (other.mask((96, 128)) == mask).all()
            assert other.label == data.cats[annotation["category_id"]]["name"]
        assert task["data"]["image"] == "/data/local-files/?d=photos/" + image["file_name"]
        assert sum(one["type"] == "brushlabels" for one in task["predictions"][0]["result"]) == len(annotations)
    assert cvat.count("<mask ") == len(data.anns)
    assert not (whole / "failed.jsonl").exists()


def test_masks_are_cleaned_as_the_options_say(
    run: Run, whole: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (photos / "a.jpg", "--out", tmp_path, "--formats", "coco", "--score-threshold", THRESHOLD)
    options = ("--min-region-area", "30", "--fill-holes", "--largest-part", "--tight-boxes", "--rotated-boxes")
    assert run(*command, *options) == 0
    found = json.loads((tmp_path / "coco.json").read_text())["annotations"]
    plain = json.loads((whole / "coco.json").read_text())
    (image,) = [one["id"] for one in plain["images"] if one["file_name"] == "a.jpg"]
    before = [one for one in plain["annotations"] if one["image_id"] == image]
    assert len(found) == len(before) > 0
    for one, other in zip(found, before, strict=True):
        mask = Cleaning(30, True, True)(decode_rle(other["segmentation"]))
        assert (decode_rle(one["segmentation"]) == mask).all() and one["score"] == other["score"]
        x1, y1, x2, y2 = box_around(mask) or ()
        assert one["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1]) != other["bbox"]
        assert len(one["rotated_box"]) == 8 and "rotated_box" not in other
    assert run(*command) == 1 and "--restart" in capsys.readouterr().err
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.jpg": [[10, 10, 60, 60], [20, 20, 90, 70]]}))
    alone = ("--out", tmp_path / "prompted", "--formats", "coco", "--prompts", boxes)
    assert run(photos / "a.jpg", *alone, "--no-overlaps", "--tight-boxes") == 0
    one, other = json.loads((tmp_path / "prompted" / "coco.json").read_text())["annotations"]
    masks = [decode_rle(entry["segmentation"]) for entry in (one, other)]
    assert not (masks[0] & masks[1]).any() and all(mask.any() for mask in masks)
    assert box_around(masks[0])[2] == pytest.approx(one["bbox"][0] + one["bbox"][2])


def test_photos_are_looked_at_in_tiles(
    run: Run, loaded: dict[Settings, LocalPredictor], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.jpg": [[40, 30, 60, 56]]}))
    command = (photos / "a.jpg", "--out", tmp_path / "out", "--formats", "coco", "--prompts", boxes)
    assert run(*command, "--tiles", "64", "--tile-overlap", "0.4") == 0
    (found,) = json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]
    (predictor,) = [one for one in loaded.values() if one.mask_params.get("tiles")]
    masks = []
    for params in ({"tiles": 64, "tile_overlap": 0.4}, {}):
        predictor.mask_params = params
        masks.append(predictor.segment(photos / "a.jpg", np.array([[40, 30, 60, 56]]))[0].rle)
    assert found["segmentation"] == masks[0] != masks[1]
    capsys.readouterr()
    assert run(*command, "--tiles", "48") == 1 and "--restart" in capsys.readouterr().err


def test_a_yolo_set_is_written_when_it_is_asked_for_and_kept_in_step(
    run: Run, whole: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    assert not (out / "yolo_seg").exists()  # it would hold all photos
    arguments = (photos, "--out", out, "--recursive", "--score-threshold", THRESHOLD)
    assert run(*arguments, "--formats", "yolo-seg") == 0
    assert "8 images, 8 of them from before, " in capsys.readouterr().out
    data = COCO(str(out / "coco.json"))
    rows = 0
    for image in data.dataset["images"]:
        flat = image["file_name"].replace("/", "__")
        assert (out / "yolo_seg" / "images" / flat).read_bytes() == (photos / image["file_name"]).read_bytes()
        lines = (out / "yolo_seg" / "labels" / flat).with_suffix(".txt").read_text().splitlines()
        annotations = data.loadAnns(data.getAnnIds(imgIds=[image["id"]]))
        for annotation, line in zip(annotations, lines, strict=True):
            label, *ring = map(float, line.split())
            absolute = [value * (128, 96)[index % 2] for index, value in enumerate(ring)]
            drawn = coco_mask.decode(coco_mask.frPyObjects([absolute], 96, 128))[..., 0]
            assert (drawn == data.annToMask(annotation)).all() and label == annotation["category_id"] - 1
            rows += 1
    assert rows == len(data.anns)

    assert run(photos / "a.jpg", *arguments[1:], "--formats", "coco", "--restart") == 0
    assert not (out / "yolo_seg").exists()


KILLED = """
import os, signal, sys
from app.folders.journal import Journal
append, done = Journal.append, []

def killed(self, result, *others):
    if len(done) == 3:  # the masks of some images are there, and half a line
        self._file.seek(0, os.SEEK_END)
        self._file.write(b'{"image": "unfini')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, result, *others)
    done.append(result)

Journal.append = killed
from app.cli import main
main(sys.argv[1:])
"""


def test_a_run_that_was_killed_goes_on_to_the_same_results(
    run: Run, whole: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["run", photos, "--out", out, "--recursive", "--score-threshold", THRESHOLD]
    killed = subprocess.run([sys.executable, "-c", KILLED, *map(str, arguments)], cwd=REPOSITORY, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert len((out / "journal.jsonl").read_bytes().splitlines()) == 1 + 3 + 1
    assert not (out / "coco.json").exists()
    assert run(*arguments[1:]) == 0
    assert "8 images, 3 of them from before, " in capsys.readouterr().out
    assert_same(out, whole)
    done = hashes(out)
    before = (out / "journal.jsonl").read_bytes()
    assert run(*arguments[1:]) == 0  # with nothing left to do
    assert "8 images, 8 of them from before, " in capsys.readouterr().out
    assert (out / "journal.jsonl").read_bytes() == before and hashes(out) == done


def test_a_page_of_several_is_run_as_an_image_of_its_own(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    first, second = (Image.open(photos / name).convert("RGB") for name in ("e.jpg", "b.png"))
    first.save(folder / "stack.tif", save_all=True, append_images=[second])
    second.save(folder / "second.png")
    arguments = (folder, "--out", out, "--formats", "coco,overlay", "--score-threshold", THRESHOLD)
    assert run(*arguments, "--page", "2") == 0
    assert "box2mask: 1 image has more than one page or frame" in (said := capsys.readouterr()).err
    assert "number 2 is read" in said.err
    found = COCO(str(out / "coco.json"))
    boxes = {
        image["file_name"]: [one["bbox"] for one in found.imgToAnns[image_id]] for image_id, image in found.imgs.items()
    }
    assert boxes["stack.tif"] == boxes["second.png"] != []
    assert run(*arguments) == 1  # the results there are of another page
    assert "page" in capsys.readouterr().err


def test_bad_files_are_said_skipped_and_tried_again(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    good = (photos / "a.jpg").read_bytes()
    for name, data in {"good.jpg": good, "cut.jpg": good[:1500], "text.png": b"text", "none.gif": b""}.items():
        (folder / name).write_bytes(data)
    Image.new("RGB", (400, 400)).save(folder / "large.png")
    monkeypatch.setenv("BOX2MASK_MAX_IMAGE_PIXELS", "100000")
    arguments = (folder, "--out", out, "--formats", "masks,overlay,coco", "--score-threshold", THRESHOLD)
    assert run(*arguments) == 1
    said = capsys.readouterr()
    formats = "a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"
    reasons = {
        "cut.jpg": "the JPEG image is truncated, damaged or of an unsupported kind (1500 bytes)",
        "large.png": "expected an image of 1 to 100000 pixels, got 400 x 400",
        "none.gif": f"expected {formats}, got 0 bytes",
        "text.png": f"expected {formats}, got 4 bytes that start with b'text'",
    }
    for name, reason in reasons.items():
        assert f"box2mask: {folder / name}: {reason}; skipped\n" in said.err
    assert "4 of 5 images could not be used" in said.err and "1 images, " in said.out
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert {one["image"]: one["reason"] for one in failed} == reasons
    assert [one["file_name"] for one in COCO(str(out / "coco.json")).dataset["images"]] == ["good.jpg"]

    (folder / "cut.jpg").write_bytes(good)  # mended; and one that was good goes bad
    for name in ("large.png", "none.gif", "text.png"):
        (folder / name).unlink()
    (folder / "good.jpg").write_bytes(good[:1000])
    assert run(*arguments) == 1
    assert [json.loads(line)["image"] for line in (out / "failed.jsonl").read_text().splitlines()] == ["good.jpg"]
    assert [one["file_name"] for one in COCO(str(out / "coco.json")).dataset["images"]] == ["cut.jpg"]
    assert [path.name for path in (out / "masks").iterdir()] == ["cut.jpg"]
    assert [path.name for path in (out / "overlays").iterdir()] == ["cut.jpg.jpg"]
    (folder / "good.jpg").unlink()
    assert run(*arguments) == 0
    assert not (out / "failed.jsonl").exists()


def test_other_settings_are_refused_until_a_restart(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(photos / "a.jpg", "--out", out, "--formats", "coco,masks", "--score-threshold", "0.2") == 0
    files = hashes(out)
    capsys.readouterr()
    assert run(photos / "a.jpg", "--out", out) == 1
    assert "made in another way (score_threshold 0.2, now 0.3): give another folder" in capsys.readouterr().err
    assert run(photos / "sub", "--out", out, "--score-threshold", "0.2", "--segmenter", "none") == 1
    said = capsys.readouterr().err
    assert f"images {photos}, now {photos / 'sub'}" in said
    assert f"segmenter demo-sam ({os.environ['BOX2MASK_DTYPE']}, fast, sha256 " in said
    assert hashes(out) == files

    # More images, and another format: the files of before are kept in step.
    assert run(photos / "b.png", "--out", out, "--formats", "cvat,overlay", "--score-threshold", "0.2") == 0
    assert {path.name for path in (out / "overlays").iterdir()} == {"a.jpg.jpg", "b.png.jpg"}
    assert [one["file_name"] for one in COCO(str(out / "coco.json")).dataset["images"]] == ["a.jpg", "b.png"]
    assert "a.jpg" in (out / "cvat.xml").read_text()

    assert run(photos / "b.png", "--out", out, "--formats", "coco", "--restart") == 0
    assert [one["file_name"] for one in COCO(str(out / "coco.json")).dataset["images"]] == ["b.png"]
    assert not (out / "cvat.xml").exists() and not (out / "masks").exists()


def test_boxes_from_elsewhere_prompt_the_segmenter(
    run: Run, whole: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    data = COCO(str(whole / "coco.json"))
    arguments = (photos, "--out", out, "--recursive", "--prompts", whole / "coco.json", "--formats", "coco")
    assert run(*arguments) == 0
    again = COCO(str(out / "coco.json"))
    assert (
        again.dataset["images"] == data.dataset["images"] and again.dataset["categories"] == data.dataset["categories"]
    )
    for one, other in zip(again.dataset["annotations"], data.dataset["annotations"], strict=True):
        assert one["category_id"] == other["category_id"] and one["bbox"] == pytest.approx(other["bbox"], abs=1e-4)
        assert (again.annToMask(one) != data.annToMask(other)).mean() < 0.001

    # Other boxes for one image: it alone is done again.
    prompts = tmp_path / "boxes.json"
    prompts.write_text(json.dumps({"a.jpg": [[10, 10, 60, 80]], "b.png": [], "zzz.jpg": [[1, 1, 2, 2]]}))
    assert run(*arguments[:4], "--prompts", prompts, "--formats", "coco") == 0
    said = capsys.readouterr()
    assert "1 of its images are not among these: zzz.jpg" in said.err and "has no entry for 6 of the images" in said.err
    content = json.loads((out / "coco.json").read_text())
    assert [(one["image_id"], one["bbox"]) for one in content["annotations"]] == [(1, [10, 10, 50, 70])]
    assert [one["name"] for one in content["categories"]] == ["object"]

    prompts.write_text(json.dumps({"a.jpg": [[10, 10, 60, 80], [300, 300, 400, 400]]}))
    assert run(photos / "a.jpg", "--out", tmp_path / "other", "--prompts", prompts) == 1
    assert "a.jpg: input_boxes: box 1: expected a box that meets the image of 128 x 96" in capsys.readouterr().err


def test_objects_are_in_the_image_as_it_is_shown(run: Run, photos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    upright = np.asarray(Image.open(photos / "b.png"))
    for name, orientation, turns in (("a.png", 1, 0), ("b.png", 3, 2), ("c.png", 6, 1), ("d.tiff", 6, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(np.rot90(upright, turns))).save(folder / name, exif=exif)
    assert run(folder, "--out", out, "--formats", "coco,masks,overlay", "--score-threshold", THRESHOLD) == 0
    data = COCO(str(out / "coco.json"))
    found = []
    for image in data.dataset["images"]:
        assert (image["height"], image["width"]) == (96, 128)
        annotations = data.loadAnns(data.getAnnIds(imgIds=[image["id"]]))
        found.append([(one["bbox"], one["score"], one["segmentation"]) for one in annotations])
    assert found[0] and found[1:] == found[:1] * 3
    overlays = {path.read_bytes() for path in (out / "overlays").iterdir()}
    assert len(overlays) == 1

    # Without objects the size is read from the file: from its header, or of given boxes from its pixels.
    (folder / "none.json").write_text(json.dumps({path.name: [] for path in folder.iterdir()}))
    for number, options in enumerate((("--score-threshold", "1"), ("--prompts", folder / "none.json"))):
        assert run(folder, "--out", tmp_path / str(number), "--formats", "coco,overlay", *options) == 0
        for image in json.loads((tmp_path / str(number) / "coco.json").read_text())["images"]:
            assert (image["height"], image["width"]) == (96, 128)


def test_a_detector_alone_gives_boxes_in_every_format_that_has_such(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    one = (photos / "a.jpg", "--out", out, "--segmenter", "none", "--score-threshold", THRESHOLD)
    assert run(*one, "--formats", "coco,masks") == 1
    assert "--formats masks: expected a segmenter to make masks, found none" in capsys.readouterr().err
    assert not out.exists()
    assert run(*one) == 0
    assert {path.name for path in out.iterdir()} == {
        "azureml.jsonl", "coco.json", "cvat.xml", "journal.jsonl", "label_studio.json", "label_studio.xml", "overlays",
    }  # fmt: skip
    data = json.loads((out / "coco.json").read_text())
    assert data["annotations"] and not any(one["segmentation"] for one in data["annotations"])
    (line,) = map(json.loads, (out / "azureml.jsonl").read_text().splitlines())
    assert line["label"][0].keys() == {"label", "isCrowd", "topX", "topY", "bottomX", "bottomY"}
    assert (out / "cvat.xml").read_text().count("<box ") == len(data["annotations"])


def test_a_service_gives_what_this_process_gives(
    run: Run, service: Any, model_folders: Any, photos: Path, tmp_path: Path
) -> None:
    arguments = (photos / "a.jpg", photos / "b.png", "--score-threshold", "0.3", "--formats", "coco,masks,jsonl")
    models = ("--detector", model_folders.detector, "--segmenter", model_folders.segmenter)
    assert run(*arguments, "--out", tmp_path / "here", *models) == 0
    assert run(*arguments, "--out", tmp_path / "there", "--url", service.url) == 0
    assert_same(tmp_path / "here", tmp_path / "there")
    assert json.loads((tmp_path / "here" / "coco.json").read_text())["annotations"]


def test_everything_needs_no_detector_and_gives_masks_without_classes(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(points: int) -> list[Any]:
        loose = ["--pred-iou-thresh", "0.4", "--stability-score-thresh", "0.7"]
        return [photos / "a.jpg", "--out", tmp_path / "out", "--everything", "--points-per-side", points, *loose]

    assert run(*asked(4)) == 0
    data = json.loads((tmp_path / "out" / "coco.json").read_text())
    scores = [one["iou_score"] for one in data["annotations"]]
    assert len(scores) > 1 and scores == sorted(scores, reverse=True) and min(scores) > 0.4
    for one in data["annotations"]:
        assert "score" not in one
        assert one["bbox"] == coco_mask.toBbox(one["segmentation"]).tolist()
    assert [one["name"] for one in data["categories"]] == ["object"]
    assert len(list((tmp_path / "out" / "masks" / "a.jpg").iterdir())) == len(scores)
    assert run(*asked(4)) == 0
    assert "1 images, 1 of them from before" in capsys.readouterr().out
    assert run(*asked(5)) == 1
    assert "points_per_side" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["empty"], r"empty: expected images \(.jpg, .*found none"),
        (["missing"], "missing: there is no such file or folder"),
        (
            ["a.jpg", "--detector", "none"],
            "there is no detector to find boxes: name one with --detector, or give boxes",
        ),
        (["a.jpg", "--detector", "none", "--segmenter", "none"], "both models are switched off"),
        (
            ["a.jpg", "--detector", "nonsense"],
            "--detector nonsense: there is no such folder, and no weights of that name",
        ),
        (["a.jpg", "--url", "http://127.0.0.1:1"], "http://127.0.0.1:1: there is no box2mask service"),
        (["a.jpg", "--url", "http://x", "--device", "cpu"], "--device: the service at --url has its own"),
        (["a.jpg", "--prompts", "boxes.json"], "boxes.json: a.jpg, box 1: expected .* found \\[3, 2, 1, 4\\]"),
        (["a.jpg", "--prompts", "boxes.json", "--detector", "x"], "--detector: the boxes are those of --prompts"),
        (["a.jpg", "--prompts", "list.json"], "list.json: image_id: found 7, and nothing says .*--prompts-images FILE"),
        (["a.jpg", "--prompts-images", "x.json"], "--prompts-images: expected with --prompts"),
        (["a.jpg", "--boxes", "xyxy"], "--boxes: expected with --prompts"),
        (["a.jpg", "--prompts", "none.json"], "none.json: there is no such file or folder"),
        (["a.jpg", "--prompts", "good.json", "--segmenter", "none"], "both models are switched off"),
        (["a.jpg", "--everything", "--segmenter", "none"], "both models are switched off"),
        (["a.jpg", "--points-per-side", "8"], "--points-per-side: expected with --everything"),
        (["a.jpg", "--everything", "--prompts", "good.json"], "--prompts: --everything asks no detector"),
        (["a.jpg", "--tile-overlap", "0.5"], "--tile-overlap: expected with --tiles"),
        (["a.jpg", "--everything", "--tiles", "64"], "--tiles: --everything looks at parts .* by --crops-n-layers"),
        (["a.jpg", "--everything", "--score-threshold", "0.5"], "--score-threshold: .*--pred-iou-thresh leaves out"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], reason: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jpg").symlink_to(photos / "a.jpg")
    (tmp_path / "boxes.json").write_text('{"a.jpg": [[1, 2, 3, 4], [3, 2, 1, 4]]}')
    (tmp_path / "list.json").write_text('[{"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]')
    (tmp_path / "good.json").write_text('{"a.jpg": [[1, 2, 3, 4]]}')
    assert run(*arguments, "--out", "out") == 1
    said = capsys.readouterr()
    assert re.search(f"^box2mask: .*{reason}", said.err, re.MULTILINE) and "Traceback" not in said.err
    assert said.out == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--formats", "masks,word"],
            "expected any of masks,coco,jsonl,label-studio,cvat,overlay,yolo-seg, found 'masks,word'",
        ),
        (["--formats", ","], "expected any of masks"),
        (["--score-threshold", "2"], "expected a number from 0 to 1, found '2'"),
        (["--score-threshold", "x"], "expected a number from 0 to 1, found 'x'"),
        (["--points-per-side", "2.5"], "expected a whole number from 1 to 256, found '2.5'"),
        (["--pred-iou-thresh", "2"], "expected a number from 0 to 1, found '2'"),
        (["--tiles", "0"], "expected a whole number from 16 to 65536, found '0'"),
        (["--tile-overlap", "1"], "expected a number from 0 to 0.9, found '1'"),
    ],
)
def test_options_are_checked(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "x", "--out", "out", *arguments])
    assert reason in capsys.readouterr().err


def test_what_the_command_says_without_importing_is_so() -> None:
    for name in ("SMALLEST_TILE", "LARGEST_TILE", "MOST_OVERLAP", "MERGES"):
        assert getattr(tile_options, name) == getattr(tile_params, name)
    assert tuple(outputs.NAMES) == run_options.FORMATS
    assert PIPELINE_SCORE_THRESHOLD == run_options.SCORE_THRESHOLD
    for name, (kind, least, most, text) in run_options.GRID.items():
        assert (kind, least, most) == grid_params.LIMITS[name]
        assert text.endswith(f"(default: {getattr(Grid(), name):g})")


@pytest.mark.parametrize(("devices", "alone"), [("cpu", True), ("cuda:0", False), ("cuda:0,cuda:1", False)])
def test_a_processor_gets_one_image_at_a_time_and_gpus_batches(devices: str, alone: bool) -> None:
    predictor: Any = SimpleNamespace(
        description={"detector": {"device": devices}, "segmenter": None}, images_apart=False
    )
    assert (images_in_networks(predictor) == 1) == alone
    predictor.images_apart = True  # the engine sees to it
    assert images_in_networks(predictor) > 1


def test_images_in_work_share_so_much_memory_and_one_that_takes_more_is_alone() -> None:
    room, lock, taken, most = Room(10), threading.Lock(), [0], [0]

    def work(size: int) -> None:
        with room.of(size):
            with lock:
                taken[0] += size
                most[0] = max(most[0], taken[0])
                assert taken[0] <= 10 or taken[0] == size
            with lock:
                taken[0] -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [3, 4, 25, 5, 1, 10, 2] * 40))
    assert taken == [0] and most == [25]


@pytest.mark.parametrize(
    ("threads", "pixels", "lanes"), [(1, 256**2, 1), (2, 256**2, 2), (9, 256**2, 4), (2, 1024**2, 1)]
)
def test_small_networks_see_several_photos_at_once_and_large_ones_one(
    monkeypatch: pytest.MonkeyPatch, threads: int, pixels: int, lanes: int
) -> None:
    of_each: list[int] = []
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr("torch.set_num_threads", of_each.append)
    monkeypatch.setattr(loading, "_load_models", lambda settings, choice: ["another"])
    models: Any = SimpleNamespace(input_pixels=lambda: pixels)
    assert len(loading._more_for_folders(Settings(), Choice(None, None), models)) == lanes - 1
    assert of_each == [threads // lanes]


# The journal

RESULT = ImageResult("a.jpg", (3, 4), (PredictedObject("can", 0.5, (0.0, 0.0, 2.0, 2.0)),))
HEADER = {"settings": {"x": 1}}


def test_a_journal_keeps_the_last_of_an_image_and_forgets_for_good(tmp_path: Path) -> None:
    journal = Journal(tmp_path, HEADER, (), restart=False)
    with pytest.raises(JournalError, match="another run is writing there"):
        Journal(tmp_path, HEADER, (), restart=False)
    newer = ImageResult("a.jpg", (3, 4), ())
    for result, size in (
        (RESULT, 1),
        (ImageResult("Z.jpg", (1, 1), ()), 1),
        (newer, 2),
        (ImageResult("b", (1, 1), ()), 1),
    ):
        journal.append(result, {"size_bytes": size})
    journal.forget("b")
    journal.close()
    journal = Journal(tmp_path, HEADER, (), restart=False)
    assert [one.name for one in journal] == ["Z.jpg", "a.jpg"] and journal.result("a.jpg") == newer
    assert journal.stamp("a.jpg") == {"size_bytes": 2} and journal.stamp("b") is None
    journal.close()


def test_a_folder_that_is_no_runs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text("precious")
    for restart in (False, True):
        with pytest.raises(JournalError, match="found coco.json and no journal.jsonl; give another folder"):
            Journal(tmp_path, HEADER, ("masks", "coco.json"), restart=restart)
    assert (tmp_path / "coco.json").read_text() == "precious"


@pytest.mark.parametrize(
    "line", ["garbage", '{"image": "x"}', "[]", '{"image": "x", "size_hw": [1, 1], "objects": []}']
)
def test_a_damaged_journal_is_said_with_its_line(tmp_path: Path, line: str) -> None:
    journal = Journal(tmp_path, HEADER, (), restart=False)
    journal.append(RESULT, {})
    journal.close()
    with journal.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(JournalError, match=r"journal.jsonl:3: expected a line of a run's journal"):
        Journal(tmp_path, HEADER, (), restart=False)
    journal = Journal(tmp_path, HEADER, (), restart=True)
    assert len(journal) == 0
    journal.close()


@pytest.fixture(scope="module")
def ordered(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an undisturbed `run --order uncertainty`, by a process of its own models."""
    out = tmp_path_factory.mktemp("ordered") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOX2MASK_DETECTOR", "demo-yolof")
        patch.setenv("BOX2MASK_SEGMENTER", "demo-sam")
        patch.setenv("BOX2MASK_DEVICE", "cpu")
        arguments = ["run", str(photos), "--out", str(out), "--recursive", "--score-threshold", THRESHOLD]
        assert main([*arguments, "--order", "uncertainty"]) == 0
    return out


def order_of(out: Path) -> list[dict[str, str]]:
    with (out / "order.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_least_certain_photo_is_the_first_task_and_the_first_line(ordered: Path, whole: Path) -> None:
    tasks, lines = json.loads((ordered / "label_studio.json").read_text()), order_of(ordered)
    priorities = [task["data"]["priority"] for task in tasks]
    assert priorities == sorted(priorities, reverse=True) and len(set(priorities)) > 1
    assert [f"{one:.4f}" for one in priorities] == [line["priority"] for line in lines]
    assert [line["rank"] for line in lines] == [str(rank) for rank in range(1, len(lines) + 1)]
    assert [task["data"]["image"].split("photos/")[1] for task in tasks] == [line["image"] for line in lines]
    for task in tasks:  # Label Studio takes the lowest score first
        assert task["predictions"][0]["score"] == pytest.approx(1 - task["data"]["priority"])
    # Everything else is as without an order: the same objects, and files that go by name.
    found, plain = (json.loads((out / "coco.json").read_text()) for out in (ordered, whole))
    for data in (found, plain):
        for one in data["annotations"]:
            one.pop("iou_score")
    assert found == plain
    assert (ordered / "cvat.xml").read_text() == (whole / "cvat.xml").read_text()


def test_a_photo_is_as_uncertain_as_its_models_answers_say(ordered: Path, photos: Path) -> None:
    line = next(one for one in order_of(ordered) if int(one["objects"]))
    entry = next(
        entry
        for entry in map(json.loads, (ordered / "journal.jsonl").read_text().splitlines()[1:])
        if entry["image"] == line["image"]
    )
    settings = Settings(detector="demo-yolof", segmenter="demo-sam", device="cpu")
    with LocalPredictor(settings) as predictor:
        boxes = np.array([one["box_xyxy"] for one in entry["objects"]])
        three = predictor.three_masks(photos / line["image"], boxes)
        assert predictor.three_masks(photos / line["image"], np.zeros((0, 4))) == []
    assert [len(one) for one in three] == [3] * len(boxes)
    agreements = [uncertainty.mask_agreement(one) for one in three]
    assert [one["mask_agreement"] for one in entry["objects"]] == pytest.approx(agreements, abs=0.01)
    assert float(line["mask_doubt"]) == pytest.approx(1 - np.mean(agreements), abs=0.01)
    doubts = [1 - abs(2 * one["score"] - 1) for one in entry["objects"]]
    assert float(line["score_doubt"]) == pytest.approx(np.mean(doubts), abs=1e-4)


def test_a_run_that_goes_on_gives_the_same_order(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], loaded: dict[Settings, LocalPredictor]
) -> None:
    arguments = ("--recursive", "--score-threshold", THRESHOLD, "--order", "uncertainty", "--formats", "label-studio")
    at_once, bit_by_bit = tmp_path / "at-once", tmp_path / "bit-by-bit"
    assert run(photos, "--out", at_once, *arguments) == 0
    assert run(photos, "--out", bit_by_bit, *arguments) == 0
    journal = bit_by_bit / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:20])  # as a kill leaves it
    (bit_by_bit / "order.csv").unlink()
    assert run(photos, "--out", bit_by_bit, *arguments) == 0
    assert f"{len(lines) - 1} images, 3 of them from before" in capsys.readouterr().out
    if bounds() == FLOAT32:  # in fewer bits the last of them depend on what else was decoded
        for name in ("order.csv", "label_studio.json"):
            assert (at_once / name).read_bytes() == (bit_by_bit / name).read_bytes()
    lists = [(folder / "order.csv").read_text().splitlines() for folder in (at_once, bit_by_bit)]
    assert sorted(line.split(",")[1] for line in lists[0]) == sorted(line.split(",")[1] for line in lists[1])
    assert run(photos, "--out", bit_by_bit, *arguments[:3], *arguments[5:]) == 1  # the journal lacks, or has, agreement
    assert "order uncertainty, now none" in capsys.readouterr().err


def test_an_order_without_a_segmenter_goes_by_scores_alone(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(photos, "--out", out, "--segmenter", "none", "--order", "uncertainty", "--formats", "coco") == 0
    lines = order_of(out)
    assert all(line["priority"] == line["score_doubt"] for line in lines if line["objects"] != "0")
    assert all(line["mask_doubt"] == line["box_doubt"] == "" for line in lines)
    assert any(line["objects"] != "0" for line in lines)
