"""What the playground gives away: files, and the last request as a program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.app.playground.conftest import SAMPLES, Visit, api, encoded, mask_of

# pycocotools' decode() has not learnt numpy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WALL = SAMPLES / "wall.jpg"


def downloaded(visit: Visit, button: str) -> tuple[str, bytes]:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name=button, exact=True).first.click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def grey(content: bytes) -> np.ndarray:
    with Image.open(BytesIO(content)) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.array(image)


def test_every_file_has_what_the_service_found(visit: Visit) -> None:
    visit.open(WALL)
    visit.page.get_by_label("Score at least").fill("50")
    visit.click_button("Segment all")
    visit.page.mouse.click(*visit.at(0.2, 0.7))
    visit.settle()
    boxes = api(visit.service, "pipeline/score", {"image": encoded(WALL)}, score_threshold=0.5, exif_orientation=True)[
        "boxes"
    ]
    table = visit.last_body()["input_data"]
    columns = dict(zip(table["columns"], table["data"][0], strict=True)) | {"image": encoded(WALL)}
    (prediction,) = api(visit.service, "sam/score", columns, exif_orientation=True)["predictions"]
    masks = [mask_of(box["mask_per_prediction"][0]) for box in boxes] + [mask_of(prediction["mask_per_prediction"][0])]
    assert len(masks) >= 3

    name, content = downloaded(visit, "Masks (ZIP)")
    assert name == "wall-masks.zip"
    with ZipFile(BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1] == f"{len(masks):03d}-object-1.png"
        files = [grey(archive.read(entry)) for entry in archive.namelist()]
    assert all(np.array_equal(file, 255 * mask) for file, mask in zip(files, masks, strict=True))

    _, content = downloaded(visit, f"Download the mask of {visit.names()[0]}")
    assert np.array_equal(grey(content), 255 * masks[0])
    _, content = downloaded(visit, "Union (PNG)")
    assert np.array_equal(grey(content), 255 * np.logical_or.reduce(masks))

    _, content = downloaded(visit, "Label map (PNG)")
    wanted = np.zeros_like(masks[0], np.uint8)
    for place in sorted(range(len(masks)), key=lambda place: -masks[place].sum()):
        wanted[masks[place]] = place + 1
    assert np.array_equal(grey(content), wanted)

    _, content = downloaded(visit, "COCO (JSON)")
    coco = json.loads(content)
    assert coco["images"] == [{"id": 1, "file_name": "wall.jpg", "width": 1024, "height": 768}]
    categories = {entry["id"]: entry["name"] for entry in coco["categories"]}
    labels = [*(box["label"] for box in boxes), "object"]
    assert [categories[entry["category_id"]] for entry in coco["annotations"]] == labels
    for annotation, mask in zip(coco["annotations"], masks, strict=True):
        assert np.array_equal(coco_mask.decode(annotation["segmentation"]), mask)
        assert annotation["area"] == mask.sum()

    _, content = downloaded(visit, "Polygons (JSON)")
    ((row),) = json.loads(content)
    for entry, mask in zip(row["boxes"], masks, strict=True):
        flat = [(np.reshape(ring, (-1, 2)) * (1024, 768)).ravel().tolist() for ring in entry["polygon"]]
        filled = coco_mask.decode(coco_mask.frPyObjects(flat, 768, 1024)).any(axis=2)
        assert np.array_equal(filled, mask)

    _, content = downloaded(visit, "Overlay (PNG)")
    with Image.open(BytesIO(content)) as overlay, Image.open(WALL) as photo:
        difference = np.abs(np.array(overlay.convert("RGB"), int) - np.array(photo, int)).max(axis=2)
    assert (difference > 8)[masks[1]].mean() > 0.9


def test_polygons_are_those_of_the_masks_however_many_each_prompt_gave(visit: Visit) -> None:
    visit.open(WALL)
    for masks, percent in (("Three", "10"), ("One", "70")):
        visit.page.get_by_label(masks, exact=True).check(force=True)
        visit.page.get_by_label("Score at least").fill(percent)
        visit.click_button("Segment all")
    visit.page.get_by_label("Score at least").fill("10")
    annotations = json.loads(downloaded(visit, "COCO (JSON)")[1])["annotations"]
    before = len(visit.answers)
    ((row),) = json.loads(downloaded(visit, "Polygons (JSON)")[1])
    asked = [json.loads(one.request.post_data or "")["params"] for one in visit.answers[before:]]
    assert sorted(params["multimask_output"] for params in asked) == [False, True]
    for entry, annotation in zip(row["boxes"], annotations, strict=True):
        flat = [(np.reshape(ring, (-1, 2)) * (1024, 768)).ravel().tolist() for ring in entry["polygon"]]
        filled = coco_mask.decode(coco_mask.frPyObjects(flat, 768, 1024)).any(axis=2)
        assert np.array_equal(filled, coco_mask.decode(annotation["segmentation"]))


def test_a_label_map_is_refused_where_two_objects_would_be_one(visit: Visit) -> None:
    visit.open()
    made = """async count => {
        const { labelMapPng } = await import("./playground/files.js");
        const mask = { area: 1, stampInto: () => {} };
        await labelMapPng({ width: 1, height: 1 }, Array(count).fill({ best: { mask } }));
    }"""
    visit.page.evaluate(made, 255)
    with pytest.raises(Exception, match="at most 255 objects"):
        visit.page.evaluate(made, 256)


def copied(visit: Visit, language: str) -> str:
    visit.page.get_by_role("button", name=language, exact=True).click()
    visit.page.get_by_text("Copied. It reads").wait_for()
    return str(visit.page.evaluate("() => navigator.clipboard.readText()"))


@pytest.mark.parametrize("request_of", ["boxes", "point"])
def test_the_last_request_is_copied_as_programs_that_give_the_pages_answer(
    visit: Visit, tmp_path: Path, request_of: str
) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    photo = tmp_path / 'it\'s 100% "mine" \\n $HOME é.jpg'
    shutil.copy(WALL, photo)
    visit.open(photo)
    if request_of == "boxes":
        visit.click_button("Detect")
    else:
        visit.page.mouse.click(*visit.at(0.55, 0.5))
        visit.settle()
    shown = visit.answers[-1].json()
    curl = copied(visit, "curl")
    programs = {"curl": ["bash", "-c", curl], "Python": [sys.executable, "-c", copied(visit, "Python")]}
    assert len(curl) < 1000  # names the file, and does not bring it along
    if shutil.which("node"):
        programs["JavaScript"] = ["node", "--input-type=module", "-e", copied(visit, "JavaScript")]
    for language, command in programs.items():
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (language, done.stderr)
        assert json.loads(done.stdout) == shown, language
