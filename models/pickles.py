"""Pickles as `torch.save` writes them, read by torch's restricted unpickler.

What trainers put beside the weights (arguments, paths, logs) is let through as an object that keeps nothing; anything
else than data is refused by name, and never run.
"""

from __future__ import annotations

import pickle
import re
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.model_errors import CheckpointError


class _HistoryBuffer:
    """Takes the place of mmengine's log buffer, which its training checkpoints carry; keeps nothing."""

    def __setstate__(self, state: object) -> None:
        pass


class _Dropped:
    """Takes the place of what a trainer notes beside the weights, whatever it is made with; keeps nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __new__(cls, *args: object) -> _Dropped:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _DroppedList:
    """The same for lists of other classes: torch fills nothing but plain ones."""

    def __new__(cls, *args: object) -> list[Any]:  # type: ignore[misc]
        return []


class _DroppedDict:
    """The same for dicts."""

    def __new__(cls, *args: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        return OrderedDict()


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
        *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdgUSMm"),
        # numpy 1 wrote numpy.core, numpy 2 writes numpy._core
        *((reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]


# Classes of data alone: a command line, places of files, configs, hyperparameters, times.
_NOTES = (
    "argparse.Namespace",
    *(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *("types.SimpleNamespace", "uuid.UUID", "decimal.Decimal"),
    "mmengine.config.config.Config",
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path", "Enum", "Interpolation")
    ),
    "typing.Any",
    *("builtins.frozenset", "builtins.slice"),
    *(f"builtins.{name}" for name in ("int", "float", "bool", "str", "bytes", "dict", "list", "tuple", "range")),
)

_NOTE_DICTS = (
    "collections.defaultdict",
    *("addict.addict.Dict", "easydict.EasyDict", "yacs.config.CfgNode", "fvcore.common.config.CfgNode"),
    *("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict"),
    *(f"{package}.utilities.parsing.AttributeDict" for package in ("pytorch_lightning", "lightning.pytorch")),
    *(f"{package}.utilities.data.AttributeDict" for package in ("lightning_fabric", "lightning.fabric")),
)

_EXTRA_GLOBALS = [
    *_numpy_globals(),
    (_HistoryBuffer, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_statistic, "builtins.getattr"),
    *((_Dropped, name) for name in _NOTES),
    (_DroppedList, "collections.deque"),
    *((_DroppedDict, name) for name in _NOTE_DICTS),
]
_extra_globals_lock = threading.Lock()  # torch keeps the list for the whole process


def load_pickle(path: Path) -> object:
    """What `torch.save` put there, on the CPU. Raises CheckpointError for a file that is damaged or asks for code."""
    try:
        with _extra_globals_lock, torch.serialization.safe_globals(_EXTRA_GLOBALS):
            # Only the zip form can be mapped; it spares reading an optimiser that nobody asked for.
            if not path.name.endswith(".safetensors"):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
            with path.open("rb") as file:  # by its name alone, torch would take it for safetensors
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle may fail in any way; the cause is kept
        refused = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if refused:
            raise CheckpointError(
                f"{path} asks for '{refused[1]}', which is code and not weights: refused, and not run. Where the model "
                "was made, save its weights alone: torch.save(model.state_dict(), …)"
            ) from error
        with path.open("rb") as file:
            head = file.read(16)
        cause = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
        reason = cause[1] if cause else str(error).split("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} is not a checkpoint, or is damaged "
            f"({path.stat().st_size} bytes that begin with {head!r}): {reason}"
        ) from error
