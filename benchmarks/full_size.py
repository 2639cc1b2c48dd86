"""Serves full-size models on this machine and measures them: `python -m benchmarks.full_size [REQUEST.json ...]`.

The models have random weights, so that it runs without a network: YOLOF R50-C5 as OpenMMLab's zoo saves it and SAM
ViT-H as Hugging Face does. Times and memory are those of the real ones; what they see in a photo is not.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.child import peak_memory_mb
from benchmarks.random_models import make_sam, make_yolof
from models.demo.scenes import render_scene


def sample_requests() -> dict[str, bytes]:
    """One request to each model, about a drawn scene."""
    scene = render_scene(np.random.default_rng(0), (666, 499))
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "JPEG")
    image = base64.encodebytes(buffer.getvalue()).decode()
    columns = ["image", "input_points", "input_boxes", "input_labels", "multimask_output"]
    tables = {
        "detector": {"columns": ["image"], "data": [[image]]},
        "sam": {"columns": columns, "data": [[image, "", "[[125, 240, 375, 425]]", "", True]]},
    }
    return {name: json.dumps({"input_data": table}).encode() for name, table in tables.items()}


def post(url: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=1800) as response:
        return response.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=Path, nargs="*", help="request bodies to post to /score")
    parser.add_argument("--port", type=int, default=5099)
    args = parser.parse_args()
    bodies = {path.name: path.read_bytes() for path in args.requests} or sample_requests()
    with tempfile.TemporaryDirectory() as scratch:
        detector, segmenter = Path(scratch, "yolof"), Path(scratch, "sam-huge")
        make_yolof(detector)
        make_sam(segmenter)
        environment = os.environ | {
            "BOX2MASK_DETECTOR": str(detector),
            "BOX2MASK_SEGMENTER": str(segmenter),
            "BOX2MASK_PORT": str(args.port),
        }
        began = time.monotonic()
        command = [sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main(['serve']))"]
        server = subprocess.Popen(command, env=environment)
        try:
            while server.poll() is None:
                try:
                    post(f"http://localhost:{args.port}/health/ready")
                    break
                except OSError:
                    time.sleep(0.5)
            print(f"ready after {time.monotonic() - began:.1f} s, {peak_memory_mb(server.pid):.0f} MB at most")
            for name, body in bodies.items():
                began = time.monotonic()
                answer = json.loads(post(f"http://localhost:{args.port}/score", body))
                print(
                    f"{name}: {len(answer)} rows in {time.monotonic() - began:.1f} s, "
                    f"{peak_memory_mb(server.pid):.0f} MB at most so far",
                    flush=True,
                )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
