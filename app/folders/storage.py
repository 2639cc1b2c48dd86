"""Files in object stores, by pyarrow, with as much of `pathlib.Path` as a run of a folder asks for.

    s3://bucket/folder                                  S3, and what speaks its protocol
    gs://bucket/folder                                  Google Cloud Storage
    abfss://container@account.dfs.core.windows.net/...  Azure Blob and Data Lake Storage; also abfs:// and az://container

A key is written as the store has it: no character of it is percent-encoded. Who the caller is, the stores' own
environment variables and files of credentials say.

StorageError      an address of no store that is known, or pyarrow is not installed
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

SCHEMES = ("s3", "gs", "abfs", "abfss", "az")
# What the variables begin with that say where a store is and who asks; workers on other machines are handed them.
_VARIABLES = ("AWS_", "AZURE_", "GOOGLE_", "CLOUD_STORAGE_", "STORAGE_EMULATOR_")
_COPIED_AT_ONCE = 2**22  # bytes
# For so long a request to Google's store is made again before it counts as failed.
_GOOGLE_RETRIES = timedelta(seconds=30)


class StorageError(ValueError):
    """An address that leads to no store; says what to do."""


@dataclass(frozen=True, slots=True)
class Status:
    """Of a file, as `os.stat_result` calls it: its size in bytes, and when it was written."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file in a store, or what it has for folders: all keys that go on behind it.

    root: scheme and bucket, `s3://bucket`. key: without a slash at either end; empty for the bucket itself.
    """

    root: str
    key: str
    # As the listing had it, which saves asking again.
    listed: Status | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, address: str) -> RemotePath:
        """Raises StorageError."""
        scheme, _, rest = address.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme.lower() not in SCHEMES or not bucket:
            known = ", ".join(f"{one}://" for one in SCHEMES)
            raise StorageError(f"{address}: expected a path, or an address that begins with {known} and a bucket")
        path = cls(f"{scheme.lower()}://{bucket}", key.strip("/"))
        _file_system(path.root)
        return path

    def __str__(self) -> str:
        return f"{self.root}/{self.key}" if self.key else self.root

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.root, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.root, self.key.rpartition("/")[0])

    def under(self, folder: RemotePath) -> str | None:
        """The path from the folder to this; None where it is not in there."""
        if self.root != folder.root or not self.key.startswith(start := f"{folder.key}/" if folder.key else ""):
            return None
        return self.key[len(start) :] or None

    def kind(self) -> str | None:
        """ "file" or "folder"; None where nothing is there. Raises OSError where that cannot be found out."""
        if not self.key:
            return "folder"
        with _explained(self) as (store, path):
            kind = store.get_file_info(path).type.name
        return {"File": "file", "Directory": "folder"}.get(kind)

    def stat(self) -> Status:
        """Raises OSError."""
        if self.listed is not None:
            return self.listed
        with _explained(self) as (store, path):
            found = store.get_file_info(path)
        if found.type.name != "File":
            raise FileNotFoundError(2, "there is no such file", str(self))
        return Status(found.size, found.mtime_ns)

    def read_bytes(self) -> bytes:
        """Raises OSError."""
        with _explained(self) as (store, path), store.open_input_file(path) as file:
            return file.read()

    def write_bytes(self, content: bytes) -> None:
        """The whole file, in place of what was there. Raises OSError."""
        with self._writing() as file:
            file.write(content)

    def upload(self, source: Path) -> None:
        """The content of a file here, in place of what was there. Raises OSError."""
        with source.open("rb") as content, self._writing() as file:
            while part := content.read(_COPIED_AT_ONCE):
                file.write(part)

    def download(self, target: Path) -> None:
        """Raises OSError."""
        with target.open("wb") as file, _explained(self) as (store, path), store.open_input_file(path) as content:
            while part := content.read(_COPIED_AT_ONCE):
                file.write(part)

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        kind, _ = mimetypes.guess_type(self.name)
        metadata = {"Content-Type": kind or "application/octet-stream"}
        # pyarrow would compress what is called .gz or .zst.
        with (
            _explained(self) as (store, path),
            store.open_output_stream(path, compression=None, metadata=metadata) as file,
        ):
            yield file

    def unlink(self) -> None:
        """Nothing, where it is not there. Raises OSError."""
        with suppress(FileNotFoundError), _explained(self) as (store, path):
            store.delete_file(path)

    def remove_all(self) -> None:
        """All files behind this path. Raises OSError."""
        with _explained(self) as (store, path):
            store.delete_dir_contents(path, missing_dir_ok=True)
            # Some stores keep an empty file that stands for the folder.
            if store.get_file_info(path).type.name == "Directory":
                store.delete_dir(path)

    def entries(self, *, recursive: bool) -> Iterator[tuple[RemotePath, bool]]:
        """What is in the folder, each with whether it is a folder; nothing where there is none. Raises OSError.

        recursive: the files of all folders in it too, and then no folders.
        """
        from pyarrow.fs import FileSelector

        # Of Google's store pyarrow lists no folders but those that have an object of their own: all files tell.
        by_files = self.root.startswith("gs://") and not recursive
        with _explained(self) as (store, path):
            found = store.get_file_info(FileSelector(path, recursive=recursive or by_files, allow_not_found=True))
        before = len(path) - len(self.key)
        folders: set[str] = set()
        for one in found:
            is_folder = one.type.name == "Directory"
            status = None if is_folder else Status(one.size, one.mtime_ns)
            entry = RemotePath(self.root, one.path[before:].rstrip("/"), status)
            inside = entry.under(self)
            if inside is None or (recursive and is_folder):
                continue
            if by_files and (is_folder or "/" in inside):
                folders.add(inside.partition("/")[0])
            else:
                yield entry, is_folder
        for name in sorted(folders):
            yield self / name, True


# Where a user may have files: in a folder here or in a store.
Place = Path | RemotePath


def place(text: str) -> Place:
    """What a command line calls a place. Raises StorageError."""
    return RemotePath.parse(text) if "://" in text else Path(text)


def environment() -> dict[str, str]:
    """What this process knows of stores, for another process that is to find the same ones."""
    return {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}


def adopt(variables: Mapping[str, str]) -> None:
    """Take another process's `environment`, where this one has nothing of its own to say."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


