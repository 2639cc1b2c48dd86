"""`box2mask run --ray` on several machines: what a machine that goes costs."""

from __future__ import annotations

from pathlib import Path

from tests.ray.folders import Toll, ended, photos, running, shards, toll, until
from tests.ray.nodes import cluster


def test_a_machine_that_goes_costs_no_photo(tmp_path: Path) -> None:
    images, out = photos(tmp_path / "photos", 60), tmp_path / "out"
    with (
        cluster(head_cpus=1, workers=2, cpus=1) as machines,
        running(images, out, machines.address, "--actors", "2", "--actor-cpus", "0.7") as run,
    ):
        until(lambda: len(shards(out)) >= 5, run)
        machines.workers[0].kill()
        said = ended(run)
    assert said["done"] == 60 and said["failed"] == 0
    assert toll(images, out) == Toll(lost=0, doubled=0, wrong=0)
    assert not (out / "journal").exists()
