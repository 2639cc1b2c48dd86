"""The manifest: the weights that are known by name, with the files that each consists of; and what may go wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass

from models.weights.places import Places, find_places


class WeightsError(Exception):
    """Something about weights that its message explains to the user. The tree:

    WeightsError
    ├── UnknownModelError   no such name in the manifest
    ├── DownloadError       the source could not be reached, or said no
    │   ├── RefusedError    it wants to know who asks, or does not let them have it
    │   └── MissingError    it has no such file
    └── CorruptFileError    a file that is not what it should be
    """


class UnknownModelError(WeightsError):
    """The manifest has no model of that name."""


class DownloadError(WeightsError):
    """The source could not be reached, refused, or does not have the file."""


class RefusedError(DownloadError):
    """The source wants to know who asks (401), or does not let them have the file (403)."""


class MissingError(DownloadError):
    """The source has no such file (404)."""


class CorruptFileError(WeightsError):
    """A file's sha256 is not the expected one, or it is not whole. The file has been deleted."""


@dataclass(frozen=True)
class WeightFile:
    """One file of a model.

    url: where it is published; None for a file that is `copied_from` an installed package.
    sha256: as many leading hex digits as are publicly known (all 64, or the 8 that OpenMMLab puts in its file
        names), or None: then the server's own statement decides, and the hash found is kept in SHA256SUMS.
    size: bytes, for display only; the hash decides.
    optional: whether the model is whole without it, where the source does not have it.
    copied_from: `package/path` of an MMDetection config, written out flat (without `_base_`).
    """

    name: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    copied_from: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class WeightSet:
    """A model of the manifest. folder: within the place that it lies in. tracked: whether it comes along with the code,
    as the demo weights do; any other is pulled. accept_at: the page on which its licence must be accepted before it can
    be pulled, or None.
    """

    name: str
    what: str
    folder: str
    files: tuple[WeightFile, ...] = ()
    tracked: bool = False
    accept_at: str | None = None


def load_manifest(places: Places | None = None) -> dict[str, WeightSet]:
    """The known models by name, in the order of the manifest that comes along with the code."""
    path = (places or find_places()).shipped / "manifest.json"
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    return {
        name: WeightSet(name, **{**entry, "files": tuple(WeightFile(**file) for file in entry.get("files", ()))})
        for name, entry in models.items()
    }


def find(name: str, known: dict[str, WeightSet]) -> WeightSet:
    """The model of that name. Raises UnknownModelError."""
    if name not in known:
        raise UnknownModelError(f"there is no model {name!r}; the known ones are {', '.join(known)}")
    return known[name]
