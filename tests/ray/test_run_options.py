"""`box2mask run --ray` with each kind of work, by the demo models: the files of the run in one process.

All of these with RAY_TESTS=all (`make ray-test`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.ray_batch import differences
from models.demo.scenes import render_scene
from tests.ray.nodes import VARIABLES, Cluster, cluster
from tests.s3 import make_bucket, s3_server

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.environ.get("RAY_TESTS") != "all", reason="takes minutes: RAY_TESTS=all")


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    with cluster(head_cpus=4) as started:
        yield started


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "photos"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(("_a b.jpg", "b.webp", "sub/c.png", "d.jpg", "e.jpg", "f.jpg")):
        scene = render_scene(np.random.default_rng(seed), (96, 128), containers=(1, 2), clutter=(0, 1))
        Image.fromarray(scene.image).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"text")
    (folder / "cut.jpg").write_bytes((folder / "d.jpg").read_bytes()[:1500])
    boxes = {name: [[10, 10, 60, 60], {"box": [20, 5, 90, 80], "label": "can"}] for name in ("b.webp", "d.jpg")}
    (folder.parent / "boxes.json").write_text(json.dumps(boxes))
    return folder


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    models = {"BOX2MASK_DETECTOR": "demo-yolof", "BOX2MASK_SEGMENTER": "demo-sam", "BOX2MASK_DEVICE": "cpu"}
    return subprocess.run(
        [sys.executable, "-m", "app", "run", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | VARIABLES | models | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("options", "more"),
    [
        (["--order", "uncertainty", "--tight-boxes"], []),
        (["--class-agnostic-nms", "--order", "uncertainty"], ["--detector-actors", "1"]),
        (["--prompts", "boxes.json"], []),
        (["--everything", "--points-per-side", "4"], []),
        (["--segmenter", "none"], []),
    ],
)
def test_each_kind_of_work_gives_the_files_of_one_process(
    machines: Cluster, photos: Path, tmp_path: Path, options: list[str], more: list[str]
) -> None:
    options = [str(photos.parent / one) if one.endswith(".json") else one for one in options]
    here = run(photos, "--out", tmp_path / "here", "--recursive", *options)
    there = run(
        photos, "--out", tmp_path / "there", "--recursive", *options, "--ray", machines.address, "--actors", "1", *more
    )
    assert here.returncode == there.returncode == 1, there.stderr
    failed = [
        {tuple(json.loads(line).items()) for line in (tmp_path / name / "failed.jsonl").read_text().splitlines()}
        for name in ("here", "there")
    ]
    assert failed[0] == failed[1] and len(failed[0]) == 2
    assert differences(tmp_path / "here", tmp_path / "there") in ([], ["failed.jsonl"])  # in the order of their ends
    assert here.stdout.split(" in ")[0] == there.stdout.split(" in ")[0]


def test_a_store_is_read_and_written(
    machines: Cluster, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose variables the cluster was not started with."""
    with s3_server() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        make_bucket("shelf")
        from app.folders.storage import place

        for path in photos.rglob("*.jpg"):
            (place("s3://shelf/photos") / path.name).upload(path)
        for out, more in (("here", []), ("there", ["--ray", machines.address, "--actors", "1"])):
            done = run("s3://shelf/photos", "--out", f"s3://shelf/{out}", *more, XDG_CACHE_HOME=str(tmp_path))
            assert done.returncode == 1 and "2 of 6 images could not be used" in done.stderr, done.stderr
        found = []
        for out in ("here", "there"):
            folder = place(f"s3://shelf/{out}")
            assert not isinstance(folder, Path)
            files = {path.under(folder): path.read_bytes() for path, _ in folder.entries(recursive=True)}
            found.append({name: data for name, data in files.items() if name not in ("journal.jsonl", "failed.jsonl")})
        assert found[0] == found[1] and "masks/d.jpg/000.png" in found[0]


def test_weights_that_a_machine_does_not_have_are_said_with_its_name(
    machines: Cluster, photos: Path, tmp_path: Path
) -> None:
    done = run(photos, "--out", tmp_path / "out", "--ray", machines.address, "--detector", "yolof")
    assert done.returncode == 1
    assert "these weights are not here: run `box2mask weights pull yolof`" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
