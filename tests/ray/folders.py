"""Folders of photos for a cluster whose machines a test may kill, and what must have become of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from app.folders.image_work import Asked, Task, answered
from app.folders.sources import SourceImage
from benchmarks.folder_on_ray import write_photos
from benchmarks.sleeping_models import Sleeping
from tests.ray.nodes import VARIABLES

REPOSITORY = Path(__file__).parents[2]
ENDS_WITHIN_S = 240
ENCODE_MS, OBJECTS = 100, 3


@dataclass(frozen=True)
class Toll:
    """What a fault cost: photos without a result, with two, and with another than they would have had."""

    lost: int
    doubled: int
    wrong: int


def photos(folder: Path, count: int, kilobytes: int = 20) -> Path:
    write_photos(folder, count, kilobytes)
    return folder


def toll(images: Path, out: Path) -> Toll:
    """By the file of all images, and the journal that it is made from."""
    names = sorted(path.name for path in images.iterdir())
    data = json.loads((out / "coco.json").read_text())
    found = [one["file_name"] for one in data["images"]]
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()[1:]]
    predictor = Sleeping(0, 0, OBJECTS)()
    predict = Asked("detector").predict(predictor)
    wrong = 0
    results = {line["image"]: line for line in lines}
    for name in names:
        task = Task(SourceImage(images / name, name), None)
        right = answered(task, (images / name).read_bytes(), predict, 1).to_json()
        line = results.get(name)
        if line is not None:
            wrong += json.loads(json.dumps(right))["objects"] != line["objects"]
    return Toll(len(set(names) - set(found)), len(found) - len(set(found)), wrong)


# On a machine of several nodes Ray takes the head's for the command's own; this one takes that of another address.
_BESIDE = """
import functools, sys
import ray
from benchmarks.folder_on_ray import main

ray.init = functools.partial(ray.init, _node_ip_address=sys.argv.pop(1))
main()
"""


@contextlib.contextmanager
def running(
    images: Path,
    out: Path,
    address: str,
    *options: str,
    beside: str | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[subprocess.Popen[str]]:
    """The run as a process of its own, by models that only take time.

    beside: the address of the node that is on the same machine as the command; None: the head.
    """
    program = ["-m", "benchmarks.folder_on_ray"] if beside is None else ["-c", _BESIDE, beside]
    command = [sys.executable, *program, str(images), str(out), "--address", address]
    command += ["--encode-ms", str(ENCODE_MS), "--objects", str(OBJECTS), *options]
    environment = os.environ | VARIABLES | variables
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def shards(out: Path) -> list[Path]:
    return sorted(out.glob("journal/0*.jsonl"))


def until(is_so: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for what the run is to bring about; an error if it ends before."""
    end = time.monotonic() + ENDS_WITHIN_S
    while not is_so():
        if process.poll() is not None or time.monotonic() > end:
            raise AssertionError(process.communicate()[1] if process.poll() is not None else "the run takes too long")
        time.sleep(0.05)


def ended(process: subprocess.Popen[str]) -> dict[str, float]:
    """What the run says at its end."""
    said, errors = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 0, errors
    return json.loads(said.splitlines()[-1])
