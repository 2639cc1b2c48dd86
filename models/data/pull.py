"""The data sets that this project knows by name: downloading, unpacking and checking them."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from models import weights
from models.data.dataset import DataError, Dataset
from models.data.formats import voc
from models.data.image_files import examine
from models.data.parsing.sources import Sources
from models.data.parsing.values import BadValueError, shown

LARGEST_BYTES = 2 << 30  # unpacked; the photos take 20 MB
LARGEST_COUNT = 100_000


@dataclass(frozen=True)
class KnownData:
    """A published zip file with one VOC folder in it, of the data set's own name.

    Nobody publishes the zip's sha256: the one found is printed and kept beside the folder.
    """

    url: str
    images: int
    class_names: tuple[str, ...]


_PUBLISHED = "https://cvbp-secondary.z19.web.core.windows.net/datasets/object_detection"
_FRIDGE = ("can", "carton", "milk_bottle", "water_bottle")
KNOWN = {
    "odFridgeObjects": KnownData(f"{_PUBLISHED}/odFridgeObjects.zip", 128, _FRIDGE),
    "odFridgeObjectsMask": KnownData(f"{_PUBLISHED}/odFridgeObjectsMask.zip", 128, _FRIDGE),
}


class PullError(Exception):
    """The data set could not be had, or is not what it should be; the message says why, in a sentence."""


def pull(
    name: str,
    to: Path,
    source: str | None = None,
    *,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Brings the data set to `to`/`name` and returns that folder; one that is there and right is kept.

    source: the zip file's URL or path, in place of where it is published.
    progress, report, sleep: as in `weights.pull`. An interrupted download goes on where it stopped.

    Nothing gets the data set's name before its images, annotations and classes were counted and every image read.
    Raises PullError.
    """
    if name not in KNOWN:
        raise PullError(f"there is no data set {name!r}; the known ones are {', '.join(KNOWN)}")
    known, folder = KNOWN[name], to / name
    try:
        if folder.exists():
            _verify(folder, known)
            report(f"{name}: already there, {folder}")
            return folder
        to.mkdir(parents=True, exist_ok=True)
        downloads = to / f".{name}.download"
        if source is None or urlsplit(source).scheme in ("http", "https"):
            archive = _download(name, source or known.url, downloads, progress, report, sleep)
        else:
            archive = Path(source)
            if not archive.is_file():
                raise PullError(f"{source!r} is neither an http(s) URL nor a file")
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            dataset = _unpack(archive, name, known, folder)
        finally:  # a download that is whole and wrong must not be taken for a good start
            shutil.rmtree(downloads, ignore_errors=True)
        (to / f"{name}.zip.sha256").write_text(f"{digest}  {name}.zip\n")
    except OSError as error:
        raise PullError(f"cannot write {name} to {to}: {error}") from error
    objects = sum(1 for _ in dataset.annotations())
    report(f"{name}: sha256 {digest}")
    report(f"{name}: {len(dataset)} images with {objects} objects of {len(dataset.class_names)} classes, {folder}")
    return folder


def _unpack(archive: Path, name: str, known: KnownData, folder: Path) -> Dataset:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as fresh:
        unzip(archive, Path(fresh))
        unpacked = Path(fresh) / name
        if not unpacked.is_dir():
            found = ", ".join(sorted(path.name for path in Path(fresh).iterdir())) or "nothing"
            raise PullError(f"{archive.name}: expected a folder {name} in it, found {found}")
        dataset = _verify(unpacked, known)
        os.replace(unpacked, folder)
    return dataset


def unzip(archive: Path, folder: Path) -> None:
    """Unpacks the zip file into the folder. Raises PullError for one that is broken, that names paths outside the
    folder, that holds links or encrypted files, or that is of a size that no data set of photos has.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            if len(entries) > LARGEST_COUNT or sum(entry.file_size for entry in entries) > LARGEST_BYTES:
                raise PullError(f"{archive.name}: expected at most {LARGEST_BYTES >> 30} GiB, found more")
            for entry in entries:
                _refuse_unsafe(archive, entry)
            for entry in entries:
                opened.extract(entry, folder)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise PullError(f"{archive.name} is no sound zip file ({error})") from error


def _refuse_unsafe(archive: Path, entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.orig_filename:
        raise PullError(f"{archive.name}: expected paths inside the folder, found {shown(entry.orig_filename)}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise PullError(f"{archive.name}: expected files and folders, found {shown(entry.filename)}, a link or device")


def _download(
    name: str,
    url: str,
    folder: Path,
    progress: bool,
    report: Callable[[str], None],
    sleep: Callable[[float], None],
) -> Path:
    """The zip file, whole, by way of what pulls weights: it resumes, tries again and notices what is cut short."""
    file = weights.WeightFile(f"{name}.zip", url)
    manifest = {name: weights.WeightSet(name, name, folder.name, (file,))}
    started = folder / f"{file.name}.url"
    if folder.is_dir() and (not started.is_file() or started.read_text() != url):
        shutil.rmtree(folder)  # the start of another file, perhaps
    folder.mkdir(exist_ok=True)
    started.write_text(url)
    try:
        return (
            weights.pull(
                name,
                weights.find_places(folder.parent),
                manifest=manifest,
                progress=progress,
                report=lambda line: None if "sha256" in line else report(line),
                sleep=sleep,
            )
            / file.name
        )
    except weights.DownloadError as error:
        raise PullError(
            f"cannot download {url} ({error.__cause__ or error}); without a connection, bring the zip file here by "
            f"other means and name it with --from FILE, or use generated data"
        ) from error
    except weights.WeightsError as error:
        raise PullError(str(error)) from error


def _verify(folder: Path, known: KnownData) -> Dataset:
    """The data set in the folder, once it is sure that it is the known one. Raises PullError."""
    try:
        dataset, problems = voc.read(folder, Sources())
    except DataError as error:
        raise PullError(f"{folder.name} is not what it should be: {error}") from error
    wrong = [problem for problem in problems if problem.fatal]
    found = (len(dataset), dataset.class_names)
    if not wrong and found != (known.images, known.class_names):
        raise PullError(
            f"{folder.name} is not what it should be: expected {known.images} images of the classes "
            f"{', '.join(known.class_names)}, found {found[0]} of {', '.join(found[1])}"
        )
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise PullError(f"{folder.name} is not what it should be: {wrong[0]}{more}")
    for image in dataset.images:
        try:
            examine(Path(image.path))
        except BadValueError as error:
            raise PullError(f"{folder.name} is not what it should be: {error}") from error
    return dataset
