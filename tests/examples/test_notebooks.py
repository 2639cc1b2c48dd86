"""The notebooks, run cell by cell with small settings."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
NOTEBOOK = REPOSITORY / "examples" / "walkthrough.ipynb"
SMALL = ["--image_min_size", "96", "--image_max_size", "96", "--number_of_workers", "0", "--quiet"]


def outputs_of(notebook: Any, cell_id: str) -> list[Any]:
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return cell.outputs


def text_of(notebook: Any, cell_id: str) -> str:
    return "".join(one.text for one in outputs_of(notebook, cell_id) if one.output_type == "stream")


def picture_of(notebook: Any, cell_id: str) -> np.ndarray:
    """(H, W, 3) uint8"""
    (png,) = (one.data["image/png"] for one in outputs_of(notebook, cell_id) if "image/png" in one.get("data", {}))
    return np.asarray(Image.open(BytesIO(base64.b64decode(png))).convert("RGB"))


def test_notebooks_are_kept_without_outputs() -> None:
    for path in (REPOSITORY / "examples").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None), cell.id


def test_the_walkthrough_shows_pictures_and_the_measured_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith(("BOX2MASK_", "AZUREML_")):
            monkeypatch.delenv(name)
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "walk"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    given = set(re.findall(r"^([A-Z_]+) = ", parameters.source, re.MULTILINE))
    small = {
        "DATA": "demo", "OUT": str(out), "SCENES": 10, "DETECTOR": None, "SEGMENTER": "auto", "EPOCHS": 1,
        "TRAINING_OPTIONS": SMALL,
    }  # fmt: skip
    assert given == small.keys()
    lines = [f"{name} = {value!r}" for name, value in small.items()]
    parameters.source = "\n".join(["from pathlib import Path", *lines, "OUT = Path(OUT)"])

    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": REPOSITORY}})
    client.execute()

    assert "8 images to train on, 2 to measure; classes: can, carton, milk_bottle, water_bottle" in text_of(
        notebook, "photos"
    )
    for cell in ("photos", "curve", "overlay"):
        picture = picture_of(notebook, cell)
        assert min(picture.shape[:2]) > 200 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100, cell
    assert '"topX"' in text_of(notebook, "boxes")
    assert re.match(r"([1-9]\d*) boxes, \1 masks\n", text_of(notebook, "masks"))
    assert json.loads((out / "masks" / "coco.json").read_text())["annotations"]

    figures = json.loads((out / "evaluation" / "evaluation.json").read_text())
    (table,) = (one.data["text/markdown"] for one in outputs_of(notebook, "figures"))
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    averages = {row[0]: row[1:] for row in rows}
    assert averages["published: odFridgeObjects, SAM ViT-H"] == ["0.951", "0.928"]
    for measured in figures["masks"]:
        name = f"demo-sam, {measured['prompts']} boxes: {measured['matched']} of {measured['objects']} objects"
        values = [measured[key] for key in ("average_iou", "average_accuracy")]
        # After one epoch on eight pictures it may be that no detection matches.
        assert averages[name] == ["-" if value is None else f"{value:.3f}" for value in values]
    assert len(rows) == 3 * len(figures["masks"]) + 1 == 7

    (port,) = re.findall(r"^ready at http://127\.0\.0\.1:(\d+)", text_of(notebook, "service"), re.MULTILINE)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
