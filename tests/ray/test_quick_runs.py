"""`box2mask run --ray` against the same command in one process, by models that take no time: all that is said and kept.

What no machine's end disturbs is here: `test_folder_faults` has the rest, and `test_run_options` real networks.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.ray_batch import differences
from tests.ray.nodes import VARIABLES, Cluster, cluster
from tests.ray.quick_run import KILLS_ONCE

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def machines() -> Iterator[Cluster]:
    with cluster(head_cpus=2) as started:
        yield started


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    models = {"BOX2MASK_DETECTOR": "demo-yolof", "BOX2MASK_SEGMENTER": "demo-sam"}
    return subprocess.run(
        [sys.executable, "-m", "tests.ray.quick_run", "run", *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | VARIABLES | models,
        capture_output=True,
        text=True,
        timeout=300,
    )


def photo(path: Path, seed: int, more: bytes = b"") -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    with path.open("ab") as file:
        file.write(more)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of both streams, whichever photo was first; without where the results are, and without Ray's own."""
    lines = [*done.stdout.splitlines(), *(line for line in done.stderr.splitlines() if line.startswith("box2mask: "))]
    return sorted(re.sub(r" in /\S+|/\S+/(?=failed\.jsonl)", "", line) for line in lines)


def journal(out: Path) -> list[tuple[str, str]]:
    """Each line's image and the line, in the order of the names; the last where an image has several."""
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()[1:]]
    return sorted((line["image"], json.dumps(line, sort_keys=True)) for line in lines)


def failures(out: Path) -> list[str]:
    return sorted((out / "failed.jsonl").read_text().splitlines())


def test_a_folder_is_gone_on_with(machines: Cluster, tmp_path: Path) -> None:
    """Photos that are as before, that have changed, new ones and bad ones; and files that were not asked for then."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, name in enumerate(("a.jpg", "changes.jpg", "goes bad.jpg", "stays.jpg")):
        photo(photos / name, seed)
    outs = (tmp_path / "here", tmp_path / "there")
    assert run(photos, "--out", outs[0], "--formats", "coco,masks").returncode == 0
    shutil.copytree(*outs)
    photo(photos / "changes.jpg", 7)
    (photos / "goes bad.jpg").write_bytes(b"text")
    (photos / "new bad.jpg").write_bytes(b"text")
    photo(photos / "new.jpg", 8)
    frames = [Image.new("RGB", (32, 24), color) for color in ("red", "blue", "green")]
    frames[0].save(photos / "pages.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32)).save(photos / "few bits.png")
    formats = ("--formats", "coco,masks,overlay")
    here = run(photos, "--out", outs[0], *formats)
    there = run(photos, "--out", outs[1], *formats, "--ray", machines.address, "--actors", "1")
    assert here.returncode == there.returncode == 1, there.stderr
    assert said(there) == said(here)
    assert [line for line in said(here) if "pages.tif (3)" in line] and [
        line for line in said(here) if "12 bits" in line
    ]
    assert failures(outs[0]) == failures(outs[1]) and len(failures(outs[1])) == 2
    assert differences(*outs) in ([], ["failed.jsonl"])  # in the order of their ends
    assert not (outs[1] / "masks/goes bad.jpg").exists() and (outs[1] / "overlays/stays.jpg.jpg").exists()
    assert journal(outs[0]) == journal(outs[1])
    assert [name for name, _ in journal(outs[1])].count("stays.jpg") == 1  # its files are new, and its result is not

    again = run(photos, "--out", outs[1], *formats, "--ray", machines.address, "--actors", "1")
    assert again.returncode == 1 and again.stdout.startswith("6 images, 6 of them from before"), again.stderr
    assert journal(outs[0]) == journal(outs[1]) and failures(outs[0]) == failures(outs[1])


def test_a_detector_and_a_segmenter_of_their_own_are_one_model(machines: Cluster, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(4):
        photo(photos / f"{seed}.png", seed)
    options = ("--order", "uncertainty", "--score-threshold", "0.5")
    pools = ("--actors", "1", "--actor-cpus", "0.5", "--detector-actors", "1", "--detector-cpus", "0.5")
    here = run(photos, "--out", tmp_path / "here", *options)
    there = run(photos, "--out", tmp_path / "there", *options, "--ray", machines.address, *pools)
    assert here.returncode == there.returncode == 0, there.stderr
    assert said(there) == said(here) and "8 objects" in here.stdout
    assert differences(tmp_path / "here", tmp_path / "there") == []
    assert journal(tmp_path / "here") == journal(tmp_path / "there")
    headers = [(tmp_path / name / "journal.jsonl").read_text().splitlines()[0] for name in ("here", "there")]
    assert headers[0] == headers[1] and "quick detector" in headers[0] and "quick segmenter" in headers[0]


def test_a_process_with_models_may_end(machines: Cluster, tmp_path: Path) -> None:
    """It is started again, without a machine that has gone: by Ray Data, which Ray's own default would not let."""
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [f"{seed:03}.jpg" for seed in range(101)]  # two to a block, and one in the last
    for seed, name in enumerate(names):
        photo(photos / name, seed, KILLS_ONCE + os.fsencode(tmp_path / "killed") if seed == 2 else b"")
    options = ("--actors", "1", "--separate-io")  # what processes with models read and write else
    done = run(photos, "--out", tmp_path / "out", "--ray", machines.address, *options)
    assert (tmp_path / "killed").exists()
    assert done.returncode == 0, done.stderr
    assert [name for name, _ in journal(tmp_path / "out")] == names
