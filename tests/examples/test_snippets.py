"""The snippets for other languages, run as they are: each writes the masks that the service gives for the photo."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.client import Client
from tests.examples.conftest import scripted

SNIPPETS = Path(__file__).parents[2] / "examples" / "snippets"
PROJECT = """<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup>
<OutputType>Exe</OutputType><TargetFramework>net{major}.0</TargetFramework><NuGetAudit>false</NuGetAudit>
</PropertyGroup></Project>"""
# Each as a command, and the tools it is run by.
LANGUAGES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "curl": (["bash", str(SNIPPETS / "segment.sh")], ("bash", "curl", "jq")),
    "javascript": (["node", str(SNIPPETS / "segment.mjs")], ("node",)),
    "csharp": ([], ("dotnet",)),
}
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=LANGUAGES)
def snippet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the snippet with these arguments and variables of the environment; built before, where it has to be."""
    command, tools = LANGUAGES[request.param]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not on the PATH")
    if request.param == "csharp":
        folder = tmp_path_factory.mktemp("csharp")
        version = subprocess.run(["dotnet", "--version"], capture_output=True, text=True, check=True).stdout
        (folder / "segment.csproj").write_text(PROJECT.format(major=version.split(".")[0]))
        shutil.copy(SNIPPETS / "Segment.cs", folder)
        build = ["dotnet", "build", "--output", str(folder / "built"), str(folder)]
        built = subprocess.run(build, capture_output=True, text=True, timeout=300)
        assert built.returncode == 0, built.stdout
        command = ["dotnet", str(folder / "built" / "segment.dll")]

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCORING_")}
        return subprocess.run(
            [*command, *map(str, arguments)], env=kept | variables, capture_output=True, text=True, timeout=120
        )

    return run


def test_masks_are_written(service: Any, photo: Path, tmp_path: Path, snippet: Run) -> None:
    done = snippet(photo, tmp_path / "masks", SCORING_URL=service.url)
    assert done.returncode == 0, done.stderr
    with Client(service.url) as client:
        found = client.detect_and_segment(photo)
    assert len(done.stdout.splitlines()) == len(found) >= 2
    for number, (one, line) in enumerate(zip(found, done.stdout.splitlines(), strict=True)):
        path = tmp_path / "masks" / f"mask-{number}.png"
        named, label, score = line.split("  ")
        assert (named, label, float(score)) == (str(path), one.label, pytest.approx(one.score))
        with Image.open(path) as png:
            # The last bit of a number, another one in another batch, may move a pixel at the mask's edge.
            assert png.mode == "L" and png.size == (480, 360)
            assert ((np.asarray(png) == 255) != one.masks[0].pixels).mean() < 0.001


def test_what_the_service_rejects_is_said(service: Any, tmp_path: Path, snippet: Run) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    for photo, message in ((text, "row 0, image: expected a JPEG"), (tmp_path / "absent.jpg", "absent.jpg")):
        done = snippet(photo, tmp_path / "masks", SCORING_URL=f"{service.url}/")
        assert done.returncode == 1 and message in done.stderr
    assert list(tmp_path.glob("masks/*.png")) == []
    assert snippet().returncode != 0


def test_a_busy_service_is_asked_again_when_it_says_and_a_key_is_shown(
    photo: Path, tmp_path: Path, snippet: Run
) -> None:
    mask = {"encoded_binary_mask": base64.b64encode(photo.read_bytes()).decode(), "iou_score": 1.0}
    box = {"topX": 0.25, "topY": 0.5, "bottomX": 0.5, "bottomY": 1.0}
    boxes = [{"boxes": [{"box": box, "label": "milk carton", "score": 0.5, "mask_per_prediction": [mask]}]}]
    masks = [{"response": {"predictions": [{"masks_per_prediction": [mask]}]}}]  # for the one that asks in two steps
    with scripted((429, {"Retry-After": "1"}, {"message": "full"}), (200, {}, boxes), (200, {}, masks)) as server:
        done = snippet(photo, tmp_path, SCORING_URL=server.url, SCORING_KEY="secret")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/mask-0.png  milk carton  0.5\n"
    assert (tmp_path / "mask-0.png").read_bytes() == photo.read_bytes()
    assert {headers["Authorization"] for _, headers, _ in server.came} == {"Bearer secret"}
    assert server.came[1][0] - server.came[0][0] >= 1
    assert server.came[0][2] == server.came[1][2]


def test_boxes_without_masks_are_not_taken_for_masks(photo: Path, tmp_path: Path, snippet: Run) -> None:
    box = {"box": {"topX": 0.25, "topY": 0.5, "bottomX": 0.5, "bottomY": 1.0}, "label": "can", "score": 0.5}
    with scripted((200, {}, [{"boxes": [box]}])) as server:
        done = snippet(photo, tmp_path, SCORING_URL=f"{server.url}/score")
    assert done.returncode != 0 and "masks" in done.stderr
    assert list(tmp_path.glob("*.png")) == []
