"""Starts a service in a process of its own, waits until it answers, asks it, and finds its process.

What the trials of the image and of a fresh machine share; it knows nothing of images or chroots.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
from PIL import Image

STARTS_WITHIN_S = 900.0  # a busy machine takes minutes


class Failed(Exception):
    """What is tried is not as it should be; says what was expected and what was found."""


@dataclass(frozen=True)
class Started:
    """A running service: where it answers, its process as this machine sees it and its user, the one to wait for."""

    url: str
    pid: int
    user: int
    process: subprocess.Popen[bytes]
    began: float


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Failed(f"{what}: expected {expected!r}, found {found!r}")


@contextmanager
def started(
    command: Sequence[str],
    port: int,
    user: int,
    path: str = "/health/ready",
    within_s: float = STARTS_WITHIN_S,
    output: int | IO[bytes] = subprocess.DEVNULL,
) -> Iterator[Started]:
    """Start it, and wait until `path` answers 200; ended by force if it is still there afterwards. Raises Failed."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=output)
    url = f"http://127.0.0.1:{port}"
    try:
        while not answers(url + path):
            if process.poll() is not None:
                raise Failed(f"the service ended with {process.returncode} as it started")
            if time.monotonic() - began > within_s:
                raise Failed(f"the service was not ready within {within_s:.0f} s")
            time.sleep(0.05)
        yield Started(url, service_below(process.pid, user), user, process, began)
    finally:
        if process.poll() is None:
            for pid in reversed(descendants(process.pid)):
                os.kill(pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def check_answer(name: str, request: Any, answer: Any) -> None:
    """One entry for each row, in the form that belongs to the columns."""
    columns, rows = request["input_data"]["columns"], request["input_data"]["data"]
    expect(f"{name}'s number of answers", len(answer), len(rows))
    for entry in answer:
        if "input_boxes" in columns or "input_points" in columns:
            masks = [mask for prediction in entry["predictions"] for mask in prediction["mask_per_prediction"]]
            expect(f"{name} has masks", bool(masks), True)
        elif name == "pipeline":
            masks = [mask for box in entry["boxes"] for mask in box["mask_per_prediction"]]
            expect(f"{name} has masks", bool(masks), True)
        else:
            masks = []
            expect(f"{name}'s kind of answer", list(entry), ["boxes"])
        for mask in masks:
            picture = Image.open(io.BytesIO(base64.b64decode(mask["encoded_binary_mask"])))
            expect(f"{name}'s form of mask", (picture.format, picture.mode), ("PNG", "L"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def service_below(pid: int, user: int) -> int:
    """The innermost process of this user among the descendants; what has started it may run as the same user."""
    for child in reversed(descendants(pid)):
        status = Path(f"/proc/{child}/status").read_text()
        if re.search(rf"^Uid:\t{user}\t", status, re.MULTILINE):
            return child
    raise Failed(f"expected a process of user {user}")


def descendants(pid: int) -> list[int]:
    """Parents before their children, without `pid` itself."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # has ended
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        new = [child for parent in new for child in children.get(parent, [])]
        found += new
    return found


def sample_requests() -> dict[str, bytes]:
    """Bodies by name: the pipeline's, a detection's, a segmentation's."""
    from models.demo.scenes import render_scene

    scene = render_scene(np.random.default_rng(3), (320, 240), containers=(3, 3))
    file = io.BytesIO()
    Image.fromarray(scene.image).save(file, "JPEG")
    image = base64.b64encode(file.getvalue()).decode()

    def body(columns: list[str], row: list[Any]) -> bytes:
        return json.dumps({"input_data": {"columns": columns, "index": [0], "data": [row]}, "params": {}}).encode()

    return {
        "pipeline": body(["image"], [image]),
        "detection": body(["image"], [image]),
        "segmentation": body(
            ["image", "input_points", "input_boxes", "input_labels", "multimask_output"],
            [image, "", [[20, 20, 200, 180]], "", False],
        ),
    }
