"""What a process without models starts with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from app.cluster.service import edge, router
from app.cluster.service.replicas import Replicas
from app.main import create_app
from app.settings import Settings

settings = Settings(api_keys=None)
create_app(settings, answering=Replicas(settings, None)).state.metrics.text()
sys.exit(", ".join({"torch", "transformers", "mmdet"} & set(sys.modules)))
"""


def test_an_edge_needs_no_pytorch() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    assert ended.stderr.strip() == ""
