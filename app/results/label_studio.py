"""Label Studio's import file: a JSON list of tasks, what was found as the prediction of each.

Every object is a rectangle (`rectanglelabels`, in percent of the image) and, with a mask, a brush stroke
(`brushlabels`). `LABELING_CONFIG` is the labelling interface that the names in the file go with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TextIO
from xml.sax.saxutils import quoteattr

import numpy as np

from app.predictor import PredictedObject
from app.results.image_result import ImageResult, Results, label_of, mask_of

IMAGE, BOX, MASK = "image", "box", "mask"

# Brush strokes are packed as the npm package @thi.ng/rle-pack does it: bits, the first one the highest of a byte.
_WORD_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4  # a stroke is an RGBA picture; all four channels of a pixel are 255 or 0


def write(file: TextIO, results: Results, image_url: Callable[[str], str], model_version: str) -> int:
    """Write the tasks. image_url: an image's name -> where Label Studio gets it.

    Gives the number of objects left out: none; of one whose mask is empty there is the rectangle.
    """
    file.write("[")
    for number, result in enumerate(results):
        task = {
            "data": {"image": image_url(result.name)},
            "predictions": [_prediction(result, model_version)],
        }
        file.write(("," if number else "") + "\n" + json.dumps(task, ensure_ascii=False))
    file.write("\n]\n")
    return 0


def labeling_config(class_names: Sequence[str]) -> str:
    """The labelling interface of a project that takes the tasks, as Label Studio's XML."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in class_names)
    return (
        "<View>\n"
        f'  <Image name="{IMAGE}" value="$image" zoom="true"/>\n'
        f'  <BrushLabels name="{MASK}" toName="{IMAGE}">\n{labels}\n  </BrushLabels>\n'
        f'  <RectangleLabels name="{BOX}" toName="{IMAGE}">\n{labels}\n  </RectangleLabels>\n'
        "</View>\n"
    )


def _prediction(result: ImageResult, model_version: str) -> dict[str, Any]:
    scores = [one.score for one in result.objects if one.score is not None]
    regions = [region for number, one in enumerate(result.objects) for region in _regions(result, number, one)]
    prediction: dict[str, Any] = {"model_version": model_version, "result": regions}
    if scores:
        prediction["score"] = sum(scores) / len(scores)
    return prediction


def _regions(result: ImageResult, number: int, one: PredictedObject) -> list[dict[str, Any]]:
    height, width = result.size_hw
    x1, y1, x2, y2 = one.box_xyxy
    corner = {"x": 100 * x1 / width, "y": 100 * y1 / height}
    extent = {"width": 100 * (x2 - x1) / width, "height": 100 * (y2 - y1) / height}
    shapes: list[tuple[str, str, dict[str, Any]]] = [(BOX, "rectanglelabels", {**corner, **extent, "rotation": 0})]
    mask = mask_of(one)
    if mask is not None and mask.any():
        shapes.append((MASK, "brushlabels", {"format": "rle", "rle": list(pack(mask))}))
    common = {"to_name": IMAGE, "original_width": width, "original_height": height, "image_rotation": 0}
    if one.score is not None:
        common["score"] = one.score
    return [
        {"id": f"{name}{number}", "from_name": name, "type": kind, **common, "value": {**value, kind: [label_of(one)]}}
        for name, kind, value in shapes
    ]


def pack(mask: np.ndarray) -> bytes:
    """A mask (H, W) bool as the bytes of a brush stroke.

    32 bits: the number of values, 4 for each pixel, row by row. 5 bits: a value's number of bits less one. Four times
    4 bits: numbers of bits less one that a run's length may take. Then for each run a 1, two bits that say which of
    these four, the length less one in so many bits, and the value.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=len(flat)) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}", f"{_WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    longest = 1 << _LENGTH_BITS[-1]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = f"{255 if flat[start] else 0:0{_WORD_BITS}b}"
        while length:
            part = min(length, longest)
            index = next(number for number, size in enumerate(_LENGTH_BITS) if part <= 1 << size)
            bits.append(f"1{index:02b}{part - 1:0{_LENGTH_BITS[index]}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
