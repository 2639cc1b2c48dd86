"""Files of tools that are not read here, known by their content: what they are, and how their data come here."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path

from models.data.formats.coco import files as coco_files
from models.data.parsing.contents import Contents, Glance

_COCO = "export it as COCO there"

# What it is, what shows it at the beginning of the file, and the way out.
_JSON: tuple[tuple[str, Callable[[Glance], bool], str], ...] = (
    (
        "a list of a detector's results (COCO), not a data set",
        lambda its: its.has("[].image_id", "[].category_id"),
        "`evaluate --predictions` and `run --prompts` read it",
    ),
    (
        "VGG Image Annotator's (VIA 3)",
        lambda its: its.has("project", "config", "attribute"),
        "export it as COCO there",
    ),
    (
        "Supervisely's",
        lambda its: its.has("size", "objects") or its.ends("geometryType", "classTitle"),
        "name the folder around ann/ and img/",
    ),
    ("Create ML's", lambda its: its.ends("coordinates") and its.has_any("[].image", "[].imagefilename"), _COCO),
    (
        "FiftyOne's",
        lambda its: its.has("samples") or its.has("classes", "labels"),
        "export it there as COCODetectionDataset",
    ),
    ("V7 Darwin's", lambda its: its.has("item", "annotations"), _COCO),
    (
        "BDD100K's or Scalabel's",
        lambda its: its.has("[].name", "[].labels") or its.ends("box2d"),
        "convert it to COCO with scalabel",
    ),
    (
        "MMDetection's own (metainfo and data_list)",
        lambda its: its.has("data_list"),
        "take the COCO file that it was made from",
    ),
    (
        "GeoJSON",
        lambda its: its.has("features"),
        "its coordinates are those of a map: convert it to pixels and COCO first",
    ),
)
_SUFFIXES = {
    (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"): "an archive: unpack it, and name its folder",
    (".csv", ".tsv"): "a table: export COCO, YOLO or Pascal VOC from the tool that wrote it",
    (".tfrecord", ".record", ".parquet"): "of records: export COCO, YOLO or Pascal VOC from the tool that wrote them",
    (".txt",): "a text file: of YOLO's files, name the folder around images/ and labels/, or data.yaml",
}
_MASK_FOLDERS = ("SegmentationObject", "SegmentationClass")
# keras-yolo3's line: an image, and its boxes with their classes.
_IMAGE_AND_BOXES = re.compile(r"\S.*\.[A-Za-z]{3,4}( -?[0-9.]+(,-?[0-9.]+){3},[0-9]+)+")
_LOOKED_AT = 20
_LONGEST_LINE = 10_000


def recognised(contents: Contents) -> str | None:
    """A sentence on the first file that is known, with the way out; None where none is."""
    if contents.is_file:
        if reason := _by_suffix(contents.path):
            return f"this is {reason}"
        if contents.path.suffix.lower() == ".xml" and contents.root(contents.path) == "annotation":
            return "this is one of the files of a Pascal VOC folder: name the folder"
    for path, glance in islice(contents.json_files((".", "annotations", "ann")), _LOOKED_AT):
        if reason := _json(path, glance):
            return reason if contents.is_file else f"{path.name}: {reason}"
    if contents.is_file:
        return None
    for path in contents.files(chain.from_iterable(_SUFFIXES)):
        if path.suffix.lower() != ".txt" or _is_of_boxes(path):
            return f"{path.name}: this is {_by_suffix(path)}"
    if any((contents.path / name).is_dir() for name in _MASK_FOLDERS):
        return "this is of masks as PNG files, without objects (CVAT's Segmentation mask): export it as COCO there"
    return None


def _by_suffix(path: Path) -> str | None:
    if path.suffix.lower() == ".txt" and _is_of_boxes(path):
        return "a list of images with boxes (keras-yolo3): YOLO has one text file for each image; write those, or COCO"
    return next((reason for suffixes, reason in _SUFFIXES.items() if path.suffix.lower() in suffixes), None)


def _is_of_boxes(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return _IMAGE_AND_BOXES.fullmatch(file.readline(_LONGEST_LINE).strip()) is not None
    except OSError:
        return False


def _json(path: Path, glance: Glance) -> str | None:
    if coco_files.is_coco(glance):
        its = coco_files.kind(path, glance)
        if its == "captions":
            return "this holds COCO's captions, which have no boxes: take the instances file of the same images"
        if its == "images":
            reason = "a COCO file with no annotations (COCO's image_info of its test images)"
            return f"this is {reason}: take the instances file of images that have some"
        if its == "panoptic":
            return "this is COCO's panoptic form, whose masks are PNG files: take the instances file of the same images"
    for what, holds, way_out in _JSON:
        if holds(glance):
            return f"this is {what}: {way_out}"
    return None
