"""The device and the sizes to run at, and what has been checked and timed so far."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

HUGE: dict[str, Any] = {
    "hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120,
    "global_attn_indexes": [7, 15, 23, 31],
}  # fmt: skip
# Every part of the huge one in small, so that a processor is through it in seconds.
TINY: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64, "image_size": 128,
    "patch_size": 8, "window_size": 5, "global_attn_indexes": [1],
}  # fmt: skip
# How much further than Hugging Face's 16 bits ours may be from float32: both round, at different places.
ROOM, LEAST_ROOM = 1.25, 0.002
LEAST_IOU = 0.99
TARGETS = {"encode 1": 12.0, "encode 8": 8000 / 90, "decode 1": 0.7, "decode 16": 1.2, "decode 100": 3.5, "YOLOF": 2.0}


@dataclass
class Bench:
    """The device and the sizes to run at, and what has been found so far."""

    device: torch.device
    vision: dict[str, Any]
    batches: tuple[int, ...] = (1, 4, 8)
    boxes: tuple[int, ...] = (1, 16, 100)
    repeats: int = 20
    photo_hw: tuple[int, int] = (1080, 1920)
    scenes: int = 12
    checks: list[tuple[str, str, str, str]] = field(default_factory=list)
    times: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed: bool = True
    # How far Hugging Face's embeddings in bfloat16 are from float32's, once that has been measured.
    rounding: float = 0.02

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def check(self, what: str, found: float, at_most: float | None = None, at_least: float | None = None) -> None:
        good = (at_most is None or found <= at_most) and (at_least is None or found >= at_least)  # a NaN is not
        limit = f"at most {at_most:.3g}" if at_most is not None else f"at least {at_least:.3g}"
        self.passed &= good
        self.checks.append((what, f"{found:.4g}", limit, "ok" if good else "FAILED"))
        print(f"{'ok    ' if good else 'FAILED'} {what}: {found:.4g} ({limit})")

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(text)

    def row(self, case: str, ours: float, bf16: float | None, float32: float | None, more: str = "") -> None:
        """Times in milliseconds; those of Hugging Face, or whoever is plain, where there is one."""
        target = TARGETS.get(case) if self.vision is HUGE else None
        cells = [f"{x:.3f}" if x is not None else "" for x in (ours, bf16, float32, target)]
        ratio = f"{bf16 / ours:.2f}×" if bf16 else ""
        self.times.append((case, cells[0], cells[1], ratio, cells[2], cells[3], more))
        print("time  ", " | ".join(self.times[-1]))

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, function: Callable[[], object], repeats: int | None = None) -> float:
        """Median time from the call until the device is done."""
        for _ in range(3 if self.on_cuda else 1):
            function()
        seconds = []
        for _ in range(repeats or self.repeats):
            self.wait()
            began = time.perf_counter()
            function()
            self.wait()
            seconds.append(time.perf_counter() - began)
        return 1000 * statistics.median(seconds)

    def stream(self, priority: int = 0) -> AbstractContextManager[object]:
        return torch.cuda.stream(torch.cuda.Stream(self.device, priority=priority)) if self.on_cuda else nullcontext()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())
