"""`box2mask run` on a folder of photos, beside what its networks take alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import tasks, workload
from benchmarks.child import Child
from benchmarks.report import Limit, duration
from benchmarks.run import Run, standing


def folder(run: Run, model: str) -> list[Limit]:
    """`box2mask run` on a folder of photos, from the first to the last, beside the networks alone on ready images."""
    photos = {"demo": 200, "base": 20, "huge": 4}[model] if not run.quick else 4
    detector, segmenter = run.detector("demo" if model == "demo" else "r50"), run.segmenter(model)
    threshold = 0.3 if model == "demo" else 0.01
    few, all_of_them = run.scratch / "photo", run.scratch / f"photos-{photos}"
    for place, number in ((few, 1), (all_of_them, photos)):
        if not place.exists():
            workload.write_photos(place, number)
    settings = {
        "BOX2MASK_SEGMENTER": str(segmenter),
        "BOX2MASK_DETECTOR": str(detector),
        "BOX2MASK_DTYPE": run.dtype,
        "BOX2MASK_DEVICE": "cpu",
    }
    alone = Child(tasks.networks_alone, detector, segmenter, run.dtype, all_of_them, threshold)
    seconds: list[float] = []
    networks: list[float] = []
    with standing([alone]):
        lanes = (1, 2)
        for _ in range(run.how_often(model, usual=3)):
            start = _walk(few, threshold, settings)
            seconds.append(_walk(all_of_them, threshold, settings) - start)
            networks.append(min(alone.run(lane) for lane in lanes) * (photos - 1) / photos)
    limit, measured = statistics.median(networks), statistics.median(seconds)
    note = f"{len(seconds)} × {photos} photos, less the time of a run on one photo; detector at {threshold}"
    return [
        Limit(
            f"SAM {model}: run on a folder",
            run.dtype,
            f"{duration(measured)}",
            f"{duration(limit)}: its networks alone, with one or two photos at once",
            f"{measured / limit - 1:+.0%}",
            note,
        )
    ]


def _walk(photos: Path, threshold: float, settings: Mapping[str, str]) -> float:
    """The seconds of `box2mask run` with its default formats."""
    box2mask = Path(sys.executable).with_name("box2mask")
    command = [str(box2mask), "run", str(photos), "--score-threshold", str(threshold), "--out"]
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        subprocess.run([*command, f"{out}/results"], check=True, capture_output=True, env={**os.environ, **settings})
        return time.perf_counter() - began
