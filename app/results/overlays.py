"""Images with what was found in them drawn over, as JPEG files: `shelf/photo.png.jpg` for `shelf/photo.png`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from app.results.drawing import Outlined, draw
from app.results.image_result import ImageResult, label_of, mask_of
from models import atomic_files

_QUALITY = 90


def overlay_path(folder: Path, image_name: str) -> Path:
    return folder / f"{image_name}.jpg"


def write(folder: Path, result: ImageResult, image: Image.Image) -> None:
    """Write the picture. image: as it was predicted, in the frame of the boxes and masks. Raises OSError."""
    found = []
    for one in result.objects:
        caption = label_of(one) if one.score is None else f"{label_of(one)} {one.score:.2f}"
        found.append(Outlined(one.box_xyxy, caption, mask_of(one)))
    with atomic_files.file_path(overlay_path(folder, result.name)) as unfinished:
        draw(image, found).save(unfinished, "JPEG", quality=_QUALITY)
