"""What a file is that was taken for weights and is none, told by its first bytes; with what to do about it."""

from __future__ import annotations

import string
import zipfile
from pathlib import Path

HEAD = 512
_DOWNLOAD_AGAIN = "download it again"
_STATE_DICT = "save the weights alone, with torch.save(model.state_dict(), …), where the model can be loaded"

# By the first bytes: what it is, and what to do.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer in the place of the file",
        "run `git lfs pull` where it was cloned",
    ),
    (b"\x93NUMPY", "an array of numpy", _STATE_DICT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them", "take the weights that PyTorch wrote"),
    *(
        (bytes((0x80, protocol)), f"a pickle of protocol {protocol}, which torch.save does not write", _STATE_DICT)
        for protocol in (3, 4, 5)
    ),
    (b"GGUF", "a GGUF file", "take the weights that PyTorch wrote"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
    (b"%PDF", "a PDF document", _DOWNLOAD_AGAIN),
    (b"\x89PNG", "a picture", "name the file with the weights"),
    (b"\xff\xd8\xff", "a picture", "name the file with the weights"),
)
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<body", b"<!--", b"<script")


def is_safetensors(path: Path) -> bool:
    """Whether it begins as safetensors do, whatever its name: a length, then JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27


def other_than_weights(path: Path) -> str | None:
    """What the file is in place of a checkpoint, and what to do: `is …: …`. None where it may be one."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    size = path.stat().st_size
    if not head:
        return f"is empty: {_DOWNLOAD_AGAIN}"
    for beginning, kind, way in _BEGINNINGS:
        if head.startswith(beginning):
            return f"is {kind}: {way}"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it first"
    if not any(head):
        return f"begins with zeros only, as a download that did not end ({size} bytes): {_DOWNLOAD_AGAIN}"
    if head.startswith(b"PK"):
        return _archive(path, size)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        return (
            "is a web page, perhaps one that asks for a login, in the place of the file: download it again by the "
            "address of the file itself"
        )
    if all(chr(byte) in string.printable for byte in head):
        return f"is text, which begins with {head[:60].decode('ascii')!r}: {_DOWNLOAD_AGAIN}"
    if b"onnx" in head[:128].lower() or (head[:1] == b"\x08" and b"pytorch" in head[:32]):
        return "is an ONNX file: take the checkpoint that it was exported from"
    return None


def _archive(path: Path, size: int) -> str | None:
    """What a zip file holds that is not torch's checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return f"is truncated: it begins as a zip archive and has no end ({size} bytes): {_DOWNLOAD_AGAIN}"
    parts = {name.split("/", 1)[-1] for name in names}
    if any(part == "constants.pkl" or part.startswith("code/") for part in parts):
        return f"is a TorchScript program and not weights: {_STATE_DICT}"
    if any(part.startswith("models/") or part == "archive_format" for part in parts):
        return f"is a program that torch.export wrote and not weights: {_STATE_DICT}"
    if "data.pkl" in parts:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"holds arrays of numpy: {_STATE_DICT}"
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"is a zip archive that holds {listed or 'nothing'}: unpack it, and name the file with the weights"
