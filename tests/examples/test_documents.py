"""Documents that lead somewhere step by step: their commands, run in order beside some photos, and what they leave."""

from __future__ import annotations

import ast
import json
import shutil
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from examples.mask_rcnn_set import MaskRcnnSet
from models.demo.scenes import render_scene
from tests.examples.conftest import scripted
from tests.examples.fences import REPOSITORY, blocks_of, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Path:
    """A folder as a reader has it: photos, one of them in a folder of its own, and the examples."""
    path = tmp_path_factory.mktemp("reader")
    (path / "photos").mkdir()
    for seed in (3, 5):
        scene = render_scene(np.random.default_rng(seed), (180, 240), containers=(2, 2))
        Image.fromarray(scene.image).save(path / "photos" / f"{seed}.jpg", quality=95)
    shutil.copytree(REPOSITORY / "examples", path / "examples")
    shutil.copy(photo, path / "photo.jpg")
    return path


def follow(document: str, folder: Path, url: str, *languages: str) -> str:
    """Run the document's blocks of these languages in order; gives all that they print."""
    printed = ""
    for block in blocks_of(REPOSITORY / "docs" / document):
        if block.language not in languages:
            continue
        script = block.text.replace("http://localhost:5001", url)
        if block.language == "python":
            script = f"python - <<'THE END OF IT'\n{script}\nTHE END OF IT"
        # A service that runs has the models loaded; the numbers are the same.
        script = script.replace("box2mask run photos", f"box2mask run photos --url {url}")
        done = run(script, folder)
        assert done.returncode == 0, f"{document}:{block.line}: {done.stderr}"
        printed += done.stdout.rstrip("\n") + "\n" if done.stdout else ""
    return printed


def test_the_quick_start_ends_with_masks(folder: Path, service: Any) -> None:
    printed = follow("quickstart.md", folder, service.url, "bash")
    with Image.open(folder / "photo.jpg") as asked, Image.open(folder / "mask.png") as mask:
        assert asked.size == mask.size and set(np.unique(np.asarray(mask))) == {0, 255}
    assert (folder / "overlay.png").is_file() and "topX" in printed
    # The page that it sends its reader to is another's to test.
    text = (REPOSITORY / "docs" / "quickstart.md").read_text()
    assert "http://localhost:5001/playground" in text


def test_migrating_is_a_change_of_address(
    folder: Path, service: Any, monkeypatch: pytest.MonkeyPatch, photo: Path
) -> None:
    monkeypatch.setenv("SCORING_KEY", "a key")
    shutil.copy(photo, folder / "photo.jpg")
    row = {"columns": ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]}
    prelude = "import httpx, base64, json\nimage = base64.b64encode(open('photo.jpg', 'rb').read()).decode()\n"
    for name, schema in (("azure", "live"), ("box2mask", "card")):
        prelude += (
            f"request = {{'input_data': {row | {'data': [['IMAGE', '', '[[246, 140, 326, 287]]', '', False]]}},"
            f" 'params': {{'response_schema': '{schema}'}}}}\n".replace("'IMAGE'", "image")
            + f"answer = httpx.post('{service.url}/score', json=request, timeout=300).raise_for_status().text\n"
            + f"open('{name}.json', 'w').write(answer)\n"
        )
    (folder / "ask.py").write_text(prelude)
    assert run("python ask.py", folder).returncode == 0
    printed = follow("migrating.md", folder, service.url, "bash", "python")
    by_requests, by_curl, comparison = printed.splitlines()
    boxes = ast.literal_eval(by_requests)
    assert boxes and comparison == "1.0"
    for one, other in zip(boxes, json.loads(by_curl)[0]["boxes"], strict=True):
        assert one["label"] == other["label"] and one["score"] == pytest.approx(other["score"], abs=1e-3)


def test_labelling_leaves_files_to_import(folder: Path, service: Any) -> None:
    follow("labelling.md", folder, service.url, "bash")
    names = ["3.jpg", "5.jpg"]
    tasks = json.loads((folder / "labels" / "label_studio.json").read_text())
    root = "/data/local-files/?d="  # of the folder around the photos, as the document says
    assert [task["data"]["image"] for task in tasks] == [f"{root}photos/{name}" for name in names]
    assert all((folder / task["data"]["image"].removeprefix(root)).is_file() for task in tasks)
    regions = [region for task in tasks for region in task["predictions"][0]["result"]]
    controls = {one.get("name"): one for one in ElementTree.parse(folder / "labels" / "label_studio.xml").getroot()}
    assert regions and {region["from_name"] for region in regions} <= controls.keys()
    for region in regions:
        (label,) = region["value"][region["type"]]
        assert label in [one.get("value") for one in controls[region["from_name"]]]
    cvat = ElementTree.parse(folder / "labels" / "cvat.xml").getroot()
    assert [image.get("name") for image in cvat.findall("image")] == names
    known = {name.text for name in cvat.findall("meta/task/labels/label/name")}
    masks = cvat.findall("image/mask")
    assert len(masks) == len(regions) / 2 and {mask.get("label") for mask in masks} <= known


