"""The result file."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.gpu.bench import Bench


def document(bench: Bench) -> str:
    """The result file."""
    checks = table(("check", "found", "limit", ""), bench.checks)
    header = ("case", "ours, ms", "plain bfloat16, ms", "ratio", "plain float32, ms", "target, ms", "")
    return "\n\n".join(
        [
            f"# {machine(bench)}",
            f"{datetime.date.today().isoformat()}, {versions()}, `benchmarks/gpu.sh`",
            "Medians, from the call until the device is done. Plain is Hugging Face's own code unless said otherwise. "
            "An error is the norm of the difference from float32 over float32's own norm.",
            "\n".join(f"- {note}" for note in bench.notes),
            "## Times",
            table(header, bench.times),
            "## Checks",
            checks,
        ]
    ) + "\n"  # fmt: skip


def machine(bench: Bench) -> str:
    return torch.cuda.get_device_name(bench.device) if bench.on_cuda else "No GPU, tiny sizes"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in ("torch", "transformers", "triton", "mmdet"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))
