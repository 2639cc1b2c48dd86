"""Files of tools that are not read here, known by their content: what they are, and how their data come here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
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
        "VGG Image Annotator's (VIA)",
        lambda its: its.has("_via_settings") or its.ends("shape_attributes", "region_attributes", "_via_img_metadata"),
        "export it as COCO there (Annotation, Export Annotations, COCO format)",
    ),
    (
        "VGG Image Annotator's (VIA 3)",
        lambda its: its.has("project", "config", "attribute"),
        "export it as COCO there",
    ),
    (
        "Datumaro's",
        lambda its: its.has("categories", "items"),
        "`datum convert -if datumaro -f coco_instances` writes COCO",
    ),
    (
        "Supervisely's",
        lambda its: its.has("size", "objects") or its.ends("geometryType", "classTitle"),
        "export it as COCO there (the app Export to COCO)",
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
_LOOKED_AT = 20


def recognised(contents: Contents) -> str | None:
    """A sentence on the first file that is known, with the way out; None where none is."""
    if contents.is_file:
        suffix = contents.path.suffix.lower()
        if reason := next((reason for suffixes, reason in _SUFFIXES.items() if suffix in suffixes), None):
            return f"this is {reason}"
        if suffix == ".xml" and contents.root(contents.path) == "annotation":
            return "this is one of the files of a Pascal VOC folder: name the folder"
    for path, glance in islice(contents.json_files((".", "annotations", "ann")), _LOOKED_AT):
        if reason := _json(path, glance):
            return reason if contents.is_file else f"{path.name}: {reason}"
    return None


def _json(path: Path, glance: Glance) -> str | None:
    if coco_files.is_coco(glance):
        its = coco_files.kind(path, glance)
        if its == "captions":
            return "this holds COCO's captions, which have no boxes: take the instances file of the same images"
        if its == "panoptic":
            return "this is COCO's panoptic form, whose masks are PNG files: take the instances file of the same images"
    for what, holds, way_out in _JSON:
        if holds(glance):
            return f"this is {what}: {way_out}"
    return None