@contextmanager
def _explained(path: RemotePath) -> Iterator[tuple[Any, str]]:
    """The store, and the path as it takes it; all that goes wrong is an OSError that names the address."""
    import pyarrow as pa

    store, bucket = _file_system(path.root)
    try:
        yield store, f"{bucket}/{path.key}" if path.key else bucket
    except FileNotFoundError as error:
        raise FileNotFoundError(2, "there is no such file or bucket", str(path)) from error
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split()).partition(" error_info=")[0]  # which Google's client adds for programs
        raise OSError(f"{path}: {reason}") from error


@lru_cache(maxsize=64)
def _file_system(root: str) -> tuple[Any, str]:
    """pyarrow's file system for a bucket, and what it calls the bucket. Raises StorageError."""
    scheme, _, bucket = root.partition("://")
    try:
        from pyarrow import fs
    except ImportError as error:
        raise StorageError(f"{root}: reading from a store needs pyarrow: pip install 'box2mask[remote]'") from error
    if scheme == "s3":
        return fs.S3FileSystem(**_of_s3(bucket)), bucket
    if scheme == "gs":
        return fs.GcsFileSystem(**_of_google()), bucket
    account, bucket = _account(root, bucket)
    return fs.AzureFileSystem(account, **_of_azure(account)), bucket


def _of_s3(bucket: str) -> dict[str, Any]:
    """What pyarrow does not take from the environment by itself: another address, and the bucket's own region."""
    from pyarrow import fs

    # Small files are put by one request, not by the three of an upload in parts.
    options: dict[str, Any] = {"allow_delayed_open": True}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        options["endpoint_override"] = endpoint.rstrip("/")
    elif not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        try:
            options["region"] = fs.resolve_s3_region(bucket)
        except OSError as error:
            raise StorageError(f"s3://{bucket}: cannot be found: {' '.join(str(error).split())}") from error
    return options


def _of_google() -> dict[str, Any]:
    # pyarrow's own is a quarter of an hour, also where there are no credentials or no such host.
    options: dict[str, Any] = {"retry_time_limit": _GOOGLE_RETRIES}
    emulator = os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT") or os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        scheme, _, host = emulator.rpartition("://")
        options |= {"anonymous": True, "scheme": scheme or "http", "endpoint_override": host.rstrip("/")}
    return options


def _account(root: str, authority: str) -> tuple[str, str]:
    """(account, container) of Azure's address. Raises StorageError where neither it nor the environment has both."""
    container, _, host = authority.rpartition("@")
    account = host.partition(".")[0] if container else os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    if not account:
        raise StorageError(
            f"{root}: expected the account too, as in abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER, or its "
            "name in AZURE_STORAGE_ACCOUNT"
        )
    return account, container or authority


def _of_azure(account: str) -> dict[str, Any]:
    """The names of the variables are those of the `az` command; without a key or token Azure's own way is gone."""
    options: dict[str, Any] = {}
    if key := os.environ.get("AZURE_STORAGE_KEY"):
        options["account_key"] = key
    elif token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        options["sas_token"] = token if token.startswith("?") else f"?{token}"
    if endpoint := os.environ.get("AZURE_STORAGE_SERVICE_ENDPOINT"):  # an emulator's
        scheme, _, host = endpoint.rstrip("/").partition("://")
        host = host.removesuffix(f"/{account}")
        options |= {
            "blob_storage_authority": host, "dfs_storage_authority": host,
            "blob_storage_scheme": scheme, "dfs_storage_scheme": scheme,
        }  # fmt: skip
    return options
