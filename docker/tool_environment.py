"""Tools from PyPI for one run each: a virtual environment of their own that is gone afterwards."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def tool(requirement: str, command: str) -> Iterator[Path]:
    """The path of `command`, as the package `requirement` installs it. Raises CalledProcessError where it does not."""
    with tempfile.TemporaryDirectory(prefix="box2mask-tool-") as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder) / "bin"
        pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", requirement], check=True, stdout=sys.stderr)
        yield programs / command
