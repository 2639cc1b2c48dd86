"""A name server that changes its mind, in a network of its own: the address that was judged is the one connected to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reliability.rebinding import FETCHES

REPOSITORY = Path(__file__).parents[2]


def test_a_name_is_looked_up_once_and_never_leads_inside() -> None:
    if (
        shutil.which("ip") is None
        or subprocess.run(
            ["unshare", "--map-root-user", "--net", "--mount", "true"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no network of one's own can be made here")
    command = [sys.executable, "-m", "benchmarks.reliability", "rebinding"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 2 + len(FETCHES)
