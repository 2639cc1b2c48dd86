"""The files of `box2mask run`, loaded into a real Label Studio by the steps of docs/labelling.md."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.data import load
from tests.app.conftest import COMMAND, REPOSITORY, environment
from tests.label_studio.conftest import LONGER, SIZE_HW
from tests.label_studio.real_server import LabelStudio


@pytest.mark.parametrize(
    "linked", [pytest.param(False, id="folder", marks=LONGER), pytest.param(True, id="symbolic link")]
)
def test_the_import_file_is_taken_by_the_documents_steps(
    studio: LabelStudio, photos: list[Path], tmp_path: Path, linked: bool
) -> None:
    folder = photos[0].parent
    if linked:  # Label Studio's root has the link; the photos are elsewhere
        folder = studio.files / "linked photos"
        real = tmp_path / "elsewhere"
        real.mkdir()
        for path in photos:
            (real / path.name).write_bytes(path.read_bytes())
        folder.symlink_to(real)
    out = tmp_path / "labels"
    models = {"BOX2MASK_DETECTOR": "demo-yolof", "BOX2MASK_SEGMENTER": "demo-sam", "BOX2MASK_DEVICE": "cpu"}
    command = [*COMMAND, "run", str(folder), "--out", str(out), "--formats", "label-studio"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(models), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    # Steps 2 to 4.
    project = studio.project((out / "label_studio.xml").read_text())
    storage = {"project": project, "path": str(folder), "use_blob_urls": True}
    studio.ask("POST", "/api/storages/localfiles", json=storage)
    studio.ask("POST", f"/api/projects/{project}/import", json=json.loads((out / "label_studio.json").read_text()))

    tasks = [studio.task(one["id"]) for one in studio.tasks(project)]
    assert len(tasks) == len(photos)
    for task in tasks:
        with studio.client() as client:
            served = client.get(task["data"]["image"])
        assert served.is_success and served.headers["content-type"] == "image/jpeg"
        assert served.content in [path.read_bytes() for path in photos]
        assert len(task["predictions"]) == 1 and task["predictions"][0]["result"]

    # And back again.
    studio.act(project, "predictions_to_annotations")
    back = load(studio.export(project, "JSON", tmp_path / "back"), images=folder)
    before = load(out / "label_studio.json", images=folder)
    assert [len(image.annotations) for image in back.images] == [len(image.annotations) for image in before.images]
    assert sum(len(image.annotations) for image in back.images) >= 9
    for image, other in zip(
        sorted(back.images, key=lambda one: one.name), sorted(before.images, key=lambda one: one.name), strict=True
    ):
        assert image.name == other.name and image.size_hw == SIZE_HW
        for one, its in zip(image.annotations, other.annotations, strict=True):
            assert one.has_mask and (one.label, one.box_xyxy) == (its.label, its.box_xyxy)
            assert np.array_equal(one.mask(SIZE_HW), its.mask(SIZE_HW))