@pytest.fixture(scope="module")
def training_sets(folder: Path, service: Any) -> str:
    """What the commands of that document print; their files are in the folder."""
    return follow("training-sets.md", folder, service.url, "bash")


def test_training_sets_hold_the_masks_that_were_found(folder: Path, training_sets: str) -> None:
    printed = training_sets
    data = COCO(str(folder / "results" / "coco.json"))
    assert "2 of 2 photos answered" in printed and printed.count("(3, 180, 240): ") == 2
    for entry in data.dataset["images"]:
        annotations = data.loadAnns(data.getAnnIds(imgIds=[entry["id"]]))
        lines = (folder / "results/yolo_seg/labels" / entry["file_name"]).with_suffix(".txt").read_text().splitlines()
        assert len(lines) == len(annotations)
        answer = json.loads((folder / "answers" / f"{entry['file_name']}.json").read_text())
        assert [box["label"] for box in answer["boxes"]] == [
            data.cats[one["category_id"]]["name"] for one in annotations
        ]

    dataset = MaskRcnnSet(folder / "results" / "coco.json", folder / "photos")
    assert dataset.class_names == ["background", "can", "carton", "milk_bottle", "water_bottle"]
    assert len(data.anns) >= 2
    for index, entry in enumerate(data.dataset["images"]):
        image, target = dataset[index]
        annotations = data.loadAnns(data.getAnnIds(imgIds=[entry["id"]]))
        assert image.shape == (3, 180, 240) and image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1
        assert target["labels"].tolist() == [one["category_id"] for one in annotations]
        for mask, box, one in zip(target["masks"], target["boxes"], annotations, strict=True):
            assert np.array_equal(mask.numpy(), data.annToMask(one))
            x1, y1, x2, y2 = box.int().tolist()
            assert mask[y1:y2, x1:x2].sum() == mask.sum() == one["area"]
    batch = torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=lambda one: tuple(zip(*one, strict=True)))
    ((images, targets),) = batch
    assert len(images) == len(targets) == 2


@pytest.mark.usefixtures("training_sets")
def test_mmdetection_reads_the_same_masks(folder: Path) -> None:
    (config,) = (
        block.text for block in blocks_of(REPOSITORY / "docs" / "training-sets.md") if block.language == "python"
    )
    values: dict[str, Any] = {}
    exec(config, values)
    from models.detector import mmcv_ops

    mmcv_ops.install()
    paths = {"ann_file": str(folder / "results/coco.json"), "data_prefix": {"img": str(folder / "photos")}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MMDetection's own
        from mmdet.registry import DATASETS
        from mmengine.registry import DefaultScope

        with DefaultScope.overwrite_default_scope("mmdet"):
            dataset = DATASETS.build(values["dataset"] | paths)
    data = COCO(paths["ann_file"])
    assert len(dataset) == len(data.imgs)
    for entry in dataset:
        annotations = data.loadAnns(data.getAnnIds(imgIds=[entry["img_id"]]))
        assert not entry["gt_ignore_flags"].any()
        masks = entry["gt_masks"].masks
        assert len(masks) == len(annotations) and all(
            np.array_equal(mask, data.annToMask(one)) for mask, one in zip(masks, annotations, strict=True)
        )


def test_a_batch_goes_on_where_it_stopped(folder: Path, service: Any, tmp_path: Path) -> None:
    command = "python examples/folder_batch.py photos out --url "
    shutil.copytree(folder / "photos", tmp_path / "photos")
    shutil.copytree(folder / "examples", tmp_path / "examples")
    (tmp_path / "photos" / "bad.jpg").write_text("no image")
    first = run(command + service.url, tmp_path)
    assert first.returncode == 1 and "2 of 3 photos answered" in first.stdout
    assert "photos/bad.jpg: 400: " in first.stderr and "Traceback" not in first.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["3.jpg.json", "5.jpg.json"]
    answer = [{"boxes": []}]
    with scripted((429, {"Retry-After": "0"}, {"message": "full"}), (200, {}, answer)) as server:
        second = run(command + server.url, tmp_path)
    assert second.returncode == 0, second.stderr
    assert len(server.came) == 2  # for the one photo that had no answer, which was busy once
    assert json.loads((tmp_path / "out" / "bad.jpg.json").read_text()) == answer[0]
