"""Weights from a file to a model, without ever running code that the file brings.

A checkpoint is data: safetensors, or a pickle read by torch's restricted unpickler with a short list
of harmless additions. This module knows no particular model.
"""

from __future__ import annotations

import json
import pickle
import re
import threading
import zipfile
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

StateDict = dict[str, torch.Tensor]

# What a Hugging Face folder may hold, best first.
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
KEYS_SHOWN = 5


class ModelFilesError(Exception):
    """The files given do not make a model: something is missing, ambiguous or contradictory.

    CheckpointError is the part of it that concerns the file with the weights.
    """


class CheckpointError(ModelFilesError):
    """A file with weights is unreadable, unsafe, or does not fit the model."""


def load_state_dict(path: str | Path) -> tuple[StateDict, dict[str, Any]]:
    """Read weights into CPU memory, and whatever the file says about them.

    path: `.safetensors`; a pickle written by `torch.save` (any other suffix): a state dict, or a dict
    with a "state_dict" and perhaps a "meta" as MMDetection writes it; a Hugging Face
    `*.index.json` with its shards; or a folder that holds one of FOLDER_FILES.

    Returns the tensors by key, and the meta: of a pickle its "meta", of safetensors its metadata
    with JSON objects and lists decoded. Tensors may be backed by the file until they are copied.
    Raises CheckpointError for a file that is missing, damaged, no checkpoint, or asks for code.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.name.endswith(".index.json"):
        return _load_shards(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    return _load_pickle(path)


def files_of(folder: Path) -> tuple[Path, ...]:
    """The files in a Hugging Face folder that `load_state_dict` reads. Raises CheckpointError where there are none."""
    file = _file_in(folder)
    return (file, *_shards(file)[0]) if file.name.endswith(".index.json") else (file,)


def read_json_object(path: Path) -> dict[str, object]:
    """A JSON file of a model's folder. Raises ModelFilesError where it is none, or holds no object."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFilesError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFilesError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def load_into(
    model: torch.nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    source: str | Path,
    ignore: Iterable[str] = (),
    assign: bool = False,
) -> None:
    """Copy every tensor of `state_dict` into the model, which must want exactly these.

    assign: put the tensors themselves in place of the model's own, which may then be on the meta device.

    ignore: keys, or patterns with `*`, that may be missing or left over, such as tied weights.
    source: what to call the checkpoint in an error.
    Raises CheckpointError naming the keys that are missing, unexpected, or of another shape.
    """
    own = model.state_dict()
    reshaped = [
        f"{key} (checkpoint {tuple(tensor.shape)}, model {tuple(own[key].shape)})"
        for key, tensor in state_dict.items()
        if key in own and own[key].shape != tensor.shape
    ]
    if reshaped:  # torch would raise for these; still name all kinds of misfit at once
        missing, unexpected = own.keys() - state_dict.keys(), state_dict.keys() - own.keys()
    else:
        try:
            outcome = model.load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:  # a key that the model's own hooks renamed
            raise CheckpointError(f"{source} does not fit the model: {error}") from error
        missing, unexpected = set(outcome.missing_keys), set(outcome.unexpected_keys)
    patterns = tuple(ignore)

    def counted(keys: Iterable[str]) -> list[str]:
        return sorted(key for key in keys if not any(fnmatchcase(key, pattern) for pattern in patterns))

    kinds = {"missing": counted(missing), "unexpected": counted(unexpected), "of another shape": sorted(reshaped)}
    if any(kinds.values()):
        raise CheckpointError(
            f"{source} does not fit the model: "
            + "; ".join(f"{len(keys)} {kind}: {_shown(keys)}" for kind, keys in kinds.items() if keys)
        )


def _shown(keys: list[str]) -> str:
    return ", ".join(keys[:KEYS_SHOWN]) + (", …" if len(keys) > KEYS_SHOWN else "")


def _file_in(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    present = ", ".join(sorted(child.name for child in folder.iterdir())) or "nothing"
    raise CheckpointError(f"{folder}: looked for {', '.join(FOLDER_FILES)}; found {present}")


def _shards(index: Path) -> tuple[list[Path], set[str]]:
    """The files that an index names, and the keys that are in them."""
    try:
        shard_by_key = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(shard_by_key.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of checkpoint shards: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name.endswith(".index.json"):
            raise CheckpointError(f"{index}: expected shards beside it, got {name!r}")
    return [index.parent / name for name in names], set(shard_by_key)


def _load_shards(index: Path) -> tuple[StateDict, dict[str, Any]]:
    shards, keys = _shards(index)
    state_dict: StateDict = {}
    for shard in shards:
        state_dict.update(load_state_dict(shard)[0])
    lost = sorted(keys - state_dict.keys())
    if lost:
        raise CheckpointError(f"{index}: {len(lost)} keys are in none of its shards: {_shown(lost)}")
    return state_dict, {}


def _load_safetensors(path: Path) -> tuple[StateDict, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is truncated: {error}") from error
    return state_dict, {key: _decoded(value) for key, value in metadata.items()}


def _decoded(text: str) -> Any:
    """A metadata value; safetensors has only strings, so lists and objects travel as JSON."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


# --- pickles -----------------------------------------------------------------------------------------


class _HistoryBuffer:
    """Takes the place of mmengine's log buffer, which its training checkpoints carry; keeps nothing."""

    def __setstate__(self, state: object) -> None:
        pass


def _statistic(owner: object, name: str) -> str:
    """Takes the place of `getattr`, by which a pickled HistoryBuffer names its own methods; looks nothing up."""
    if owner is not _HistoryBuffer:
        raise pickle.UnpicklingError("GLOBAL builtins.getattr on something else than mmengine's HistoryBuffer")
    return name


def _numpy_globals() -> list[Any]:
    """Numpy's numbers and arrays of numbers. Arrays of objects stay refused, for want of their dtype."""
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    return [
        np.ndarray,
        np.dtype,
        *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdUS"),
        # numpy 1 wrote numpy.core, numpy 2 writes numpy._core
        *((reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]


_EXTRA_GLOBALS = [
    *_numpy_globals(),
    (_HistoryBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_statistic, "builtins.getattr"),
]
_extra_globals_lock = threading.Lock()  # torch keeps the list for the whole process


def _load_pickle(path: Path) -> tuple[StateDict, dict[str, Any]]:
    try:
        with _extra_globals_lock, torch.serialization.safe_globals(_EXTRA_GLOBALS):
            # Only the zip form can be mapped; it spares reading an optimiser that nobody asked for.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle may fail in any way; the cause is kept
        refused = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if refused:
            raise CheckpointError(
                f"{path} asks for '{refused[1]}', which is code and not weights: refused, and not run"
            ) from error
        with path.open("rb") as file:
            head = file.read(16)
        reason = str(error).split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint, or is damaged "
            f"({path.stat().st_size} bytes that begin with {head!r}): {reason}"
        ) from error
    return _split(content, path)


def _split(content: object, path: Path) -> tuple[StateDict, dict[str, Any]]:
    """The state dict and meta in what a pickle held, in the forms that `load_state_dict` lists."""
    meta: object = {}
    state_dict = content
    if isinstance(content, dict) and "state_dict" in content:
        state_dict, meta = content["state_dict"], content.get("meta") or {}
    if not isinstance(state_dict, dict) or not state_dict:
        raise CheckpointError(f"{path}: expected tensors by key, got {type(state_dict).__name__}")
    for key, value in state_dict.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path}: expected tensors by key, got {type(value).__name__} at {key!r}")
    return state_dict, meta if isinstance(meta, dict) else {}
