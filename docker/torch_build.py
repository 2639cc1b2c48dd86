"""Puts the right build of torch into the virtual environment that runs this, before the packages that need torch.

    .venv/bin/python docker/torch_build.py auto

PyPI's torch for Linux brings CUDA's libraries: about 3 GB to fetch, which only an NVIDIA GPU makes use of. PyTorch's
own index has a small build for processors. `cpu` takes that one, `cuda` leaves torch to pip and its usual index. `auto`
keeps a torch that is there; else it takes the small build where there is no GPU and the index answers. Needs nothing
but Python.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ANSWERS_WITHIN_S = 8.0
PAGE_BYTES = 8_000_000  # the index's page about torch has some hundred thousand
PIP = [sys.executable, "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", choices=("auto", "cpu", "cuda"), metavar="BUILD", help="auto, cpu or cuda")
    parser.add_argument("--index", default=CPU_INDEX, help="where the small build is (%(default)s)")
    arguments = parser.parse_args()
    version = wanted_version(REPOSITORY / "pyproject.toml")
    installed = installed_version()
    build, reason = arguments.build, "asked for"
    if build == "auto":
        build, reason = choose(version, installed, has_nvidia_gpu(), lambda: cpu_build_lacks(arguments.index, version))
        print(f"torch: {reason}")
    if build == "cuda" and arguments.build == "cuda" and is_cpu_build(installed):
        return subprocess.run([*PIP, "uninstall", "--yes", "torch"]).returncode
    if build == "cpu" and installed != f"{version}+cpu":
        # Its index has copies of other packages too, which stay out of this.
        small = ["--no-deps", "--index-url", arguments.index, "--retries", "2", f"torch=={version}+cpu"]
        status = subprocess.run([*PIP, "install", *small]).returncode
        if status and arguments.build == "cpu":
            print(f"torch: {arguments.index} has not given {version}+cpu; TORCH_INDEX names another", file=sys.stderr)
            return status
        if status:
            print("torch: the small build could not be fetched; PyPI's it is, with CUDA's libraries (about 3 GB)")
    return 0


def choose(
    version: str, installed: str | None, gpu: bool, lacks: Callable[[], str], system: str = sys.platform
) -> tuple[str, str]:
    """What `auto` takes, and a sentence that says why: "kept", "cpu" or "cuda", which is pip's usual index.

    installed: torch's version here, None if there is none. lacks: asks the index, and says why it is not to be had from
    there, if so; called only where the answer matters.
    """
    if installed is not None and installed.partition("+")[0] == version:
        return "kept", f"{installed} is there and stays"
    if system != "linux":
        return "cuda", "PyPI's build, which for this system has nothing of CUDA's"
    if gpu:
        return "cuda", "PyPI's build with CUDA's libraries (about 3 GB), for the NVIDIA GPU of this machine"
    reason = lacks()
    if not reason:
        return "cpu", "the small build, as there is no NVIDIA GPU here (make TORCH=cuda has the other)"
    return "cuda", f"no NVIDIA GPU here, but no small build either ({reason}); PyPI's has CUDA's libraries (about 3 GB)"


def wanted_version(pyproject: Path) -> str:
    """torch's pin."""
    dependencies = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    return dict(line.split("==") for line in dependencies)["torch"]


def installed_version() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def is_cpu_build(version: str | None) -> bool:
    return version is not None and version.endswith("+cpu")


def has_nvidia_gpu() -> bool:
    """Whether there is an NVIDIA GPU that a driver shows, or at least the driver's own tool."""
    return os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None


def cpu_build_lacks(index: str, version: str, within_s: float = ANSWERS_WITHIN_S) -> str:
    """Why the index has no small build for this Python and processor to offer, in time; empty if it has."""
    page, reason = "", f"{index}: no answer within {within_s:.0f} s"

    def fetch() -> None:
        nonlocal page, reason
        try:
            with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=within_s) as answer:
                page = answer.read(PAGE_BYTES).decode(errors="replace")
        except (OSError, ValueError, HTTPException) as error:  # no name, connection or certificate, 404; no address
            reason = f"{index}: {error}"

    # The timeout is one for each step, and looking up a name has none at all; the thread may stay behind.
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(within_s)
    if not page:
        return reason
    return "" if names_cpu_build(page, version) else f"{index}: none of {version} for this Python and processor"


def names_cpu_build(page: str, version: str) -> bool:
    """Whether the page has a link to the small build's wheel for this Python and processor."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheel = rf"torch-{re.escape(version)}(?:%2B|\+)cpu-{python}-{python}-\w*linux\w*_{platform.machine()}\.whl"
    return re.search(wheel, page) is not None


if __name__ == "__main__":
    sys.exit(main())
