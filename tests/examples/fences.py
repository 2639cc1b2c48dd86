"""The fenced blocks of a document: found, run, and their answers compared with what the document shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
MORE = "…"


@dataclass(frozen=True)
class Block:
    """language: of the fence, "bash" say. line: of its first line, from 1. section: the last heading before it."""

    language: str
    text: str
    line: int
    section: str


def blocks_of(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    found = []
    for fence in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: fence.start()]
        headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", before, flags=re.MULTILINE | re.DOTALL), re.M)
        found.append(Block(fence[1], fence[2], before.count("\n") + 2, headings[-1] if headings else ""))
    return found


def run(script: str, folder: Path, *, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a shell's lines in a folder, with `box2mask` and `python` those of this environment and this repository."""
    if "curl" in script and shutil.which("curl") is None:
        pytest.skip("there is no curl")
    tools = folder / ".tools"
    tools.mkdir(exist_ok=True)
    for name, command in (("box2mask", f"'{sys.executable}' -m app"), ("python", f"'{sys.executable}'")):
        (tools / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tools / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BOX2MASK_", "AZUREML_"))}
    own = {"PATH": f"{tools}:{kept['PATH']}", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    models = {"BOX2MASK_DETECTOR": "demo-yolof", "BOX2MASK_SEGMENTER": "demo-sam", "BOX2MASK_DEVICE": "cpu"}
    numbers = {"BOX2MASK_DTYPE": os.environ["BOX2MASK_DTYPE"]}  # as of the services that answers are compared with
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=kept | own | models | numbers,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def differences(shown: str, answer: str) -> list[str]:
    """Where an answer has another form than the JSON that is shown; empty where it has the same.

    Keys must be the same, and a `message`; of numbers and of other text only the kind is compared.
    A list is like those entries of it that are shown. `…` stands for anything, or any more.
    """
    # `…` among the keys, among the entries, and in place of a value.
    text = re.sub(r"\{…\}|\[…\]", '"…"', shown)
    text = re.sub(r",\s*…\s*\}", ', "…": 0}', text)
    text = re.sub(r",\s*…\s*\]", "]", text)
    return _differ(json.loads(text), json.loads(answer), "answer")


def _differ(shown: Any, found: Any, place: str) -> list[str]:
    if shown == MORE:
        return []
    if isinstance(shown, dict) and isinstance(found, dict):
        keys = shown.keys() - {MORE}
        if keys - found.keys() or (MORE not in shown and found.keys() - keys):
            return [f"{place}: shown with {sorted(keys)}, has {sorted(found)}"]
        return [one for key in keys for one in _differ(shown[key], found[key], f"{place}.{key}")]
    if isinstance(shown, list) and isinstance(found, list):
        if bool(shown) != bool(found):
            return [f"{place}: shown as {shown}, is {str(found)[:200]}"]
        return [
            one
            for number, entry in enumerate(found)
            for one in _differ(shown[min(number, len(shown) - 1)], entry, f"{place}[{number}]")
        ]
    if isinstance(shown, str) and isinstance(found, str):
        exact = place.endswith(".message") or (MORE in shown and shown.startswith("iVBOR"))
        return [] if not exact or _like(shown, found) else [f"{place}: shown as {shown!r}, is {found!r}"]
    kinds = [float if isinstance(one, int) and not isinstance(one, bool) else type(one) for one in (shown, found)]
    return [] if kinds[0] is kinds[1] else [f"{place}: shown as {shown!r}, is {found!r}"]


def lines_missing(shown: str, answer: str) -> list[str]:
    """The lines of a shown HTTP answer that none of the answer's lines is like."""
    came = answer.splitlines()
    return [line for line in shown.splitlines() if not any(_like(line, other) for other in came)]


def _like(shown: str, found: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split(MORE))), found, re.DOTALL) is not None
