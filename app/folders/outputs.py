"""Which formats a run may write, and where: files for each image as it is done, files of all images at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO
from urllib.parse import quote

from PIL import Image

from app.folders.order import NAME as ORDER
from app.folders.order import ByUncertainty
from app.results import azureml_jsonl, coco, cvat, label_studio, mask_pngs, overlays, whole_file, yolo_seg
from app.results.image_result import EXACT, Corners, ImageResult, Results, classes_of
from app.results.whole_file import Make
from models import atomic_files
from models.data.parsing.sources import address
from models.images.decoding import decode_image

# Format -> what it is called in the folder.
NAMES = {
    "masks": "masks",
    "coco": "coco.json",
    "jsonl": "azureml.jsonl",
    "label-studio": "label_studio.json",
    "cvat": "cvat.xml",
    "overlay": "overlays",
    "yolo-seg": "yolo_seg",
}
LABELING_CONFIG = "label_studio.xml"
ALL = (*NAMES.values(), LABELING_CONFIG, ORDER)
NEED_MASKS = ("masks",)

# Label Studio's address of a file under the folder that its LOCAL_FILES_DOCUMENT_ROOT names. That is the folder around
# the images' own, as a storage of files must lie within it.
_LOCAL_FILES = "/data/local-files/?d="


@dataclass(frozen=True)
class Outputs:
    """The formats that were asked for, in a folder.

    root: the folder that the images' names start at. image_url: what stands before the names in the files that say
    where an image is; None: each file's own way to name a local file. model_version: for Label Studio. page: of images
    with several pages or frames. corners: of masks' outlines, in the formats that have such.
    """

    folder: Path
    formats: tuple[str, ...]
    root: Path
    image_url: str | None
    model_version: str
    page: int = 1
    corners: Corners = EXACT

    def lacks(self, result: ImageResult) -> bool:
        """Whether a file of this image is not there yet."""
        if "masks" in self.formats and not mask_pngs.are_there(self._path("masks"), result):
            return True
        return "overlay" in self.formats and not overlays.overlay_path(self._path("overlay"), result.name).is_file()

    def write_image(self, result: ImageResult, path: Path) -> None:
        """Write the image's own files. path: of the image. Raises ImageError or OSError."""
        if "masks" in self.formats:
            mask_pngs.write(self._path("masks"), result)
        if "overlay" in self.formats:
            height, width = result.size_hw
            pixels = decode_image(path.read_bytes(), exif_orientation=True, max_pixels=height * width, page=self.page)
            overlays.write(self._path("overlay"), result, Image.fromarray(pixels))

    def remove_image(self, name: str) -> None:
        """Remove the image's own files, of any format."""
        shutil.rmtree(self._path("masks") / name, ignore_errors=True)
        overlays.overlay_path(self._path("overlay"), name).unlink(missing_ok=True)

    def write_all(
        self,
        results: Results,
        class_names: Sequence[str],
        order: ByUncertainty | None = None,
        make: Make | None = None,
    ) -> list[str]:
        """Write the files that hold all images, and say of each format what it is called, and what it leaves out.

        order: the same results in the order in which they are to be looked at, for the formats that have one. make:
        where the images' parts of the files are made; None: here, one after the other.
        """
        classes = classes_of(class_names, results)
        written = [NAMES[one] for one in self.formats if one in ("masks", "overlay")]
        priority = None if order is None else order.priority
        lines = azureml_jsonl.Lines(self._url_from_here, self.corners)
        tasks = label_studio.Tasks(self._url_local_files, self.model_version, self.corners)
        writers: dict[str, Callable[[TextIO], int]] = {
            "coco": lambda file: coco.write(file, results, classes, self.corners),
            "jsonl": lambda file: whole_file.write(file, lines, results, make=make),
            "label-studio": lambda file: whole_file.write(file, tasks, order or results, priority, make),
            "cvat": lambda file: whole_file.write(file, cvat.Images(classes), results, make=make),
        }
        for name, write in writers.items():
            if name not in self.formats:
                continue
            with atomic_files.text_file(self._path(name)) as file:
                left_out = write(file)
            written.append(NAMES[name] + (f" (without {left_out} empty masks)" if left_out else ""))
        if "label-studio" in self.formats:
            with atomic_files.text_file(self.folder / LABELING_CONFIG) as file:
                file.write(label_studio.labeling_config(classes, polygons=bool(self.corners)))
            written.append(LABELING_CONFIG)
        if order is not None:
            with atomic_files.text_file(self.folder / ORDER) as file:
                order.write(file)
            written.append(ORDER)
        if "yolo-seg" in self.formats:
            with atomic_files.folder(self._path("yolo-seg")) as unfinished:
                without = yolo_seg.write(unfinished, results, classes, self.root, self.corners)
            counts = ((without.empty_masks, "empty masks"), (without.missing_images, "images that are gone"))
            lacks = ", ".join(f"{count} {what}" for count, what in counts if count)
            written.append(NAMES["yolo-seg"] + (f" (without {lacks})" if lacks else ""))
        return written

    def _path(self, name: str) -> Path:
        return self.folder / NAMES[name]

    def _url_from_here(self, name: str) -> str:
        """The path from the folder of the results to the image, unless there is an address."""
        if self.image_url is None:
            return Path(os.path.relpath(self.root / name, self.folder)).as_posix()
        return self._url(name)

    def _url_local_files(self, name: str) -> str:
        if self.image_url is None:
            # As it is called, not where a symbolic link of that name leads: Label Studio serves it by its name.
            folder = os.path.basename(os.path.abspath(self.root))
            return _LOCAL_FILES + quote((PurePosixPath(folder) / name).as_posix())
        return self._url(name)

    def _url(self, name: str) -> str:
        assert self.image_url is not None
        return address(self.image_url, name)
