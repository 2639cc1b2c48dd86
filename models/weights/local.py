"""What of the known weights is on this machine, and whether it is as it should be: by the hashes of the files, which a
model's folder keeps in `SHA256SUMS`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.weights.manifest import WeightSet, find, load_manifest
from models.weights.places import Places

SUMS = "SHA256SUMS"
CHECKPOINT_SUFFIXES = (".pth", ".safetensors")

State = Literal["absent", "partial", "present", "verified"]


@dataclass(frozen=True)
class Status:
    """What is on disk of a model. `size`: bytes, of the files there or else as published, None if not known.

    state: `verified` means that every hash was checked after the file last changed; `present` that all files are
    there; `partial` that some are, or that a download was interrupted.
    """

    weights: WeightSet
    state: State
    size: int | None


@dataclass(frozen=True)
class Check:
    """The verdict on one file: `problem` is None when it is as it should be."""

    path: Path
    sha256: str | None
    problem: str | None = None


def status(name: str, places: Places, *, manifest: dict[str, WeightSet] | None = None) -> Status:
    """What is on disk of the model; hashes nothing. Raises UnknownModelError."""
    weights = find(name, load_manifest(places) if manifest is None else manifest)
    folder = places.folder_of(weights)
    recorded = read_sums(folder)
    names = _names(weights, folder)
    there = [folder / file for file in names if (folder / file).is_file()]
    parts = [folder / f"{file}.part" for file in names if (folder / f"{file}.part").exists()]
    if not there and not parts:
        return Status(weights, "absent", sum(file.size or 0 for file in weights.files) or None)
    size = sum(path.stat().st_size for path in (*there, *parts))
    if len(there) < len(names) or not any(path.suffix in CHECKPOINT_SUFFIXES for path in there):
        return Status(weights, "partial", size)
    checked_at = (folder / SUMS).stat().st_mtime_ns if recorded else 0
    unchanged = all(path.name in recorded and path.stat().st_mtime_ns <= checked_at for path in there)
    return Status(weights, "verified" if unchanged else "present", size)


def verify(name: str, places: Places, *, manifest: dict[str, WeightSet] | None = None) -> list[Check]:
    """Hashes every file of the model and compares with the manifest and SHA256SUMS. Deletes nothing.

    When all is well, hashes that were not recorded yet are (a tracked folder is left as it is).
    Raises UnknownModelError.
    """
    weights = find(name, load_manifest(places) if manifest is None else manifest)
    folder = places.folder_of(weights)
    recorded = read_sums(folder)
    published = {file.name: file.sha256 for file in weights.files}
    checks = []
    for file in _names(weights, folder):
        path = folder / file
        if not path.is_file():
            checks.append(Check(path, None, "missing"))
            continue
        found = sha256_of(path)
        expected = contradicted(found, published.get(file), recorded.get(file))
        problem = f"corrupt: expected sha256 {expected}, found {found}" if expected else None
        checks.append(Check(path, found, problem))
    if not checks:
        return [Check(folder, None, "missing")]
    if not weights.tracked and not any(check.problem for check in checks):
        write_sums(folder, {check.path.name: check.sha256 for check in checks if check.sha256})
    return checks


def _names(weights: WeightSet, folder: Path) -> list[str]:
    """The files that make up the model: the manifest's, or for a tracked folder whatever it holds."""
    if not weights.tracked:
        return [file.name for file in weights.files]
    there = {path.name for path in folder.glob("[!.]*") if path.is_file()}
    return sorted((there | set(read_sums(folder))) - {SUMS, "README.md"})


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contradicted(found: str, *expected: str | None) -> str | None:
    """The first of the expected hashes, whole or leading digits, that the found one is not."""
    return next((hash_ for hash_ in expected if hash_ and not found.startswith(hash_)), None)


def read_sums(folder: Path) -> dict[str, str]:
    """File name to sha256, as `sha256sum` writes them."""
    if not (folder / SUMS).is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in (folder / SUMS).read_text().splitlines() if line.strip())
    return {name.removeprefix("*"): digest for digest, name in lines}


def write_sums(folder: Path, sums: dict[str, str]) -> None:
    part = folder / f"{SUMS}.part"
    part.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    os.replace(part, folder / SUMS)
