"""Masks as PNG files, one for each object: 8-bit grey, 255 the object and 0 the rest, of the image's size.

Object 4 of `shelf/photo.jpg` is `shelf/photo.jpg/004.png` under the folder of the masks: the image's own path, its
suffix included, is a folder there, so images of equal names do not meet.
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

from app.contract import masks
from app.results.image_result import ImageResult, mask_of
from models import atomic_files


def mask_path(folder: Path, image_name: str, number: int) -> Path:
    """Where the mask of the image's object of this number, from 0, is."""
    return folder / image_name / f"{number:03}.png"


def are_there(folder: Path, result: ImageResult) -> bool:
    return all(mask_path(folder, result.name, number).is_file() for number in range(len(result.objects)))


def write(folder: Path, result: ImageResult) -> None:
    """Write all of an image's masks, at once, in place of those that were there.

    Raises ValueError for an object without a mask, and OSError.
    """
    if not result.objects:
        shutil.rmtree(folder / result.name, ignore_errors=True)
        return
    with atomic_files.folder(folder / result.name) as unfinished:
        for number, one in enumerate(result.objects):
            mask = mask_of(one)
            if mask is None:
                raise ValueError(f"{result.name}: object {number} has no mask")
            name = mask_path(folder, result.name, number).name
            (unfinished / name).write_bytes(base64.b64decode(masks.encode_png(mask)))
