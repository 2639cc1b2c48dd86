"""The weights this project knows by name: what each consists of, where it lies, pulling it, checking it.

Reads no environment variables: `app.settings` does.
"""

from models.weights.local import Check, State, Status, status, verify
from models.weights.manifest import (
    CorruptFileError,
    DownloadError,
    MissingError,
    RefusedError,
    UnknownModelError,
    WeightFile,
    WeightsError,
    WeightSet,
    load_manifest,
)
from models.weights.places import Places, find_places
from models.weights.pull import pull

__all__ = [
    "Check",
    "CorruptFileError",
    "DownloadError",
    "MissingError",
    "Places",
    "RefusedError",
    "State",
    "Status",
    "UnknownModelError",
    "WeightFile",
    "WeightSet",
    "WeightsError",
    "find_places",
    "load_manifest",
    "pull",
    "status",
    "verify",
]
