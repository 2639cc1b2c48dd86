"""The result of a training: a SAM folder of Hugging Face's format that the service loads as it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from models.checkpoints import StateDict, load_state_dict, weight_files
from models.finetuning.checkpoint_files import TrainingError, install
from models.huggingface_folder import CONFIGS, weights_at
from models.segmenter.sam import Sam

METADATA = "model_metadata.json"
WEIGHTS = "model.safetensors"
PACKAGES = ("torch", "transformers", "safetensors")


def check_folder(out: Path, start: Path) -> None:
    """Raises TrainingError where the result could not be written to `out`, or not be told there from what is there.

    start: the folder of the SAM that the training starts from.
    """
    if start.resolve() == out.resolve():
        raise TrainingError(f"{out} holds the segmenter to start from: choose another out folder")
    if out.is_file():
        raise TrainingError(f"{out} is a file: expected a folder")
    if not out.is_dir():
        return
    ours = (out / "training").is_dir() or (out / METADATA).is_file()
    found = [path.name for path in weight_files(out)] + [name for name in CONFIGS if (out / name).is_file()]
    others = sorted(set(found) - ({WEIGHTS, *CONFIGS} if ours else set()))
    if others:
        raise TrainingError(f"{out} holds another model's files: {', '.join(others)}: choose another out folder")


def start_hash(family: type[Sam], start: Path) -> str:
    """The sha256, in hex, of the files that a SAM is loaded from. Raises ModelFilesError."""
    digest = hashlib.sha256()
    for name, file in sorted(family.files(start).items()):
        digest.update(name.encode())
        if isinstance(file, bytes):
            digest.update(file)
            continue
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def write(out: Path, family: type[Sam], start: Path, learnt: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights, Hugging Face's configs and model_metadata.json; each gets its name only once it is whole.

    learnt: the weights that changed, by their names in the network; they stay in float32. All others are as in the
    files of `start`, those of a video model's memory among them.
    """
    folder = family.find(start)
    weights = load_state_dict(weights_at(start, folder))[0]
    if not learnt.keys() <= weights.keys():  # as a trainer has wrapped them
        weights = _unshared(family.network(start, folder).state_dict())
    part = out / (WEIGHTS + ".part")
    save_file({name: one.contiguous() for name, one in (weights | dict(learnt)).items()}, part, {"format": "pt"})
    install(part, out / WEIGHTS)
    for name in reversed(CONFIGS):  # config.json, by which the folder is known, comes last
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / (name + ".part"))
            install(out / (name + ".part"), out / name)
    with (out / WEIGHTS).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    content = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **metadata,
        "weights": {"file": WEIGHTS, "sha256": sha256},
        "versions": {package: _version(package) for package in ("box2mask", *PACKAGES)},
    }
    part = out / (METADATA + ".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    install(part, out / METADATA)


def _unshared(state: Mapping[str, Tensor]) -> StateDict:
    """Each tensor with memory of its own, as safetensors wants them."""
    return {name: one.detach().clone() for name, one in state.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
