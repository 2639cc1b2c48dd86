"""The weights this project knows by name: what each consists of, pulling it, checking it.

A model is a folder under the weights root. While a file arrives it is called `NAME.part` (with `NAME.part.etag`
beside it, so that a later process can go on where this one stopped); it gets its own name only once it is whole
and its sha256 is right. The hashes found are kept in the folder as `SHA256SUMS`. This module reads no environment
variables and never loads what it downloads.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

WEIGHTS_ROOT = Path(__file__).parents[2] / "weights"
MANIFEST = WEIGHTS_ROOT / "manifest.json"
SUMS = "SHA256SUMS"
CHECKPOINT_SUFFIXES = (".pth", ".safetensors")
ATTEMPTS = 5  # in a row that get no further than any before; one that does starts the count again
LONGEST_WAIT_S = 30.0

State = Literal["absent", "partial", "present", "verified"]


class WeightsError(Exception):
    """Something about weights that its message explains to the user. The tree:

    WeightsError
    ├── UnknownModelError   no such name in the manifest
    ├── DownloadError       the source could not be reached, or said no
    └── CorruptFileError    a file that is not what it should be
    """


class UnknownModelError(WeightsError):
    """The manifest has no model of that name."""


class DownloadError(WeightsError):
    """The source could not be reached, refused, or does not have the file."""


class CorruptFileError(WeightsError):
    """A file's sha256 is not the expected one. The file has been deleted."""


class _TransientError(Exception):
    """This attempt failed in a way that another one may not."""


@dataclass(frozen=True)
class WeightFile:
    """One file of a model.

    url: where it is published; None for a file that is `copied_from` an installed package.
    sha256: as many leading hex digits as are publicly known (all 64, or the 8 that OpenMMLab puts in its file
        names), or None: then the server's own statement decides, and the hash found is kept in SHA256SUMS.
    size: bytes, for display only; the hash decides.
    copied_from: `package/path` of an MMDetection config, written out flat (without `_base_`).
    """

    name: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    copied_from: str | None = None


@dataclass(frozen=True)
class WeightSet:
    """A model of the manifest. `folder` is relative to the weights root; a `tracked` one comes with the repository."""

    name: str
    what: str
    folder: str
    files: tuple[WeightFile, ...] = ()
    tracked: bool = False


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


@dataclass(frozen=True)
class _Stated:
    """What the server itself says of a file (Hugging Face does, on the redirect to its storage)."""

    sha256: str | None
    size: int | None


def load_manifest(path: Path | None = None) -> dict[str, WeightSet]:
    """The known models by name, in the order of the manifest (by default the repository's)."""
    models = json.loads((path or MANIFEST).read_text())["models"]
    return {
        name: WeightSet(name, **{**entry, "files": tuple(WeightFile(**file) for file in entry.get("files", ()))})
        for name, entry in models.items()
    }


def status(name: str, root: Path = WEIGHTS_ROOT, *, manifest: dict[str, WeightSet] | None = None) -> Status:
    """What is on disk of the model; hashes nothing. Raises UnknownModelError."""
    weights = _find(name, manifest)
    folder = root / weights.folder
    recorded = _read_sums(folder)
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


def verify(name: str, root: Path = WEIGHTS_ROOT, *, manifest: dict[str, WeightSet] | None = None) -> list[Check]:
    """Hashes every file of the model and compares with the manifest and SHA256SUMS. Deletes nothing.

    When all is well, hashes that were not recorded yet are (a tracked folder is left as it is).
    Raises UnknownModelError.
    """
    weights = _find(name, manifest)
    folder = root / weights.folder
    recorded = _read_sums(folder)
    published = {file.name: file.sha256 for file in weights.files}
    checks = []
    for file in _names(weights, folder):
        path = folder / file
        if not path.is_file():
            checks.append(Check(path, None, "missing"))
            continue
        found = _sha256(path)
        expected = _contradicted(found, published.get(file), recorded.get(file))
        problem = f"corrupt: expected sha256 {expected}, found {found}" if expected else None
        checks.append(Check(path, found, problem))
    if not checks:
        return [Check(folder, None, "missing")]
    if not weights.tracked and not any(check.problem for check in checks):
        _write_sums(folder, {check.path.name: check.sha256 for check in checks if check.sha256})
    return checks


