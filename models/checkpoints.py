"""Weights from a file to a model, without ever running code that the file brings.

A checkpoint is data: safetensors, or a pickle read by torch's restricted unpickler. This module knows no particular
model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from models.file_kinds import is_safetensors, other_than_weights
from models.foreign_weights import whose
from models.mapped_weights import given_back_as_copied
from models.model_errors import CheckpointError as CheckpointError
from models.model_errors import ModelFilesError as ModelFilesError
from models.model_errors import Say, say_once
from models.pickles import load_pickle
from models.wrappers import StateDict as StateDict
from models.wrappers import listed, state_dict_in

# What a Hugging Face folder may hold, best first.
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".pth.tar")
# What trainers leave beside the weights.
_LEFTOVERS = re.compile(r"(optimizer|scheduler|scaler|training_args|rng_state|random_states|trainer_state|openvino)")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")


def load_state_dict(path: str | Path, say: Say = say_once) -> tuple[StateDict, dict[str, Any]]:
    """Read weights into CPU memory, and whatever the file says about them.

    path: safetensors; a pickle written by `torch.save`: a state dict, or dicts around one and perhaps a "meta" as
    MMDetection writes it; a Hugging Face `*.index.json` with its shards; or a folder that holds one of FOLDER_FILES or
    one other file with weights. say: gets a line about what was passed over.

    Returns the tensors by key, and the meta: of a pickle its "meta", of safetensors its metadata
    with JSON objects and lists decoded. Tensors may be backed by the file until they are copied.
    Raises CheckpointError for a file that is missing, damaged, no checkpoint, or asks for code.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in(path, say)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.name.endswith(".index.json"):
        return _load_shards(path, say)
    if is_safetensors(path):
        return _load_safetensors(path)
    other = other_than_weights(path)
    if other is not None:
        raise CheckpointError(f"{path}: expected a file with weights; it {other}")
    return state_dict_in(load_pickle(path), path, say)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that `load_state_dict` reads of a Hugging Face folder, or by one of its files. Raises CheckpointError
    where there are none."""
    file = _file_in(path) if path.is_dir() else path
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
            with nullcontext() if assign else given_back_as_copied(model, state_dict):
                outcome = model.load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:  # a key that the model's own hooks renamed
            raise CheckpointError(f"{source} does not fit the model: {error}") from error
        missing, unexpected = set(outcome.missing_keys), set(outcome.unexpected_keys)
    check_fit(source, state_dict, own, missing=missing, unexpected=unexpected, reshaped=reshaped, ignore=ignore)


def check_fit(
    source: str | Path,
    state_dict: Mapping[str, torch.Tensor],
    own: Collection[str],
    *,
    missing: Iterable[str],
    unexpected: Iterable[str],
    reshaped: Iterable[str] = (),
    ignore: Iterable[str] = (),
) -> None:
    """Raises CheckpointError that names the keys that are missing, unexpected or of another shape, if there are any.

    own: the model's keys. ignore: as for `load_into`.
    """
    patterns = tuple(ignore)

    def counted(keys: Iterable[str]) -> list[str]:
        return sorted(key for key in keys if not any(fnmatchcase(key, pattern) for pattern in patterns))

    missing = set(missing)
    kinds = {"missing": counted(missing), "unexpected": counted(unexpected), "of another shape": sorted(reshaped)}
    if any(kinds.values()):
        foreign = whose(state_dict) if 2 * len(missing) > len(own) else None
        raise CheckpointError(
            f"{source} does not fit the model: "
            + "; ".join(f"{len(keys)} {kind}: {listed(keys)}" for kind, keys in kinds.items() if keys)
            + (f"; {foreign}" if foreign else "")
        )


def weight_files(folder: Path) -> list[Path]:
    """What lies directly in a folder and may be a model's weights, the known names first; shards by their index."""
    indices, shards = [], set()
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards |= set(_shards(index)[0])
        except CheckpointError:  # an index of something else; of a usual name, it is told when it is read
            if index.name not in FOLDER_FILES:
                continue
        indices.append(index)
    files = [path for path in sorted(folder.iterdir()) if path.name.endswith(SUFFIXES) and path.is_file()]
    found = [path for path in files if path not in shards and not _LEFTOVERS.match(path.name)] + indices
    return sorted(found, key=lambda path: FOLDER_FILES.index(path.name) if path.name in FOLDER_FILES else 9)


def _file_in(folder: Path, say: Say = say_once) -> Path:
    """The file with the weights; by a name that is usual, or the only one."""
    found = weight_files(folder)
    if not found:
        present = ", ".join(sorted(child.name for child in folder.iterdir())) or "nothing"
        raise CheckpointError(f"{folder}: looked for {', '.join(FOLDER_FILES)}; found {present}")
    best = found[0]
    if best.name not in FOLDER_FILES:
        if _SHARD.search(best.name):
            raise CheckpointError(
                f"{folder}: expected the index of the shards ({best.name}, …): bring its *.index.json"
            )
        names = {path.name.split(".")[0] for path in found}
        if len(names) > 1:
            raise CheckpointError(
                f"{folder}: expected one file with weights, found {len(found)}: "
                f"{listed(path.name for path in found)}. Name the one you mean: {best}"
            )
        best = min(found, key=lambda path: path.suffix != ".safetensors")
    others = [path.name for path in found if path != best]
    if others:
        say(f"{folder}: takes {best.name}; passed over: {listed(others)}. To take another, name that file")
    return best


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


def _load_shards(index: Path, say: Say) -> tuple[StateDict, dict[str, Any]]:
    shards, keys = _shards(index)
    state_dict: StateDict = {}
    for shard in shards:
        state_dict.update(load_state_dict(shard, say)[0])
    lost = sorted(keys - state_dict.keys())
    if lost:
        raise CheckpointError(f"{index}: {len(lost)} keys are in none of its shards: {listed(lost)}")
    return state_dict, {}


def _load_safetensors(path: Path) -> tuple[StateDict, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is not a safetensors file, or is truncated: {error}: download it again"
        ) from error
    return state_dict, {key: _decoded(value) for key, value in metadata.items()}


def _decoded(text: str) -> Any:
    """A metadata value; safetensors has only strings, so lists and objects travel as JSON."""
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
