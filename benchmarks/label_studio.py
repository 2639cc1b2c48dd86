"""`python -m benchmarks.label_studio`: a click in Label Studio, through the ML backend, beside the decoder alone.

The service runs as its users run it and is asked what Label Studio asks for a click on a photo that it knows. By turns,
this process decodes the same click of the same embedding. So what else the machine does is in both.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import workload
from benchmarks.accuracy import DEMO_SEGMENTER
from benchmarks.machine import Machine
from benchmarks.random_models import make_sam
from benchmarks.report import duration, percentiles, table
from benchmarks.service import Service
from benchmarks.tasks import loaded_segmenter

CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="mask" toName="image"><Label value="can"/></BrushLabels>
<KeyPointLabels name="click" toName="image" smart="true"><Label value="can"/></KeyPointLabels></View>"""
HEADER = (
    "model", "photo", "decoder: p50, p99", "with masks in the photo's size", "click: p50, p99", "click - decoder, p50",
    "p99", "processor: decoder, service", "answer",
)  # fmt: skip
MODELS = ("demo", "vit-b")
SIZES_HW = ((480, 640), (1080, 1920), (3024, 4032))


@dataclass
class Times:
    """Seconds of each click: of the decoder, of it and the mask in the photo's size, and through the service.

    decoder_cpu_s, service_cpu_s: of the processor, in all.
    """

    decoder: list[float] = field(default_factory=list)
    mask: list[float] = field(default_factory=list)
    click: list[float] = field(default_factory=list)
    answer_kb: list[float] = field(default_factory=list)
    decoder_cpu_s: float = 0.0
    service_cpu_s: float = 0.0

    def row(self, model: str, size_hw: tuple[int, int]) -> tuple[str, ...]:
        p50, p99 = ((percentiles(self.click)[i] - percentiles(self.decoder)[i]) for i in (0, 1))
        both = [", ".join(map(duration, percentiles(one))) for one in (self.decoder, self.mask, self.click)]
        size = f"{size_hw[1]} x {size_hw[0]}"
        processor = ", ".join(duration(one / len(self.click)) for one in (self.decoder_cpu_s, self.service_cpu_s))
        return (model, size, *both, duration(p50), duration(p99), processor, f"{np.median(self.answer_kb):.1f} kB")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_studio", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the networks (default: as the service)")
    parser.add_argument("--clicks", type=int, default=200, help="of each photo, after ten that are not counted")
    args = parser.parse_args(argv)
    machine = Machine.this()
    dtype = args.dtype or machine.best_dtype
    print("\n".join([*machine.lines(), f"- {dtype}, {args.clicks} clicks"]), flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            weights = DEMO_SEGMENTER if model == "demo" else Path(folder) / "vit-b"
            if model == "vit-b":
                make_sam(weights, "base")
            for size_hw, times in measured(weights, dtype, args.clicks).items():
                rows.append(times.row(model, size_hw))
                print(*rows[-1], sep=" | ", flush=True)
    print(table(HEADER, rows))
    return 0


def measured(weights: Path, dtype: str, clicks: int) -> dict[tuple[int, int], Times]:
    """For each size of a photo the times of so many clicks, each on another place."""
    photos = {size_hw: np.asarray(Image.fromarray(workload.picture()).resize(size_hw[::-1])) for size_hw in SIZES_HW}
    with served({f"/data/upload/{number}.jpg": jpeg(image) for number, image in enumerate(photos.values())}) as url:
        models = {"BOX2MASK_DETECTOR": "none", "BOX2MASK_SEGMENTER": str(weights), "BOX2MASK_DTYPE": dtype}
        service = Service(models | {"BOX2MASK_LABEL_STUDIO_URL": url})
        try:
            return _measured(service, weights, dtype, clicks, photos)
        finally:
            service.close()


def _measured(
    service: Service, weights: Path, dtype: str, clicks: int, photos: dict[tuple[int, int], np.ndarray]
) -> dict[tuple[int, int], Times]:
    import torch

    from models.types import Prompts

    service.ready()
    segmenter = loaded_segmenter("cpu", weights, dtype)
    found = {}
    for place, (size_hw, image) in enumerate(photos.items()):
        (embedding,) = segmenter.embed([segmenter.preprocess(image)])
        times = found[size_hw] = Times()
        for number, (x, y) in enumerate(np.random.default_rng(0).uniform(0.1, 0.9, (clicks + 10, 2)).tolist()):
            points = np.array([[[x * size_hw[1], y * size_hw[0]]]])
            if number == 10:
                before = cpu_s(service.pid)
            used, began = time.process_time(), time.perf_counter()
            with torch.inference_mode():
                raw = segmenter.decode(embedding, Prompts(points_xy=points), multimask=True)
            used, decoded = time.process_time() - used, time.perf_counter()
            segmenter.postprocess(raw, 0)
            ended = time.perf_counter()
            answer = service.post("/label-studio/predict", asked(f"/data/upload/{place}.jpg", x, y))
            if number >= 10:
                times.click.append(time.perf_counter() - ended)
                times.decoder.append(decoded - began)
                times.mask.append(ended - began)
                times.answer_kb.append(len(answer) / 1000)
                times.decoder_cpu_s += used
        times.service_cpu_s = cpu_s(service.pid) - before
    return found


def cpu_s(pid: int) -> float:
    """What a process has had of the processors, in seconds; proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(address: str, x: float, y: float) -> bytes:
    """What Label Studio posts for a click at x, y in 0..1."""
    value = {"x": 100 * x, "y": 100 * y, "width": 0.3, "keypointlabels": ["can"]}
    drawn = {"type": "keypointlabels", "to_name": "image", "is_positive": True, "value": value}
    task = {"id": 1, "data": {"image": address}}
    content = {"tasks": [task], "label_config": CONFIG, "params": {"context": {"result": [drawn]}}}
    return json.dumps(content).encode()


def jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    return file.getvalue()


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[str]:
    """The address of a server with these files, by path, in place of Label Studio's."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(files[self.path])))
            self.end_headers()
            self.wfile.write(files[self.path])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    raise SystemExit(main())
