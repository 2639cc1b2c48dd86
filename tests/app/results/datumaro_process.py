"""Run by the Python with Datumaro: reads data sets, and writes as JSON what it found; or converts one.

read PATH FORMAT: by image the objects, each with its label, its box and its mask: packed bits, row by row, or null.
convert PATH FORMAT TO OUT: reads a data set and writes it as another.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset


def found(path: str, name: str) -> dict[str, list[Any]]:
    dataset = Dataset.import_from(path, name)
    dataset.transform("polygons_to_masks")
    labels = [label.name for label in dataset.categories()[AnnotationType.label]]
    images: dict[str, list[Any]] = {}
    for item in dataset:
        objects = images[item.id] = []
        for one in item.annotations:
            box, mask = None, None
            if one.type == AnnotationType.mask:
                bits = np.asarray(one.image) > 0
                mask = {"size_hw": bits.shape, "bits": np.packbits(bits).tobytes().hex()}
            else:
                assert one.type == AnnotationType.bbox, one
                box = [float(value) for value in one.points]
            objects.append({"label": labels[one.label], "box": box, "mask": mask})
    return images


if sys.argv[1] == "read":
    print(json.dumps(found(*sys.argv[2:])))
else:
    path, name, to, out = sys.argv[2:]
    Dataset.import_from(path, name).export(out, to, save_media=True)
