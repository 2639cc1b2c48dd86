"""Faults in the middle of `box2mask run --ray`, and what each costs: all of these with RAY_TESTS=all (`make ray-test`).

At the end a table is printed: photos lost, doubled and wrong, and the seconds until the next results were there.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.ray.folders import Toll, ended, photos, running, shards, toll, until
from tests.ray.heads import PATIENT, STORES, kept
from tests.ray.nodes import Cluster, Node, cluster

pytestmark = pytest.mark.skipif(os.environ.get("RAY_TESTS") != "all", reason="takes minutes: RAY_TESTS=all")

NONE = Toll(lost=0, doubled=0, wrong=0)
COUNT = 80
OPTIONS = ("--actors", "2", "--actor-cpus", "0.7")
APART = ("--separate-io",)  # as with GPUs: photos and results go from process to process
reading = pytest.mark.parametrize("apart", [(), APART], ids=["", "read and written apart"])
ELSEWHERE = "127.0.0.2"


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[Toll, float]]]:
    rows: dict[str, tuple[Toll, float]] = {}
    yield rows
    lines = ["", "| fault | lost | doubled | wrong | seconds to the next results |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {t.lost} | {t.doubled} | {t.wrong} | {s:.1f} |" for name, (t, s) in rows.items()]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\n".join(lines))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", COUNT)


class Watch:
    """How long it takes until there are more shards than there were."""

    def __init__(self, out: Path) -> None:
        self._out, self._had, self._since = out, len(shards(out)), time.monotonic()

    def more(self) -> bool:
        """Whether a result has come, or all are in the journal."""
        return len(shards(self._out)) > self._had or (self._out / "coco.json").exists()

    def seconds(self) -> float:
        return time.monotonic() - self._since


def finders(nodes: list[Node]) -> list[psutil.Process]:
    """The processes with the models."""
    return [one for node in nodes for one in node.workers() if "MapWorker" in one.cmdline()[0]]


def everywhere(machines: Cluster) -> list[Node]:
    return [machines.head, *machines.workers]


@reading
def test_a_machine_is_killed(
    images: Path, tmp_path: Path, table: dict[str, tuple[Toll, float]], apart: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    with (
        cluster(head_cpus=1, workers=2, cpus=1) as machines,
        running(images, out, machines.address, *OPTIONS, *apart) as run,
    ):
        until(lambda: len(shards(out)) >= 5, run)
        has_actor = next(node for node in machines.workers if finders([node]))
        watch = Watch(out)
        has_actor.kill()
        until(watch.more, run)
        seconds = watch.seconds()
        ended(run)
    table[" ".join(["a machine (its raylet and all under it) killed", *apart])] = toll(images, out), seconds
    assert toll(images, out) == NONE


@reading
def test_a_process_with_models_is_killed(
    images: Path, tmp_path: Path, table: dict[str, tuple[Toll, float]], apart: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    with (
        cluster(head_cpus=3) as machines,
        running(images, out, machines.address, "--actors", "1", *apart) as run,
    ):
        until(lambda: len(shards(out)) >= 5, run)
        (finder,) = finders([machines.head])
        watch = Watch(out)
        finder.kill()
        until(watch.more, run)
        seconds = watch.seconds()
        ended(run)
    table[" ".join(["the only process with models killed", *apart])] = toll(images, out), seconds
    assert toll(images, out) == NONE


def test_the_command_is_killed_and_given_again(
    images: Path, tmp_path: Path, table: dict[str, tuple[Toll, float]]
) -> None:
    out = tmp_path / "out"
    with (
        cluster(head_cpus=3) as machines,
        running(images, out, machines.address, *OPTIONS) as run,
    ):
        until(lambda: len(shards(out)) >= 5, run)
        run.send_signal(signal.SIGKILL)
        run.wait()
        done = sum(len(path.read_bytes().splitlines()) for path in shards(out))
        with running(images, out, machines.address, *OPTIONS) as run:
            until(lambda: not shards(out), run)  # in the journal
            watch = Watch(out)
            until(watch.more, run)
            seconds = watch.seconds()
            said = ended(run)
    assert said["resumed"] >= done > 0 and said["resumed"] + said["done"] == COUNT
    table["the command killed, and given again"] = toll(images, out), seconds
    assert toll(images, out) == NONE


def test_the_head_is_killed_and_another_cluster_goes_on(
    images: Path, tmp_path: Path, table: dict[str, tuple[Toll, float]]
) -> None:
    out = tmp_path / "out"
    with cluster(head_cpus=3) as machines, running(images, out, machines.address, *OPTIONS) as run:
        until(lambda: len(shards(out)) >= 5, run)
        machines.head.kill()
        _, errors = run.communicate(timeout=240)
        assert run.returncode != 0, errors
    done = sum(len(path.read_bytes().splitlines()) for path in shards(out))
    begin = time.monotonic()
    with cluster(head_cpus=3) as machines, running(images, out, machines.address, *OPTIONS) as run:
        until(lambda: not shards(out), run)
        watch = Watch(out)
        until(watch.more, run)
        seconds = time.monotonic() - begin
        said = ended(run)
    assert said["resumed"] >= done > 0
    table["the head killed: the command ends; given again on a new cluster"] = toll(images, out), seconds
    assert toll(images, out) == NONE


@pytest.mark.parametrize("store", STORES)
def test_the_head_comes_back_and_the_command_goes_on(
    images: Path, tmp_path: Path, table: dict[str, tuple[Toll, float]], store: str
) -> None:
    """The command is on another machine, as it ends with the head on the head's own."""
    out, folder = tmp_path / "out", tmp_path / "store"
    folder.mkdir()
    with kept(store, folder) as variables, cluster(head_cpus=0, head_variables=variables) as machines:
        machines.add(cpus=3, ip=ELSEWHERE, variables=PATIENT)
        with running(images, out, machines.address, *OPTIONS, beside=ELSEWHERE, variables=PATIENT) as run:
            until(lambda: len(shards(out)) >= 2, run)
            watch = Watch(out)
            machines.head.kill()
            machines.head_comes_back()
            until(watch.more, run)
            seconds = watch.seconds()
            said = ended(run)
    assert said["resumed"] == 0 and said["done"] == COUNT
    table[f"the head killed, and started again on {store}"] = toll(images, out), seconds
    assert toll(images, out) == NONE


