"""Brings weights to this machine: downloads or copies the files of a model, checks each and gives it its name.

A model is a folder. A file gets its own name only once it is whole and its sha256 is right. The hashes found are kept
in the folder as `SHA256SUMS`. Nothing here loads what it downloads.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

from models.weights.completeness import incomplete
from models.weights.download import Stated, TransientError, download, etag_of, is_hub
from models.weights.local import contradicted, read_sums, sha256_of, write_sums
from models.weights.manifest import (
    CorruptFileError,
    DownloadError,
    MissingError,
    RefusedError,
    WeightFile,
    WeightsError,
    WeightSet,
    find,
    load_manifest,
)
from models.weights.places import Places


def pull(
    name: str,
    places: Places,
    source: str | None = None,
    *,
    token: str | None = None,
    manifest: dict[str, WeightSet] | None = None,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Brings the model to its place and returns its folder; what is already there and right is kept.

    source: a mirror in place of the publishers: an http(s) URL under which `<name>/<file>` is found, or a directory
        with `<name>/<file>` or just `<file>`.
    token: says to Hugging Face's hub who asks, and is sent nowhere else.
    progress: whether to draw a bar on standard error (only ever on a terminal).
    report: gets one line for each thing done.
    sleep: how to wait before trying again; doubles from 1 to 30 seconds.

    Raises UnknownModelError; DownloadError, which says which files to put where by hand; CorruptFileError, after
    deleting the file; WeightsError when the disk is full or another process pulls the same model.
    """
    weights = find(name, load_manifest(places) if manifest is None else manifest)
    folder = places.folder_of(weights)
    if weights.tracked:
        raise WeightsError(f"{name} comes along with box2mask, in {folder}: there is nothing to pull")
    mirror = _mirror(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder, name):
            # What needs no network comes first: someone who then adds the rest by hand has a complete folder.
            for file in sorted(weights.files, key=lambda file: file.url is not None):
                digest = _sound(folder, file, report)
                if digest is None:
                    try:
                        digest, known_by = _bring(
                            weights, file, folder, mirror, token, progress=progress, report=report, sleep=sleep
                        )
                    except MissingError:
                        if not file.optional:
                            raise
                        report(f"{name}: {file.name}: not there, and not needed")
                        continue
                    report(f"{name}: {file.name}: sha256 {digest}{known_by}")
                write_sums(folder, {**read_sums(folder), file.name: digest})
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WeightsError(f"the disk is full: {folder} cannot take {name}; make room and pull again") from error
        raise WeightsError(f"cannot write {name} to {folder}: {error}") from error
    return folder


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
    found = sha256_of(path)
    # A config is the user's to edit: `verify` points at the change, `pull` does not undo it.
    recorded = None if file.copied_from else read_sums(folder).get(file.name)
    expected = contradicted(found, file.sha256, recorded)
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
    token: str | None,
    *,
    progress: bool,
    report: Callable[[str], None],
    sleep: Callable[[float], None],
) -> tuple[str, str]:
    """Gets one file, checks it, gives it its name; returns its sha256, and by what it was checked where no hash of it
    is published."""
    part = folder / f"{file.name}.part"
    stated = Stated(None, None)
    if file.copied_from is not None:
        part.write_text(_flat_config(file.copied_from))
    elif isinstance(mirror, Path):
        below = mirror / weights.name
        origin = (below if below.is_dir() else mirror) / file.name
        if not origin.is_file():
            raise MissingError(f"{mirror} has neither {weights.name}/{file.name} nor {file.name}")
        etag_of(part).unlink(missing_ok=True)  # what is copied here must not pass for the start of a download
        shutil.copyfile(origin, part)
    else:
        url = f"{mirror}/{weights.name}/{file.name}" if mirror else str(file.url)
        try:
            with (
                httpx.Client(follow_redirects=True, timeout=httpx.Timeout(60, connect=10)) as client,
                tqdm(desc=file.name, unit="B", unit_scale=True, disable=None if progress else True) as bar,
            ):
                token = token if is_hub(url) else None
                stated = download(client, url, part, file.sha256, bar, report, sleep, token)
        except (DownloadError, TransientError, httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, RefusedError) and weights.accept_at and not mirror:
                whose = "the account of that token" if token else "your account, whose token HF_TOKEN must then hold"
                reason += f": its licence must be accepted on {weights.accept_at} first, by {whose}"
            kind = MissingError if isinstance(error, MissingError) else DownloadError
            raise kind(f"cannot download {url} ({reason}); {_by_hand(weights, folder)}") from error
    is_stated = bool(file.sha256 or stated.sha256)
    if not is_stated and (fault := incomplete(part, file.name)):
        part.unlink()
        etag_of(part).unlink(missing_ok=True)
        raise CorruptFileError(f"{file.name} is corrupt: {fault}; deleted, pull again")
    known_by = ""
    if file.sha256 is None and file.copied_from is None:
        known_by = " (as the server states it)" if stated.sha256 else " (nobody states it: seen to be whole, and noted)"
    return _install(part, folder / file.name, (file.sha256, stated.sha256)), known_by


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
    found = sha256_of(part)
    if wrong := contradicted(found, *expected):
        part.unlink()
        etag_of(part).unlink(missing_ok=True)
        raise CorruptFileError(f"{target.name} is corrupt: expected sha256 {wrong}, found {found}; deleted, pull again")
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    etag_of(part).unlink(missing_ok=True)
    return found
