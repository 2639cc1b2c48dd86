"""Small files that ask for much: a sentence, or a reading, in less than a gigabyte and in seconds.

Each is refused by this project's own rules, before anything is made of it by a library.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import DataError, Problem, check, read
from models.data.parsing.brush import pack
from tests.strangers.bounded import bounded

SIDE = 16384  # of an image of as many pixels as there may be
SECONDS = 60.0
MOST_BYTES = 12_000_000


def coco(size: Any = (32, 24), images: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """A COCO file of one photo and one object."""
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], **more}
    photo = {"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}
    content = {"images": images or [photo], "annotations": [annotation], "categories": [{"id": 1, "name": "can"}]}
    return {"a.json": content}


def label_studio(value: dict[str, Any], size: tuple[Any, Any]) -> dict[str, Any]:
    """A task of one region."""
    result = {"id": "r", "type": "brushlabels", "original_width": size[0], "original_height": size[1], "value": value}
    return {"a.json": [{"data": {"image": "a.png"}, "annotations": [{"result": [result]}]}]}


def brush(pixels: int) -> list[int]:
    """A stroke that says that it has so many pixels, all of which one run of a few bytes says."""
    return list((pixels * 4 % 2**32).to_bytes(4, "big") + pack(np.ones((4, 4), bool))[4:])


def whole_brush() -> list[int]:
    """A stroke over all of the largest image, in runs of 65536 values."""
    runs = SIDE * SIDE * 4 // 65536
    bits = f"{SIDE * SIDE * 4:032b}" + "00111" + "0000" * 3 + "1111" + ("1" + "11" + "1" * 16 + "1" * 8) * runs
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def cvat(shapes: str, size: tuple[Any, Any] = (32, 24), before: str = "") -> dict[str, Any]:
    image = f'<image id="0" name="a.png" width="{size[0]}" height="{size[1]}">{shapes}</image>'
    return {"a.xml": f"{before}<annotations>{image}</annotations>"}


def voc(objects: str = "", size: tuple[Any, Any] = (32, 24), before: str = "", after: str = "") -> dict[str, Any]:
    size_hw = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return {
        "annotations/a.xml": f"{before}<annotation><filename>a.png</filename>{size_hw}{objects}{after}</annotation>"
    }


def labelme(picture: str, size: tuple[Any, Any], end: tuple[int, int], count: int = 1, **more: Any) -> dict[str, Any]:
    """So many shapes that are this mask."""
    shape = {"label": "can", "shape_type": "mask", "points": [[0, 0], list(end)], "mask": picture, **more}
    content = {"imagePath": "a.png", "imageWidth": size[0], "imageHeight": size[1], "shapes": [shape] * count}
    return {"a.json": content}


def png(width: int, height: int, rows: bytes = b"", *, depth: int = 1, colour: int = 0) -> bytes:
    """A PNG with this header, and with these rows, whatever the header says."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((depth, colour, 0, 0, 0))
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    content = (
        len(its).to_bytes(4, "big") + kind + its + zlib.crc32(kind + its).to_bytes(4, "big") for kind, its in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(content)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def filled(*rows: int) -> bytes:
    """A mask over all of the largest image, of one bit a pixel: rows of these bytes in turn."""
    return png(SIDE, SIDE, b"".join(b"\0" + bytes([row]) * (SIDE // 8) for row in rows) * (SIDE // len(rows)))


OBJECT = "<object><name>can</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
RECTANGLE = {"label": "can", "shape_type": "rectangle", "points": [[1, 1], [9, 9]], "group_id": 1}
GIANT = (1_000_000_000, 1_000_000_000)
TOO_LARGE = "expected at most 1000000 pixels, found '?1000000000"
CIRCLE = [[16 + 9 * float(np.cos(at)), 12 + 9 * float(np.sin(at))] for at in np.linspace(0, 6.28, 200_000)]
RLE = {"size": [GIANT[1], GIANT[0]], "counts": "0000"}


def grouped() -> dict[str, Any]:
    """A hundred rectangles and a mask of one object, in the largest image."""
    files = labelme(text(png(8, 8, b"\0\xff" * 8)), (SIDE, SIDE), (7, 7), group_id=1)
    files["a.json"]["shapes"] += [RECTANGLE] * 100
    return files


def fridge(picture: bytes, objects: int, size: tuple[int, int] = (SIDE, SIDE)) -> dict[str, Any]:
    return {**voc(OBJECT * objects, size), "segmentation-masks/a.png": picture}


# What there is, and what is said of it; None: that all of it can be read.
CASES: dict[str, tuple[Callable[[], dict[str, Any]], str | None]] = {
    "coco, size": (lambda: coco(GIANT), TOO_LARGE),
    "coco, pixels": (lambda: coco((999_999, 999_999)), "expected at most 268435456 pixels, found 999999 x 999999"),
    "coco, mask of another size": (lambda: coco(segmentation=RLE), r"segmentation.size: expected \[24, 32\]"),
    "coco, mask of that size": (lambda: coco(GIANT, segmentation=RLE), TOO_LARGE),
    "coco, short mask": (
        lambda: coco((SIDE, SIDE), segmentation={"size": [SIDE, SIDE], "counts": "0000"}),
        "segmentation.counts: expected runs that fill 268435456 pixels, found '0000'",
    ),
    "coco, runs": (
        lambda: coco(segmentation={"size": [24, 32], "counts": [10**18, 10**300, 5]}),
        "segmentation.counts: expected runs that fill 768 pixels",
    ),
    "coco, negative runs": (
        lambda: coco(segmentation={"size": [24, 32], "counts": [10**12, 768 - 10**12]}),
        "segmentation.counts: expected runs that fill 768 pixels",
    ),
    "coco, the largest mask": (
        lambda: coco((SIDE, SIDE), segmentation={"size": [SIDE, SIDE], "counts": [5, SIDE * SIDE - 5]}),
        None,
    ),
    "coco, points": (lambda: coco(segmentation=[[one for point in CIRCLE for one in point]]), None),
    "coco, a million points": (
        lambda: coco(segmentation=[[1, 1, 9, 1, 9, 9, 1, 9] * 250_000]),
        "an outline of at most 4000000 pixels",
    ),
    "coco, far": (lambda: coco(segmentation=[[1e300, 1, 9, 1, 9, 9]]), "coordinates of at most 1000000 pixels"),
    "coco, far box": (lambda: coco(bbox=[-1e300, 1, 1e300, 9]), "coordinates of at most 1000000 pixels"),
    "coco, one image often": (
        lambda: coco(images=[{"id": 1, "file_name": "a.png", "width": 32, "height": 24}] * 100_000),
        r"images\[99999\] \(id 1\): id: expected each image once, found it again",
    ),
    "coco, many classes": (
        lambda: {"a.json": coco()["a.json"] | {"categories": [{"id": n, "name": f"c{n}"} for n in range(50_000)]}},
        None,
    ),
    "coco, nested": (lambda: {"a.json": '{"images": [' + "[" * 100_000}, "a.json: cannot be read|not JSON"),
    "coco, nested in an object": (lambda: {"a.json": '{"images": [' + '{"a":' * 100_000}, "a.json: cannot be read|not"),
    "label-studio, size": (lambda: label_studio({"rle": brush(16), "brushlabels": ["can"]}, GIANT), TOO_LARGE),
    "label-studio, short stroke": (
        lambda: label_studio({"rle": brush(SIDE * SIDE), "brushlabels": ["can"]}, (SIDE, SIDE)),
        "rle: expected runs that fill 1073741824 values",
    ),
    "label-studio, stroke of another size": (
        lambda: label_studio({"rle": brush(SIDE * SIDE), "brushlabels": ["can"]}, (32, 24)),
        "rle: expected 3072 values, 4 for each of the image's 32 x 24 pixels, found 1073741824",
    ),
    "label-studio, the largest stroke": (
        lambda: label_studio({"rle": whole_brush(), "brushlabels": ["can"]}, (SIDE, SIDE)),
        None,
    ),
    "cvat, size": (lambda: cvat('<mask label="can" rle="1" left="0" top="0" width="1" height="1"/>', GIANT), TOO_LARGE),
    "cvat, mask": (
        lambda: cvat('<mask label="can" rle="1" left="0" top="0" width="1000000000" height="1000000000"/>'),
        "mask: expected a mask within the image of 32 x 24 pixels",
    ),
    "cvat, runs": (
        lambda: cvat('<mask label="can" rle="1, 1e15" left="0" top="0" width="9" height="9"/>'),
        "mask: rle: expected runs that fill 81 pixels",
    ),
    "cvat, the largest mask": (
        lambda: cvat(
            f'<mask label="can" rle="5, {SIDE * SIDE - 5}" left="0" top="0" width="{SIDE}" height="{SIDE}"/>',
            (SIDE, SIDE),
        ),
        None,
    ),
    "cvat, a long attribute": (
        lambda: cvat(f'<box label="can" xtl="{"1" * 5_000_000}" ytl="1" xbr="9" ybr="9"/>'),
        "box: xtl: expected a number, found '111",
    ),
    "cvat, many points": (
        lambda: cvat(f'<polygon label="can" points="{"1,1;9,1;9,9;1,9;" * 250_000}"/>'),
        "polygon: points.*: expected an outline of at most",
    ),
    "cvat, nested": (lambda: cvat("<a>" * 100_000 + "</a>" * 100_000), "a: expected box, polygon, mask or ellipse"),
    "cvat, an entity": (
        lambda: cvat("", before='<!DOCTYPE a [<!ENTITY can "can">]>'),
        "expected plain XML, found the definition of an entity 'can'",
    ),
    "voc, size": (lambda: voc(OBJECT, GIANT), TOO_LARGE),
    "voc, an entity": (
        lambda: voc(OBJECT, before='<!DOCTYPE a [<!ENTITY can "can">]>'),
        "expected plain XML, found the definition of an entity 'can'",
    ),
    "voc, text between elements": (lambda: voc(OBJECT, after="text<a/>" * 300_000), None),
    "voc, nested": (lambda: voc(OBJECT, after="<a>" * 100_000 + "</a>" * 100_000), None),
    "voc, masks of another size": (
        lambda: fridge(png(SIDE, SIDE), 1, (32, 24)),
        "expected one channel of 32 x 24 pixels, found",
    ),
    "voc, masks in colour": (
        lambda: fridge(png(SIDE, SIDE, depth=8, colour=2), 1),
        "expected at most 268435456 bytes of pixels, found 1073741824",
    ),
    "voc, the largest masks": (lambda: fridge(filled(0xFF), 1), None),
    "voc, noise": (lambda: fridge(filled(0xFF, 0), 1), "a mask of at most 4000000 runs of pixels, found"),
    "labelme, size": (lambda: labelme(text(png(*GIANT)), GIANT, (9, 9)), TOO_LARGE),
    "labelme, header": (
        lambda: labelme(text(png(SIDE, SIDE)), (32, 24), (9, 9)),
        "mask: expected one within the image of 32 x 24, found 16384 x 16384 at 0, 0",
    ),
    "labelme, header beyond all images": (
        lambda: labelme(text(png(10**9, 10**9)), (32, 24), (9, 9)),
        "mask: expected at most 268435456 bytes of pixels, found",
    ),
    "labelme, header alone": (lambda: labelme(text(png(SIDE, SIDE)), (SIDE, SIDE), (9, 9)), "mask: .*truncated"),
    "labelme, the largest mask": (lambda: labelme(text(filled(0xFF)), (SIDE, SIDE), (SIDE - 1, SIDE - 1)), None),
    "labelme, noise": (
        lambda: labelme(text(filled(0xFF, 0)), (SIDE, SIDE), (SIDE - 1, SIDE - 1)),
        "a mask of at most 4000000 runs of pixels, found",
    ),
    "labelme, a group": (grouped, None),
    "labelme, nested": (lambda: {"a.json": '{"shapes": [], "imagePath": ' + "[" * 100_000}, "cannot be read"),
    "jsonl, nested": (lambda: {"a.jsonl": '{"image_url": ' + "[" * 100_000}, "not JSON: nested too deeply"),
    "yolo, nested": (lambda: {"data.yaml": "names: [a]\ntrain: " + "[" * 5_000}, "cannot be read|not YAML|found none"),
    "yolo, a class of its own": (lambda: {"a.txt": "0 0.5 0.5 0.1 0.1\n1e300 0.5 0.5 0.1 0.1"}, "number of a class"),
    "yolo, unknown classes": (
        lambda: {"a.txt": "60000 0.5 0.5 0.1 0.1\n" * 20_000, "classes.txt": "".join(f"c{n}\n" for n in range(50_000))},
        "expected one of the 50000 classes of",
    ),
    "jsonl, unknown classes": (
        lambda: {
            "a.jsonl": json.dumps({
                "image_url": "a.png", "image_details": {"width": 32, "height": 24},
                "label": [{"label": "x", "topX": 0.1, "topY": 0.1, "bottomX": 0.9, "bottomY": 0.9}] * 20_000,
            }),
            "a.classes.txt": "".join(f"c{n}\n" for n in range(50_000)),
        },
        "expected a class of .*, c11 and 49988 more.*, found 'x'",
    ),
    "mltable, nested": (lambda: {"MLTable": "paths: " + "[" * 5_000}, "cannot be read|not YAML"),
    "mltable, long": (
        lambda: {"MLTable": f"paths: [{'a,' * 500_001}]"},
        "expected at most 1000000 bytes of YAML, found 1000011",
    ),
    "mltable, aliases": (
        lambda: {"MLTable": "paths: &a [x, *b]\n"},
        "not YAML: found undefined alias",
    ),
}  # fmt: skip


def lay(folder: Path, files: dict[str, Any]) -> None:
    """The files, and a photo that none of them needs."""
    Image.new("RGB", (32, 24)).save(folder / "a.png")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        content = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def said_of(folder: Path) -> list[str]:
    """What keeps something from being read."""
    problems: tuple[Problem, ...] | list[Problem]
    try:
        dataset, problems = read(folder)
        check(dataset)
    except DataError as error:
        problems = error.problems
    return [str(one) for one in problems if one.fatal]


@pytest.mark.parametrize("name", CASES)
def test_small_files_that_ask_for_much(tmp_path, name):
    files, expected = CASES[name]
    lay(tmp_path, files())
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) < MOST_BYTES
    outcome = bounded(said_of, tmp_path, seconds=SECONDS)
    print(f"{name}: {outcome.peak / 1e6:.0f} MB")
    if expected is None:
        assert outcome.answer == []
    else:
        assert any(re.search(expected, one) for one in outcome.answer), outcome.answer[:3]
        assert all(len(one) < 1500 for one in outcome.answer)
