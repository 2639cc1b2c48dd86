"""The documents' commands, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.cli import build_parser
from models.demo.scenes import render_scene

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents") / "photo.jpg"
    Image.fromarray(render_scene(np.random.default_rng(3), (320, 240), containers=(3, 3)).image).save(path)
    return path


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_readmes_curl_answers_as_it_says(service: Any, photo: Path) -> None:
    commands = re.findall(r"```bash\n(printf.*?)```", README, re.DOTALL)
    assert len(commands) == 1
    command = commands[0].replace("http://localhost:5001", service.url)
    done = subprocess.run(["bash", "-c", command], cwd=photo.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["boxes"]
    (shown,) = json.loads(re.findall(r"```json\n(\[.*?)```", README, re.DOTALL)[0].replace("…", ""))
    for box in row["boxes"]:
        assert box.keys() == shown["boxes"][0].keys()
        assert box["mask_per_prediction"][0].keys() == shown["boxes"][0]["mask_per_prediction"][0].keys()


def test_every_box2mask_command_in_the_documents_is_one_that_the_command_line_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [README, *(path.read_text() for path in (REPOSITORY / "docs").glob("*.md"))]
    written = r"(?:^(?: {4}|\$ )?|(`))(?:[A-Z0-9_]+=\S+ )*(?:\.venv/bin/)?box2mask ([a-z][^`#\n\[…|]*[^`#\n\[…|\s])"
    found = [match for text in texts for match in re.findall(written, text.replace("\\\n", " "), re.MULTILINE)]
    commands = {(command, bool(inline)) for inline, command in found}
    assert len(commands) >= 25
    for command, inline in commands:
        try:
            args, more = build_parser().parse_known_args(shlex.split(command))
        except SystemExit:
            # A sentence may name a command without saying what it is given.
            assert inline and "arguments are required" in capsys.readouterr().err, command
        else:
            assert not more or args.takes_more, command


def test_the_tree_has_every_module_and_no_other() -> None:
    tree = (REPOSITORY / "docs" / "architecture.md").read_text().split("## What is where")[1]
    for top in ("app", "models"):
        block = re.split(r"\n(?=\S)", tree.split(f"\n{top}/", 1)[1], maxsplit=1)[0]
        places = re.findall(r"^((?:  ){1,3})([\w.]+/?)(?= )", block, re.MULTILINE)
        listed, folder = set(), [top]
        for indent, name in places:
            folder = folder[: len(indent) // 2]
            listed.add("/".join([*folder, name]))
            folder.append(name.rstrip("/"))
        wings = {path.rstrip("/").rpartition("/")[0] for path in listed}  # those whose files have a line each
        there = set()
        for wing in wings:
            inside = (REPOSITORY / wing).iterdir()
            there |= {f"{wing}/{one.name}" for one in inside if one.suffix == ".py" and not one.name.startswith("__")}
            there |= {f"{path.parent.relative_to(REPOSITORY)}/" for path in (REPOSITORY / wing).glob("*/__init__.py")}
        assert {path for path in listed if path.endswith((".py", "/"))} == there