def pull(
    name: str,
    root: Path = WEIGHTS_ROOT,
    source: str | None = None,
    *,
    manifest: dict[str, WeightSet] | None = None,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Brings the model to `root` and returns its folder; what is already there and right is kept.

    source: a mirror in place of the publishers: an http(s) URL under which `<name>/<file>` is found, or a directory
        with `<name>/<file>` or just `<file>`.
    progress: whether to draw a bar on standard error (only ever on a terminal).
    report: gets one line for each thing done.
    sleep: how to wait before trying again; doubles from 1 to 30 seconds.

    Raises UnknownModelError; DownloadError, which says which files to put where by hand; CorruptFileError, after
    deleting the file; WeightsError when the disk is full or another process pulls the same model.
    """
    weights = _find(name, manifest)
    folder = root / weights.folder
    if weights.tracked:
        raise WeightsError(f"{name} comes with the repository, in {folder}: there is nothing to pull")
    mirror = _mirror(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder, name):
            # What needs no network comes first: someone who then adds the rest by hand has a complete folder.
            for file in sorted(weights.files, key=lambda file: file.url is not None):
                digest = _sound(folder, file, report)
                if digest is None:
                    digest = _bring(weights, file, folder, mirror, progress=progress, report=report, sleep=sleep)
                    report(f"{name}: {file.name}: sha256 {digest}")
                _write_sums(folder, {**_read_sums(folder), file.name: digest})
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(f"the disk is full: {folder} cannot take {name}; make room and pull again") from error
        raise WeightsError(f"cannot write {name} to {folder}: {error}") from error
    return folder


def _find(name: str, manifest: dict[str, WeightSet] | None) -> WeightSet:
    known = load_manifest() if manifest is None else manifest
    if name not in known:
        raise UnknownModelError(f"there is no model {name!r}; the known ones are {', '.join(known)}")
    return known[name]


def _names(weights: WeightSet, folder: Path) -> list[str]:
    """The files that make up the model: the manifest's, or for a tracked folder whatever it holds."""
    if not weights.tracked:
        return [file.name for file in weights.files]
    there = {path.name for path in folder.glob("[!.]*") if path.is_file()}
    return sorted((there | set(_read_sums(folder))) - {SUMS, "README.md"})


def _mirror(source: str | None) -> str | Path | None:
    """An http(s) URL as a string, a directory as a Path."""
    if source is None:
        return None
    if urlsplit(source).scheme in ("http", "https"):
        return source.rstrip("/")
    if not Path(source).is_dir():
        raise DownloadError(f"{source!r} is neither an http(s) URL nor a directory")
    return Path(source)


@contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    """Held while pulling; the operating system lets go of it when the process ends, however it ends."""
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WeightsError(f"another process is pulling {name} into {folder}") from error
        yield


def _sound(folder: Path, file: WeightFile, report: Callable[[str], None]) -> str | None:
    """The hash of a file that is there and right; None for one that is not there, or was wrong and is now deleted."""
    path = folder / file.name
    if not path.is_file():
        return None
    found = _sha256(path)
    # A config is the user's to edit: `verify` points at the change, `pull` does not undo it.
    recorded = None if file.copied_from else _read_sums(folder).get(file.name)
    expected = _contradicted(found, file.sha256, recorded)
    if expected is None:
        report(f"{folder.name}: {file.name}: already there")
        return found
    path.unlink()
    report(f"{folder.name}: {file.name}: corrupt (expected sha256 {expected}, found {found}), deleted")
    return None


def _bring(
    weights: WeightSet,
    file: WeightFile,
    folder: Path,
    mirror: str | Path | None,
    *,
    progress: bool,
    report: Callable[[str], None],
    sleep: Callable[[float], None],
) -> str:
    """Gets one file, checks it, gives it its name; returns its sha256."""
    part = folder / f"{file.name}.part"
    stated = _Stated(None, None)
    if file.copied_from is not None:
        part.write_text(_flat_config(file.copied_from))
    elif isinstance(mirror, Path):
        below = mirror / weights.name
        origin = (below if below.is_dir() else mirror) / file.name
        if not origin.is_file():
            raise DownloadError(f"{mirror} has neither {weights.name}/{file.name} nor {file.name}")
        _etag_of(part).unlink(missing_ok=True)  # what is copied here must not pass for the start of a download
        shutil.copyfile(origin, part)
    else:
        url = f"{mirror}/{weights.name}/{file.name}" if mirror else str(file.url)
        try:
            with (
                httpx.Client(follow_redirects=True, timeout=httpx.Timeout(60, connect=10)) as client,
                tqdm(desc=file.name, unit="B", unit_scale=True, disable=None if progress else True) as bar,
            ):
                stated = _download(client, url, part, file.sha256, bar, report, sleep)
        except (DownloadError, _TransientError, httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise DownloadError(f"cannot download {url} ({reason}); {_by_hand(weights, folder)}") from error
    return _install(part, folder / file.name, (file.sha256, stated.sha256))


def _by_hand(weights: WeightSet, folder: Path) -> str:
    files = " and ".join(str(file.url) for file in weights.files if file.url and not (folder / file.name).is_file())
    return (
        f"without a connection, put {files} into {folder} under the same file names and pull {weights.name} again, "
        f"or name a mirror or a directory that has them with --from URL_OR_DIR"
    )


def _flat_config(source: str) -> str:
    """The text of an installed MMDetection config with everything that it inherits written out."""
    from mmengine.config import Config  # imports torch: seconds, which no other command should wait for

    package, _, inside = source.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not (path := Path(spec.origin).parent / inside).is_file():
        raise WeightsError(f"the config {source} is not there: install {package} as pyproject.toml pins it")
    return Config.fromfile(path).pretty_text


def _install(part: Path, target: Path, expected: tuple[str | None, ...]) -> str:
    found = _sha256(part)
    if wrong := _contradicted(found, *expected):
        part.unlink()
        _etag_of(part).unlink(missing_ok=True)
        raise CorruptFileError(f"{target.name} is corrupt: expected sha256 {wrong}, found {found}; deleted, pull again")
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    _etag_of(part).unlink(missing_ok=True)
    return found


def _etag_of(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _download(
    client: httpx.Client,
    url: str,
    part: Path,
    sha256: str | None,
    bar: tqdm,
    report: Callable[[str], None],
    sleep: Callable[[float], None],
) -> _Stated:
    """Fills `part` with all of `url`, trying again after failures that may pass."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            return _receive(client, url, part, sha256, bar)
        except (_TransientError, httpx.TransportError) as error:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures == ATTEMPTS:
                raise
            wait = min(2.0 ** (failures - 1), LONGEST_WAIT_S)
            report(f"{part.stem}: {error}; trying again in {wait:.0f} s")
            sleep(wait)


def _receive(client: httpx.Client, url: str, part: Path, sha256: str | None, bar: tqdm) -> _Stated:
    """One request, for what `part` lacks. Whatever arrives is kept, also when the connection breaks."""
    have = _size(part)
    validator = _etag_of(part).read_text() if _etag_of(part).exists() else ""
    headers = {"Accept-Encoding": "identity"}  # byte ranges and lengths are those of the file itself
    if have and (validator or sha256):  # without either nothing would tell that the file changed in between
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with client.stream("GET", url, headers=headers) as response:
        stated = _stated(response)
        if stated.sha256 and sha256 and not stated.sha256.startswith(sha256):
            raise DownloadError(f"the server offers sha256 {stated.sha256}, expected {sha256}")
        if response.status_code == 416:
            if have in (stated.size, _whole_size(response)):
                return stated  # it was complete, only not checked and renamed
            part.unlink()
            raise _TransientError("the partial file was longer than the file itself")
        if response.is_server_error:
            raise _TransientError(f"the server answered {response.status_code} {response.reason_phrase}")
        if not response.is_success:
            raise DownloadError(f"the server answered {response.status_code} {response.reason_phrase}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError("the server sends the file compressed")
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise _TransientError("the server sent another range than the one asked for")
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else stated.size
        if total and shutil.disk_usage(part.parent).free < total - have:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        bar.reset(total)
        bar.n = bar.initial = start  # so that the speed shown is that of this attempt
        with open(part, "ab" if resumed else "wb") as file:
            if not resumed:  # after emptying the file: old bytes must never stand beside a new validator
                _etag_of(part).write_text(_validator(response))
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    for size in (total, stated.size):
        if size is not None and _size(part) != size:
            raise _TransientError(f"got {_size(part)} bytes of {size}")
    return stated


def _stated(response: httpx.Response) -> _Stated:
    """Reads `X-Linked-Etag`, the sha256 of a file in Hugging Face's large file storage, and `X-Linked-Size`."""
    sha256 = size = None
    for hop in (*response.history, response):
        etag = hop.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
        if len(etag) == 64:  # the ETag of a small file is a git hash of 40
            sha256 = etag
        linked = hop.headers.get("X-Linked-Size", "")
        size = int(linked) if linked.isdecimal() else size
    return _Stated(sha256, size)


def _whole_size(response: httpx.Response) -> int | None:
    """The file's size from the `Content-Range: bytes */SIZE` of a 416 answer."""
    size = response.headers.get("Content-Range", "").removeprefix("bytes */")
    return int(size) if size.isdecimal() else None


def _validator(response: httpx.Response) -> str:
    """What `If-Range` may carry: a strong ETag, or else a date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contradicted(found: str, *expected: str | None) -> str | None:
    """The first of the expected hashes, whole or leading digits, that the found one is not."""
    return next((hash_ for hash_ in expected if hash_ and not found.startswith(hash_)), None)


def _read_sums(folder: Path) -> dict[str, str]:
    """File name to sha256, as `sha256sum` writes them."""
    if not (folder / SUMS).is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in (folder / SUMS).read_text().splitlines() if line.strip())
    return {name.removeprefix("*"): digest for digest, name in lines}


def _write_sums(folder: Path, sums: dict[str, str]) -> None:
    part = folder / f"{SUMS}.part"
    part.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    os.replace(part, folder / SUMS)
