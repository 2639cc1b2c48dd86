"""`models.data.read` for tests of annotation files that have no photos beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models.data
from models.data import Dataset, Problem


def read(path: Path, **options: Any) -> tuple[Dataset, list[Problem]]:
    """What was read, and the problems but for the line that says where the photos were looked for."""
    dataset, problems = models.data.read(path, **options)
    return dataset, [one for one in problems if "--images-root DIR says where they are" not in one.reason]
