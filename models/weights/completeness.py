"""Whether a file is whole by its own account, where no hash of it is known: safetensors say how long they are."""

from __future__ import annotations

import json
from pathlib import Path

_LONGEST_HEADER = 100_000_000  # of safetensors, as the format has it


def incomplete(path: Path, name: str) -> str | None:
    """What is wrong with a file that is to have this name; None where nothing is, or its kind does not tell."""
    if name.endswith(".json"):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            return f"expected JSON, got what is none: {error}"
    return _incomplete_safetensors(path) if name.endswith(".safetensors") else None


def _incomplete_safetensors(path: Path) -> str | None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            return "expected safetensors, got something else"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return "expected safetensors, got something else"
    whole = 8 + length + max(ends, default=0)
    return None if whole == size else f"its header tells of {whole} bytes, got {size}"
