"""The machine that was measured: what of it matters to the figures, and nothing that would tell whose it is."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

# From best to least: the first that is there names the machine.
FEATURES = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
PACKAGES = ("torch", "transformers", "mmdet", "numpy", "pillow", "opencv-python-headless")


@dataclass(frozen=True)
class Machine:
    """features: those of FEATURES that the processor has. load: of the last minute, which others have caused.

    commit: with "+" where the tree has changes. threads: that torch computes with.
    """

    date: str
    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_gb: float
    load: float
    gpu: str | None
    python: str
    packages: dict[str, str]
    commit: str
    threads: int = 1

    @classmethod
    def this(cls) -> Machine:
        import torch

        info = Path("/proc/cpuinfo").read_text()
        flags = set(_first(r"^(?:flags|Features)\s*:(.*)$", info).split())
        return cls(
            date=datetime.date.today().isoformat(),
            cpu=_first(r"^model name\s*:(.*)$", info) or platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            features=tuple(name for name in FEATURES if name in flags),
            memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
            load=os.getloadavg()[0],
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            python=platform.python_version(),
            packages={name: version(name) for name in PACKAGES},
            commit=_commit(),
            threads=torch.get_num_threads(),
        )

    @property
    def name(self) -> str:
        """For a file: "amd-epyc-2-cores-avx2", and the GPU where there is one."""
        cpu = re.sub(r"\((r|tm)\)|@.*|\b(cpu|processor|\d+-core)\b", " ", self.cpu.lower())
        parts = [cpu, f"{self.cores} cores", *self.features[:1], self.gpu or ""]
        return re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")

    @property
    def best_dtype(self) -> str:
        """The numbers to serve in: bfloat16 where the hardware computes in them."""
        return "bfloat16" if self.gpu or {"amx_bf16", "avx512_bf16"} & set(self.features) else "float32"

    def lines(self) -> list[str]:
        """What a result's header says."""
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return [
            f"- {self.date}, commit {self.commit}",
            f"- CPU: {self.cpu}, {self.cores} cores, {', '.join(self.features) or 'none of ' + ', '.join(FEATURES)}",
            f"- threads of torch: {self.threads}; products: plain is torch's own choice, MKL in float32 and oneDNN "
            "in bfloat16, packed is oneDNN on weights in its order",
            f"- GPU: {self.gpu or 'none'}",
            f"- memory: {self.memory_gb:.0f} GB; load average before: {self.load:.1f}",
            f"- Python {self.python}, {packages}",
        ]


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else ""


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout
        return "unknown"
