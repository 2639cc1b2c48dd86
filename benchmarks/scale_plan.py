"""How many machines, hours and how much money a folder of photos takes, from what a photo costs.

`python -m benchmarks.scale_plan` measures on this machine what a photo costs on a processor and in bytes, and puts
beside it what cannot be measured here (a GPU's time, prices; `--node` gives others). It writes
benchmarks/results/scale-plan.md.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from app.prediction import PredictedObject
from app.results import azureml_jsonl, coco, cvat, label_studio, mask_pngs, overlays, whole_file
from app.results.image_result import ImageResult
from benchmarks.machine import Machine
from benchmarks.report import table
from models.demo.scenes import render_scene
from models.demo.things import CLASS_NAMES
from models.images.decoding import decode_image
from models.rle import encode_rle
from models.square_images import resized

RESULT = Path(__file__).parent / "results" / "scale-plan.md"
COUNTS = (1_000_000, 100_000_000)
HOURS = 24  # for which the number of nodes is told
# Sizes of a photo (height, width), and its JPEG's quality.
SIZES = {"2 MP": (1200, 1600), "12 MP": (3000, 4000)}
QUALITY = 90
PHOTOS_PER_SHARD = 32
# For a photo's part of a file of all photos, made by another process of a cluster, measured with parts of 20 to 90 kB.
DRIVER_S = 0.0003
# What an object store asks, in dollars: for a thousand written objects, and for a thousand read ones.
PUT_PER_1000, GET_PER_1000 = 0.005, 0.0004


@dataclass(frozen=True)
class Format:
    """What one format costs for a photo: seconds of any core and of the one process that puts a run's files together.

    objects: written into the store for each photo.
    """

    seconds: float
    driver_s: float
    size: int
    objects: float


@dataclass(frozen=True)
class Costs:
    """Of one photo. Seconds are those of one core; bytes those that go over the network.

    read_s: decoding. ready_s: resizing for both networks. masks_s: masks to RLE. line: bytes in the journal.
    """

    read_s: float
    ready_s: float
    masks_s: float
    bytes_in: int
    line: int
    formats: Mapping[str, Format]

    def written(self, formats: Sequence[str]) -> Written:
        chosen = [self.formats[name] for name in formats]
        return Written(
            cores_s=self.read_s + self.ready_s + self.masks_s + sum(one.seconds for one in chosen),
            driver_s=sum(one.driver_s for one in chosen),
            bytes_in=self.bytes_in,
            bytes_out=2 * self.line + sum(one.size for one in chosen),
            objects=1 / PHOTOS_PER_SHARD + sum(one.objects for one in chosen),
        )


@dataclass(frozen=True)
class Written:
    """Of one photo, with the formats that were chosen. cores_s: beside the networks. objects: put into the store."""

    cores_s: float
    driver_s: float
    bytes_in: int
    bytes_out: int
    objects: float


@dataclass(frozen=True)
class Node:
    """One kind of machine. networks_s: seconds of its device (a GPU, or all its cores) for a photo's networks.

    on_cores: whether the networks run on the same cores as all else.
    """

    name: str
    networks_s: float
    cores: int
    gbit: float
    dollars_per_hour: float
    on_cores: bool = False

    def seconds(self, costs: Written) -> dict[str, float]:
        """Seconds for a photo, by what does the work; they go on side by side, so the greatest counts."""
        cores = costs.cores_s / self.cores
        network = 8 * max(costs.bytes_in, costs.bytes_out) / (self.gbit * 1e9)
        if self.on_cores:
            return {"cores": cores + self.networks_s, "network": network}
        return {"GPU": self.networks_s, "cores": cores, "network": network}


MADE = """\
Made by `python -m benchmarks.scale_plan`: drawn scenes of four to seven things as JPEG; times are of one core, in ms.
"""
ASSUMED = f"""
The time of a photo's networks (YOLOF and SAM, in bfloat16) is **not measured** for a GPU. With SAM ViT-H it is taken to
be 0.06 s on an H100 and 0.38 s on an A10: Meta's page gives 0.15 s on an A100 for the encoder in plain PyTorch, and the
others are that by the ratio of peak speeds (312 TFLOPS; H100 NVL about 800, A10 125). ViT-B is a seventh of ViT-H, by
its weights. Processors: 36 s of a core with AVX512-BF16, of which ViT-H's encoder takes 34 (measured). Dollars are
rounded list prices of large clouds, to be replaced by yours (`--node NAME,SECONDS,CORES,GBIT,DOLLARS`); so are those of
the store's requests: {PUT_PER_1000} for a thousand written objects, {GET_PER_1000} for a thousand read ones.
"""
NODES = (
    Node("H100, 40 cores", 0.06, 40, 40, 7.0),
    Node("H100, 40 cores, ViT-B", 0.06 / 7, 40, 40, 7.0),
    Node("A10, 36 cores", 0.38, 36, 40, 3.2),
    Node("64 cores, no GPU", 36 / 64, 64, 20, 3.0, on_cores=True),
)


def measure(size_hw: tuple[int, int], repeats: int) -> Costs:
    """One photo of this size, drawn, on one core of this machine."""
    scene = render_scene(np.random.default_rng(7), size_hw, containers=(4, 4))
    encoded = io.BytesIO()
    Image.fromarray(scene.image).save(encoded, "JPEG", quality=QUALITY)
    photo = encoded.getvalue()
    result = ImageResult("photos/0000000.jpg", size_hw, _objects(scene.masks, scene.boxes_xyxy, scene.labels))
    line = json.dumps(result.to_json())

    def seconds(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(repeats):
            began = time.thread_time()
            work()
            times.append(time.thread_time() - began)
        return float(np.median(times))

    def again() -> list[ImageResult]:
        return [ImageResult.from_json(json.loads(line))]

    image = decode_image(photo, exif_orientation=True)
    formats = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        own: dict[str, Callable[[Path], object]] = {
            "masks": lambda place: mask_pngs.write(place, result),
            "overlay": lambda place: overlays.write(
                place, result, Image.fromarray(decode_image(photo, exif_orientation=True))
            ),
        }
        for name, write_own in own.items():
            cost = seconds(partial(write_own, out / name))
            files = [path for path in (out / name).rglob("*") if path.is_file()]
            formats[name] = Format(cost, 0, sum(path.stat().st_size for path in files), len(files))
        merged: dict[str, Callable[[TextIO], object]] = {
            "jsonl": lambda file: whole_file.write(file, azureml_jsonl.Lines(str), again()),
            "label-studio": lambda file: whole_file.write(file, label_studio.Tasks(str, "sam"), again()),
            "cvat": lambda file: whole_file.write(file, cvat.Images(tuple(CLASS_NAMES)), again()),
        }
        with (out / "coco.txt").open("w+", encoding="utf-8") as file:  # whose numbers go on from photo to photo
            cost = seconds(lambda: coco.write(file, again(), CLASS_NAMES))
            formats["coco"] = Format(0, cost, file.tell() // repeats, 0)
        for name, write in merged.items():
            with (out / f"{name}.txt").open("w+", encoding="utf-8") as file:
                cost = seconds(partial(write, file))
                formats[name] = Format(cost, DRIVER_S, file.tell() // repeats, 0)
    return Costs(
        read_s=seconds(lambda: decode_image(photo, exif_orientation=True)),
        ready_s=seconds(lambda: (resized(image, 1024, stretched=False), resized(image, 1333, stretched=False))),
        masks_s=seconds(lambda: [encode_rle(one) for one in scene.masks]),
        bytes_in=len(photo),
        line=len(line),
        formats=formats,
    )


def _objects(things: np.ndarray, boxes_xyxy: np.ndarray, labels: np.ndarray) -> tuple[PredictedObject, ...]:
    return tuple(
        PredictedObject(CLASS_NAMES[max(label, 0) % len(CLASS_NAMES)], 0.9, tuple(box), encode_rle(mask), 0.9)
        for mask, box, label in zip(things, boxes_xyxy.tolist(), labels.tolist(), strict=True)
    )


def plan(node: Node, costs: Written, count: int) -> tuple[str, ...]:
    seconds = node.seconds(costs)
    limit = max(seconds.values())
    hours = count * limit / 3600
    return (
        node.name,
        _number(1 / limit),
        ", ".join(f"{name} {value / limit:.0%}" for name, value in seconds.items()),
        _number(hours),
        f"{math.ceil(hours / HOURS):,}",
        f"${_number(hours * node.dollars_per_hour)}",
    )


HEADER = (
    "node",
    "photos a second",
    "how busy each part is",
    "node hours",
    f"nodes for {HOURS} h",
    "price of the nodes",
)


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{round(value, -max(0, len(str(int(value))) - 3)):,.0f}"


def document(machine: Machine, costs: Mapping[str, Costs], nodes: Sequence[Node]) -> str:
    formats = list(next(iter(costs.values())).formats)
    rows = [
        (
            name,
            f"{one.bytes_in / 1e6:.2f}",
            *(f"{1000 * value:.0f}" for value in (one.read_s, one.ready_s, one.masks_s)),
            f"{one.line / 1e3:.0f}",
            *(f"{1000 * (cost.seconds or cost.driver_s):.2g}; {cost.size / 1e3:.0f}" for cost in one.formats.values()),
        )
        for name, one in costs.items()
    ]
    parts = [
        "# What a million photos take\n",
        "\n".join(machine.lines()) + "\n",
        MADE,
        table(
            (
                "photo",
                "MB",
                "decode",
                "resize for both networks",
                "masks to RLE",
                "kB in the journal",
                *(f"{name}: ms; kB" for name in formats),
            ),
            rows,
        ),
        ASSUMED,
    ]
    for count in COUNTS:
        for name, one in costs.items():
            for title, chosen in (("`--formats coco`", ["coco"]), ("all default formats", formats)):
                written = one.written(chosen)
                requests = count / 1000 * (written.objects * PUT_PER_1000 + GET_PER_1000)
                parts += [
                    f"\n## {count:,} photos of {name}, {title}\n",
                    table(HEADER, [plan(node, written, count) for node in nodes]),
                    f"\nBeside the nodes: the store's requests ${_number(requests)}; results of "
                    f"{_number(count * written.bytes_out / 1e9)} GB; putting the files of all\nphotos together, "
                    f"which one process does at the end, {_number(count * written.driver_s / 3600)} hours.",
                ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_plan", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--node", action="append", type=_node, metavar="NAME,SECONDS,CORES,GBIT,DOLLARS")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    costs = {name: measure(size_hw, args.repeats) for name, size_hw in SIZES.items()}
    text = document(Machine.this(), costs, args.node or NODES)
    args.out.write_text(text)
    print(text)


def _node(text: str) -> Node:
    name, *numbers = text.split(",")
    try:
        seconds, cores, gbit, dollars = map(float, numbers)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected NAME,SECONDS,CORES,GBIT,DOLLARS, got {text!r}") from error
    return Node(name, seconds, int(cores), gbit, dollars)


if __name__ == "__main__":
    main()
