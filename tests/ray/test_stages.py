"""The stages of a folder's photos on a cluster, one after the other in this process: the results of a plain run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from app.cluster.folders.connecting import ClusterError, Pool, Pools
from app.cluster.folders.models import OpenModels
from app.cluster.folders.stages import Find, Job, read, rows_of, write
from app.folders.batch import process
from app.folders.destination import Destination
from app.folders.image_work import Asked, to_do
from app.folders.journal import Journal
from app.folders.outputs import Outputs
from app.folders.prompts import BoxPrompt, BoxPrompts
from app.folders.sources import Sources, find_images
from app.prediction import Predictor
from app.settings import Settings
from models.demo.scenes import render_scene
from models.images.notes import PhotoNotes

NUMBER = re.compile(r"(?<=[ \[])-?[0-9]+\.[0-9]+(?:e-?[0-9]+)?")
FORMATS = ("masks", "coco", "overlay")
Open = Callable[[], Predictor]


@pytest.fixture(scope="module")
def opens() -> Iterator[dict[str, Open]]:
    """By what they find; models stay loaded."""
    settings = Settings(detector="demo-yolof", segmenter="demo-sam", device="cpu")
    both = OpenModels(settings, (), {"class_agnostic_nms": True})
    made = {"both": both(), "detector": both.alone("detector")(), "segmenter": both.alone("segmenter")()}
    yield {name: (lambda one=one: one) for name, one in made.items()}
    for one in made.values():
        one.close()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("stages") / "photos"
    folder.mkdir()
    for seed, name in enumerate(("_a b.jpg", "b.webp", "c.png", "d.jpg")):
        scene = render_scene(np.random.default_rng(seed), (96, 128), containers=(1, 2), clutter=(0, 1))
        Image.fromarray(scene.image).save(folder / name)
    (folder / "cut.jpg").write_bytes((folder / "d.jpg").read_bytes()[:1500])
    (folder / "text.jpg").write_bytes(b"text")
    return find_images([folder], recursive=False, leave_out=folder.parent / "out")


def journal_of(out: Path) -> tuple[Destination, Journal, Outputs]:
    destination = Destination(out)
    journal = destination.open_journal({"settings": {}}, restart=False)
    return destination, journal, Outputs(out, FORMATS, None, "x", "")


def lines(journal: Journal) -> dict[str, object]:
    return {one.name: (one.to_json(), journal.stamp(one.name)) for one in journal}


@pytest.mark.parametrize("apart", [True, False], ids=["read and written apart", "by the models' processes"])
@pytest.mark.parametrize("kind", ["detector", "two pools", "prompts", "everything"])
def test_stages_give_what_a_plain_run_gives(
    opens: dict[str, Open], sources: Sources, tmp_path: Path, kind: str, apart: bool
) -> None:
    asked = Asked("detector", 0.15, agreement=True)
    prompts = None
    if kind == "prompts":
        asked = Asked("prompts")
        prompts = BoxPrompts({"b.webp": (BoxPrompt((10, 10, 60, 60), "can", 0.5),)}, (), ())
    elif kind == "everything":
        asked = Asked("everything", grid={"points_per_side": 4, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.2})
    models = opens["segmenter" if kind == "prompts" else "both"]
    here, journal, outputs = journal_of(tmp_path / "here")
    summary = process(sources, asked.predict(models()), journal, outputs, prompts, PhotoNotes(), in_networks=1)
    there, other, outputs_there = journal_of(tmp_path / "there")
    job = Job(asked, outputs_there, there.place, there.number, {})
    block = rows_of(list(to_do(sources, other, outputs_there, prompts)))
    if apart or kind == "two pools":
        (block,) = read(block, job)
    if kind == "two pools":
        boxes = replace(job, asked=Asked("detector", 0.15, "none"))
        block = Find(opens["detector"], boxes, boxes_alone=True)(block)
        block = Find(opens["segmenter"], replace(job, asked=Asked("prompts", agreement=True)), writes=not apart)(block)
    else:
        block = Find(models, job, reads=not apart, writes=not apart)(block)
    rows = (write(block, job) if apart else block).to_pylist()
    there.gather(other)
    assert {row["name"] for row in rows if row["failed"]} == {"cut.jpg", "text.jpg"} and summary.failed == 2
    failed = {
        one["image"]: one["reason"]
        for one in map(json.loads, (tmp_path / "here/failed.jsonl").read_text().splitlines())
    }
    assert failed == {row["name"]: row["failed"] for row in rows if row["failed"]}
    assert_alike(lines(other), lines(journal))
    own = [{path.relative_to(one) for path in one.rglob("*.*g")} for one in (tmp_path / "here", tmp_path / "there")]
    assert own[0] == own[1] and len(own[0]) > 4
    here.close(journal)
    there.close(other)


def assert_alike(found: dict[str, object], wanted: dict[str, object]) -> None:
    """The same but for the last digits of numbers; masks are texts, and the very same."""
    ours, theirs = (json.dumps(one) for one in (found, wanted))
    assert NUMBER.sub("", ours) == NUMBER.sub("", theirs)
    numbers = [[float(text) for text in NUMBER.findall(one)] for one in (ours, theirs)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-4) and len(numbers[0]) > 4


def test_a_block_that_is_done_again_is_the_same_shard(opens: dict[str, Open], sources: Sources, tmp_path: Path) -> None:
    there, journal, outputs = journal_of(tmp_path / "out")
    job = Job(Asked("detector", 0.15), outputs, there.place, there.number, {})
    block = Find(opens["both"], job)(pa.concat_tables(read(rows_of(list(to_do(sources, journal, outputs, None))), job)))
    write(block, job)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out/journal").iterdir()}
    write(block, job)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out/journal").iterdir()} == before
    assert len(before) == 1
    there.close(journal)  # as if killed here: the next run finds the shard, whichever kind of run it is
    there, journal, outputs = journal_of(tmp_path / "out")
    assert to_do(sources, journal, outputs, None).resumed == 4 and not (tmp_path / "out/journal").exists()
    there.close(journal)


def test_reading_and_writing_need_no_pytorch() -> None:
    program = "import sys, app.cluster.folders.stages, benchmarks.sleeping_models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize(
    ("asked", "gpus", "cpus", "models", "detector"),
    [
        (Pools(Pool()), 0, 4, (4, 0), None),
        (Pools(Pool()), 2, 32, (2, 1), None),
        (Pools(Pool(gpus=0.25)), 2, 32, (8, 0.25), None),
        (Pools(Pool(), Pool()), 2, 32, (2, 0.5), (2, 0.5)),
        (Pools(Pool(actors=3), Pool(actors=1, gpus=0)), 3, 8, (3, 0.5), (1, 0)),
        (Pools(Pool(), Pool()), 0, 4, (2, 0), (2, 0)),
    ],
)
def test_actors_suit_the_cluster(
    asked: Pools, gpus: float, cpus: float, models: tuple[int, float], detector: tuple[int, float] | None
) -> None:
    found = asked.suited(gpus, cpus)
    assert [(one.actors, one.gpus) for one in found.every] == [models, *([detector] if detector else [])]
    assert sum((one.cpus or 0) * (one.actors or 0) for one in found.every) <= 0.9 * cpus


def test_files_go_from_process_to_process_where_that_spares_a_gpu_or_is_asked_for() -> None:
    for asked, reads, writes in (
        (Pools(Pool()), True, True),
        (Pools(Pool(gpus=0.5)), False, False),
        (Pools(Pool(gpus=1), Pool(gpus=0)), False, False),
        (Pools(Pool(gpus=0), Pool(gpus=0)), False, True),
        (Pools(Pool(), separate_io=True), False, False),
    ):
        pools = asked.suited(float(asked.models.gpus or 0), 4)
        assert (pools.reads, pools.writes) == (reads, writes)


def test_more_than_the_cluster_has_is_said() -> None:
    with pytest.raises(ClusterError, match="they want 5 CPUs, and the cluster has 4 for them"):
        Pools(Pool(actors=5)).suited(0, 4)
    with pytest.raises(ClusterError, match="they want 4 GPUs, and the cluster has 2 for them"):
        Pools(Pool(actors=4)).suited(2, 64)