def test_photos_of_more_than_the_object_store(tmp_path: Path, table: dict[str, tuple[Toll, float]]) -> None:
    images, out = photos(tmp_path / "photos", 60, kilobytes=5000), tmp_path / "out"
    with (
        cluster(head_cpus=3, head_memory_mb=80) as machines,
        running(images, out, machines.address, *OPTIONS, *APART, "--formats", "coco,overlay") as run,
    ):
        begin = time.monotonic()
        ended(run)
    table["300 MB of photos through an object store of 80 MB"] = toll(images, out), time.monotonic() - begin
    assert toll(images, out) == NONE


def test_a_machine_stands_still_for_a_while(images: Path, tmp_path: Path, table: dict[str, tuple[Toll, float]]) -> None:
    out = tmp_path / "out"
    with (
        cluster(head_cpus=1, workers=2, cpus=1) as machines,
        running(images, out, machines.address, *OPTIONS) as run,
    ):
        until(lambda: len(shards(out)) >= 5, run)
        stopped = finders(machines.workers)[0]
        watch = Watch(out)
        stopped.suspend()
        try:
            until(watch.more, run)
            seconds = watch.seconds()
            had = len(shards(out))
            until(lambda: len(shards(out)) > had or (out / "coco.json").exists(), run)
        finally:
            stopped.resume()
        ended(run)
    table["a machine's process stands still, and goes on"] = toll(images, out), seconds
    assert toll(images, out) == NONE
    names = [json.loads(line)["image"] for line in (out / "journal.jsonl").read_text().splitlines()[1:]]
    assert len(names) == len(set(names))


def test_a_photo_that_kills_whoever_decodes_it_ends_the_run_in_the_end(images: Path, tmp_path: Path) -> None:
    with (images / "000040.jpg").open("ab") as file:
        file.write(b"KILLER")
    out = tmp_path / "out"
    with cluster(head_cpus=3) as machines:
        with running(images, out, machines.address, *OPTIONS, "--killer", "KILLER") as run:
            _, errors = run.communicate(timeout=240)
        assert run.returncode == 1 and "actor" in errors.splitlines()[-1].lower(), errors
        assert shards(out)
        (images / "000040.jpg").unlink()
        with running(images, out, machines.address, *OPTIONS) as run:
            said = ended(run)
    assert said["resumed"] > 0 and said["resumed"] + said["done"] == COUNT - 1
    assert toll(images, out) == NONE
