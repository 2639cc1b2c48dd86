"""Annotated images in the formats of many tools, all read into one form and written from it."""

from models.data.check import ClassCount, check, counts
from models.data.dataset import Annotation, DataError, Dataset, LabelledImage, Place, Polygon, Problem, data_hash
from models.data.formats.data_set import FORMATS, WRITTEN, check_writable, find, load, read, write
from models.data.frames import ORIENTATIONS, Orientation
from models.data.images import PLACINGS, Placing
from models.data.kinds import shortened
from models.data.meaning import CROWDS, Crowds
from models.data.split import split

__all__ = [
    "CROWDS",
    "Crowds",
    "FORMATS",
    "ORIENTATIONS",
    "Orientation",
    "PLACINGS",
    "Annotation",
    "ClassCount",
    "DataError",
    "Dataset",
    "LabelledImage",
    "Place",
    "Placing",
    "Polygon",
    "Problem",
    "WRITTEN",
    "check",
    "check_writable",
    "counts",
    "data_hash",
    "find",
    "load",
    "read",
    "shortened",
    "split",
    "write",
]
