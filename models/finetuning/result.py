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

from models.detector.files import candidates, forget_downloads
from models.finetuning.checkpoint_files import TrainingError, install
from models.finetuning.options import TrainingOptions
from models.finetuning.start import Start, pipeline_steps
from models.model_errors import Say

METADATA = "model_metadata.json"
PACKAGES = ("torch", "mmdet", "mmengine", "safetensors")


def check_folder(out: Path, name: str, start: Path) -> None:
    """Raises TrainingError where a detector by that name could not be written to `out`, or not be told there from what
    is there already. start: the config of the detector that the training starts from."""
    if Path(name).name != name or name.startswith(("_", ".")):
        raise TrainingError(f"name: expected a file's name that does not begin with _ or a dot, found {name!r}")
    if start.parent.resolve() == out.resolve():
        raise TrainingError(f"{out} holds the detector to start from: choose another out folder")
    own = {f"{name}.py", f"{name}.safetensors"}
    found = [path for place in (out, out / "artifacts") for paths in candidates(place) for path in paths]
    others = [path for path in found if path.parent != out or path.name not in own]
    if others:
        raise TrainingError(
            f"{out} holds another detector's files, and which of them to serve could not be told: "
            f"{', '.join(path.name for path in others)}: choose another out folder"
        )


def deployed_config(
    begun: Start, class_names: Sequence[str], options: TrainingOptions, say: Say = lambda line: None
) -> Any:
    """MMDetection's config of the trained detector, which needs no other file: the model, the classes, and how images
    reach it. Raises ModelFilesError.

    say: is told what is left out of the model."""
    from mmengine.config import Config

    config = begun.config_for(class_names, say)
    pipeline = pipeline_steps(config, begun.path, options.image_min_size, options.image_max_size)
    score_threshold, iou_threshold = options.box_score_threshold, options.iou_threshold
    model: dict[str, Any] = copy.deepcopy(config.model.to_dict())
    forget_downloads(model)
    test_cfg = model.get("test_cfg") or {}
    for part in (test_cfg.get("rcnn") or test_cfg,):
        if score_threshold is not None and "score_thr" in part:
            part["score_thr"] = score_threshold
        if iou_threshold is not None and part.get("nms"):
            part["nms"].pop("iou_thr", None)
            part["nms"]["iou_threshold"] = iou_threshold
    names = {"classes": tuple(class_names)}
    deployed: dict[str, Any] = {"default_scope": config.get("default_scope", "mmdet")}
    if config.get("custom_imports"):
        deployed["custom_imports"] = config.custom_imports.to_dict()
    deployed |= {
        "metainfo": names,
        "model": model,
        "test_pipeline": pipeline,
        "test_dataloader": {
            "batch_size": 1,
            "num_workers": 0,
            "dataset": {"type": "CocoDataset", "metainfo": names, "test_mode": True, "pipeline": pipeline},
        },
    }
    return Config(deployed)


def write(
    out: Path,
    name: str,
    config: Any,
    weights: Path,
    class_names: Sequence[str],
    metadata: Mapping[str, Any],
) -> None:
    """Write `name`.py, `name`.safetensors and model_metadata.json; each gets its name only once it is whole.

    weights: a safetensors file. Raises OSError.
    """
    part = out / "part.safetensors.part"
    save_file(load_file(weights), part, {"classes": json.dumps(list(class_names))})
    install(part, out / f"{name}.safetensors")
    sha256 = hashlib.sha256((out / f"{name}.safetensors").read_bytes()).hexdigest()

    part = out / "part.py.part"
    part.write_text(
        f'"""{name}: a detector of {len(class_names)} classes, complete; its weights lie beside it."""\n\n'
        + config.pretty_text,
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
