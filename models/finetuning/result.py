"""The result of a training: a detector folder that the service loads as it is."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.finetuning.checkpointing import install
from models.finetuning.start import forget_downloads

METADATA = "model_metadata.json"
PACKAGES = ("torch", "mmdet", "mmengine", "safetensors")


def deployed_config(
    config: Any,
    class_names: Sequence[str],
    steps: Sequence[dict[str, Any]],
    score_threshold: float | None,
    iou_threshold: float | None,
) -> dict[str, Any]:
    """A config that needs no other file: the model, the classes, and how images reach it.

    config: MMDetection's, for these classes already. steps: of the test pipeline after the image is loaded.
    """
    model: dict[str, Any] = copy.deepcopy(config.model.to_dict())
    forget_downloads(model)
    test_cfg = model.get("test_cfg") or {}
    for part in (test_cfg.get("rcnn") or test_cfg,):
        if score_threshold is not None and "score_thr" in part:
            part["score_thr"] = score_threshold
        if iou_threshold is not None and part.get("nms"):
            part["nms"].pop("iou_thr", None)
            part["nms"]["iou_threshold"] = iou_threshold
    pipeline = [{"type": "LoadImageFromFile", "backend_args": None}, *copy.deepcopy(list(steps))]
    names = {"classes": tuple(class_names)}
    deployed: dict[str, Any] = {"default_scope": config.get("default_scope", "mmdet")}
    if config.get("custom_imports"):
        deployed["custom_imports"] = config.custom_imports.to_dict()
    return deployed | {
        "metainfo": names,
        "model": model,
        "test_pipeline": pipeline,
        "test_dataloader": {
            "batch_size": 1,
            "num_workers": 0,
            "dataset": {"type": "CocoDataset", "metainfo": names, "test_mode": True, "pipeline": pipeline},
        },
    }


def write(
    out: Path,
    name: str,
    config: dict[str, Any],
    weights: Path,
    class_names: Sequence[str],
    metadata: Mapping[str, Any],
) -> None:
    """Write `name`.py, `name`.safetensors and model_metadata.json; each gets its name only once it is whole.

    weights: a safetensors file. Raises OSError.
    """
    from mmengine.config import Config

    part = out / "part.safetensors.part"
    save_file(load_file(weights), part, {"format": "pt", "classes": json.dumps(list(class_names))})
    install(part, out / f"{name}.safetensors")
    sha256 = hashlib.sha256((out / f"{name}.safetensors").read_bytes()).hexdigest()

    part = out / "part.py.part"
    part.write_text(
        f'"""{name}: a detector of {len(class_names)} classes, complete; its weights lie beside it."""\n\n'
        + Config(config).pretty_text,
        encoding="utf-8",
    )
    install(part, out / f"{name}.py")

    content = {
        "classes": list(class_names),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **metadata,
        "weights": {"file": f"{name}.safetensors", "sha256": sha256},
        "versions": {"box2mask": _version("box2mask"), **{package: _version(package) for package in PACKAGES}},
    }
    part = out / "part.json.part"
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    install(part, out / METADATA)


def file_hash(path: Path | None) -> str | None:
    """The sha256 of a file's bytes, in hex."""
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    return str(torch.__version__) if package == "torch" else version(package)
