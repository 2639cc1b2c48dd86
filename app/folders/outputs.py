"""Which formats a run may write, and where: files for each image as it is done, files of all images at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TextIO
from urllib.parse import quote

from PIL import Image

from app.folders.journal import Journal
from app.folders.order import NAME as ORDER
from app.folders.order import ByUncertainty
from app.folders.storage import RemotePath
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
OWN_FILES = ("masks", "overlay")  # files for each image; the others are files of all images
NEED_FILES = ("yolo-seg",)  # copies of the images, which must be here, as the results must

# Label Studio's address of a file under the folder that its LOCAL_FILES_DOCUMENT_ROOT names. That is the folder around
# the images' own, as a storage of files must lie within it.
_LOCAL_FILES = "/data/local-files/?d="


@dataclass(frozen=True)
class Outputs:
    """The formats that were asked for, in a folder.

    root: the folder that the images' names start at; None where they are not here. image_url: what stands before the
    names in the files that say where an image is; None: each file's own way to name a local file. model_version: for
    Label Studio. page: of images with several pages or frames. corners: of masks' outlines, in the formats that have
    such. remote: where the images' own files go, if that is not the folder; `folder` has the others until they are
    complete.
    """

    folder: Path
    formats: tuple[str, ...]
    root: Path | None
    image_url: str | None
    model_version: str
    page: int = 1
    corners: Corners = EXACT
    remote: RemotePath | None = None

    @property
    def need_images(self) -> bool:
        """Whether an image's own files are made from the image, too."""
        return "overlay" in self.formats

    @property
    def own_files(self) -> tuple[str, ...]:
        """The formats of an image's own files, where a journal has to say so, as asking a store for each is slow."""
        return tuple(one for one in self.formats if one in OWN_FILES) if self.remote is not None else ()

    def lacks(self, journal: Journal, name: str) -> bool:
        """Whether a file of this image, which has a result, is not there yet."""
        if self.remote is not None:
            return not set(self.own_files) <= set(journal.own_files(name))
        if "masks" in self.formats and not mask_pngs.are_there(self._path("masks"), journal.result(name)):
            return True
        return "overlay" in self.formats and not overlays.overlay_path(self._path("overlay"), name).is_file()

    def write_image(self, result: ImageResult, image: bytes) -> None:
        """Write the image's own files. image: the content of its file. Raises ImageError or OSError."""
        if self.remote is None:
            self._write_image(self.folder, result, image)
        elif any(one in OWN_FILES for one in self.formats):
            with tempfile.TemporaryDirectory(prefix="box2mask-") as folder:
                self._write_image(Path(folder), result, image)
                self._bring(Path(folder), result.name)

    def _write_image(self, folder: Path, result: ImageResult, image: bytes) -> None:
        if "masks" in self.formats:
            mask_pngs.write(folder / NAMES["masks"], result)
        if "overlay" in self.formats:
            height, width = result.size_hw
            pixels = decode_image(image, exif_orientation=True, max_pixels=height * width, page=self.page)
            overlays.write(folder / NAMES["overlay"], result, Image.fromarray(pixels))

    def _bring(self, folder: Path, name: str) -> None:
        """An image's own files to the store, and away with those of an earlier result that had more objects."""
        assert self.remote is not None
        brought = set()
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            target = self.remote / path.relative_to(folder).as_posix()
            target.write_bytes(path.read_bytes())
            brought.add(target)
        if "masks" in self.formats:
            for target, is_folder in (self.remote / NAMES["masks"] / name).entries(recursive=False):
                if not is_folder and target not in brought:
                    target.unlink()

    def remove_image(self, name: str) -> None:
        """Remove the image's own files, of any format."""
        if self.remote is not None:
            (self.remote / NAMES["masks"] / name).remove_all()
            overlay = overlays.overlay_path(Path(NAMES["overlay"]), name)
            (self.remote / overlay.as_posix()).unlink()
            return
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
        written = [NAMES[one] for one in self.formats if one in OWN_FILES]
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
            assert self.root is not None
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
        if self.image_url is None and self.root is not None:
            return Path(os.path.relpath(self.root / name, self.folder)).as_posix()
        return self._url(name)

    def _url_local_files(self, name: str) -> str:
        if self.image_url is None and self.root is not None:
            # As it is called, not where a symbolic link of that name leads: Label Studio serves it by its name.
            folder = os.path.basename(os.path.abspath(self.root))
            return _LOCAL_FILES + quote((PurePosixPath(folder) / name).as_posix())
        return self._url(name)

    def _url(self, name: str) -> str:
        assert self.image_url is not None
        return address(self.image_url, name)
