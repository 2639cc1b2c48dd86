"""Valid files of every format, broken at random: each is read, or refused in a sentence, whatever has become of it.

Each format has a process of its own, which may not take a gigabyte. BOX2MASK_MUTATIONS=2000 tries as many for each in
place of a few; BOX2MASK_MUTATIONS_SEED begins elsewhere.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from app.contract.masks import encode_polygons
from models.data import WRITTEN, Annotation, DataError, Dataset, LabelledImage, Problem, check, read, shortened, write
from models.data.parsing.brush import pack
from models.evaluation.predictions import read_predictions
from tests.strangers import test_datumaro, test_supervisely, test_via
from tests.strangers.bounded import bounded
from tests.strangers.data_cases import Case
from tests.strangers.mutations import mutated

COUNT = int(os.environ.get("BOX2MASK_MUTATIONS", "25"))
SEED = int(os.environ.get("BOX2MASK_MUTATIONS_SEED", "0"))
LONGEST_MESSAGE = 1500  # characters of one problem


def masks() -> list[np.ndarray]:
    """Two masks (H, W) bool of the photos' size, the first with a hole."""
    found = np.zeros((2, 24, 32), bool)
    found[0, 4:10, 5:20] = True
    found[0, 6, 8] = False
    found[1, 12:20, 1:9] = True
    return list(found)


def data_set(folder: Path, *, only_boxes: bool = False) -> Dataset:
    """Two photos with boxes, polygons and run-length encoded masks."""
    folder.mkdir()
    rle = coco_mask.encode(np.asfortranarray(masks()[0], dtype=np.uint8))
    objects: tuple[Annotation, ...] = (Annotation("can", (1.0, 2.0, 11.5, 12.25)),)
    if not only_boxes:
        outline = (2.0, 2.0, 12.0, 2.0, 12.0, 20.0)
        objects += (
            Annotation("carton", (2.0, 2.0, 12.0, 20.0), polygons=(outline,)),
            Annotation("can", (5.0, 4.0, 20.0, 10.0), rle={"size": [24, 32], "counts": rle["counts"].decode()}),
        )
    images = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 24)).save(folder / name)
        images.append(LabelledImage(folder / name, (24, 32), objects))
    return Dataset(("can", "carton"), tuple(images))


def written(folder: Path, format: str, *, only_boxes: bool = False) -> Path:
    """The data set as this project writes it."""
    dataset = data_set(folder / "photos", only_boxes=only_boxes)
    write(dataset, folder / "sound", format, outline=encode_polygons)
    return folder / "sound"


def laid(folder: Path, files: dict[str, Any]) -> Path:
    """Files of our own, beside the two photos. What is no text is written as JSON."""
    data_set(folder / "sound")
    for name, content in files.items():
        path = folder / "sound" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return folder / "sound"


def coco(folder: Path) -> Path:
    """Ids that are text, an uncompressed RLE, and two parts of one outline."""
    runs = coco_mask.encode(np.asfortranarray(masks()[0], dtype=np.uint8))
    common = {"image_id": "a", "category_id": 1, "iscrowd": 0}
    return laid(folder, {"instances.json": {
        "info": {}, "images": [{"id": "a", "file_name": "a.png", "width": 32, "height": 24}],
        "categories": [{"id": 1, "name": "can", "supercategory": "things"}, {"id": "2", "name": "jar"}],
        "annotations": [
            {**common, "id": 1, "bbox": [1, 2, 3.5, 4]},
            {**common, "id": 2, "segmentation": [[1, 1, 9, 1, 9, 9], [[12, 12], [20, 12], [20, 20]]]},
            {**common, "id": 3, "segmentation": {"size": [24, 32], "counts": runs["counts"].decode()}},
            {**common, "id": 4, "segmentation": {"size": [24, 32], "counts": [100, 50, 24 * 32 - 150]}},
        ],
    }})  # fmt: skip


def json_min(folder: Path) -> Path:
    """Label Studio's JSON-MIN, with tasks that hold no objects and with those that do."""
    sizes = {"original_width": 32, "original_height": 24}
    box = {"x": 10, "y": 10, "width": 30.5, "height": 40, "rotation": 0, "rectanglelabels": ["can"], **sizes}
    brush = {"format": "rle", "rle": list(pack(masks()[0])), "brushlabels": ["carton"], **sizes}
    outline = {"points": [[5, 5], [50, 5], [50, 50]], "polygonlabels": ["can"], **sizes}
    return laid(folder, {"project.json": [
        {"image": "/data/upload/1/0a1b2c3d-a.png", "id": 1, "label": [box], "brush": [brush], "outline": [outline]},
        {"image": "b.png", "id": 2, "annotator": 1, "width": 32, "height": 24},
    ]})  # fmt: skip


def label_studio(folder: Path) -> Path:
    """Label Studio's JSON with what it has beside rectangles, and with several annotations of one task."""
    common = {"original_width": 32, "original_height": 24, "image_rotation": 0, "from_name": "label"}
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "rotation": 15, "ellipselabels": ["can"]}
    turned = {"x": 20, "y": 20, "width": 30, "height": 10, "rotation": 40, "rectanglelabels": ["can"]}
    result = [
        {**common, "id": "e", "type": "ellipselabels", "value": ellipse},
        {**common, "id": "t", "type": "rectanglelabels", "value": turned},
        {**common, "id": "k", "type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["can"]}},
    ]
    annotations = [{"result": result, "created_at": "2026-01-01"}, {"result": [], "was_cancelled": True}]
    return laid(folder, {"tasks.json": [
        {"id": 1, "data": {"image": "/data/local-files/?d=x/a.png"}, "annotations": annotations, "file_upload": ""},
        {"id": 2, "data": {"image": "b.png"}, "annotations": [], "predictions": [{"result": result, "score": 0.5}]},
    ]})  # fmt: skip


def cvat(folder: Path) -> Path:
    """CVAT for images with turned boxes, ellipses, tags and a mask."""
    box = '<box label="can" xtl="1" ytl="2" xbr="11" ybr="12" rotation="30"/>'
    ellipse = '<ellipse label="can" cx="9" cy="9" rx="4" ry="3"/>'
    mask = '<mask label="can" left="3" top="4" width="4" height="2" rle="1, 2, 3, 2"/>'
    image = f'<image id="0" name="a.png" width="32" height="24">{box}{ellipse}{mask}<tag label="can"/></image>'
    labels = "<meta><task><labels><label><name>can</name></label></labels></task></meta>"
    return laid(folder, {"annotations.xml": f"<annotations>{labels}{image}</annotations>"})


def labelme(folder: Path) -> Path:
    """LabelMe's circles, turned rectangles and groups of a mask and a rectangle."""
    file = io.BytesIO()
    Image.fromarray(np.eye(5, dtype=bool)).save(file, format="PNG")
    picture = base64.b64encode(file.getvalue()).decode()
    shapes = [
        {"label": "can", "shape_type": "circle", "points": [[9, 9], [12, 9]], "group_id": None},
        {"label": "can", "shape_type": "mask", "points": [[2, 3], [6, 7]], "mask": picture, "group_id": 1},
        {
            "label": "can",
            "shape_type": "rectangle",
            "points": [[8, 8], [2, 12]],
            "group_id": 1,
            "flags": {"crowd": True},
        },
    ]
    content = {"imagePath": "a.png", "imageHeight": 24, "imageWidth": 32, "imageData": None, "shapes": shapes}
    return laid(folder, {"a.json": content, "labels.txt": "__ignore__\ncan\n"})


def voc_masks(folder: Path) -> Path:
    """odFridgeObjectsMask: a picture of all masks of a photo, beside its XML file. The picture is broken, too."""
    file = "<annotation><filename>{}.png</filename><size><width>32</width><height>24</height></size>{}</annotation>"
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30.5</xmax><ymax>20</ymax></bndbox>"
    objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in ("can", "carton"))
    sound = laid(folder, {f"annotations/{name}.xml": file.format(name, objects) for name in "ab"})
    (sound / "segmentation-masks").mkdir()
    first, second = masks()
    Image.fromarray((first + 2 * second).astype(np.uint8)).save(sound / "segmentation-masks" / "a.png")
    Image.fromarray((first + 700 * second).astype(np.uint16)).save(sound / "segmentation-masks" / "b.png")
    return sound


def mltable(folder: Path) -> Path:
    """A table of a file, a folder and a pattern."""
    table = """\
paths:
  - file: ./one.jsonl
  - folder: more
  - pattern: ./m*/*.jsonl
transformations:
  - read_json_lines: {encoding: utf8, invalid_lines: drop}
  - convert_column_types: [{columns: image_url, column_type: stream_info}]
"""
    label = '[{"label": "can", "topX": 0.1, "topY": 0.1, "bottomX": 0.5, "bottomY": 0.5, "isCrowd": 0}]'
    row = '{{"image_url": "{}.png", "image_details": {{"width": "32px", "height": "24px"}}, "label": {}}}\n'
    files = {"MLTable": table, "one.jsonl": row.format("a", label), "more/two.jsonl": row.format("../b", label)}
    return laid(folder, {**files, "one.classes.txt": "can\n"})


def cases(folder: Path, *its: Case) -> Path:
    """What other tools write, of a format that is only read."""
    for case in its:
        case.lay(folder / "sound")
    return folder / "sound"


VIA = test_via.CASES["VIA 2: circles, turned ellipses, points and lines"]
SUPERVISELY = [
    test_supervisely.CASES[name]
    for name in ("two datasets, and one in another", "a bitmap, as the SDK packs it", "a polygon with a hole")
]

SOUND: dict[str, tuple[str, Callable[[Path], Path]]] = {
    **{format: (format, lambda folder, format=format: written(folder, format)) for format in WRITTEN},  # type: ignore[misc]
    "yolo-boxes": ("yolo", lambda folder: written(folder, "yolo", only_boxes=True)),
    "coco-by-hand": ("coco", coco),
    "label-studio-min": ("label-studio", json_min),
    "label-studio-by-hand": ("label-studio", label_studio),
    "cvat-by-hand": ("cvat", cvat),
    "labelme-by-hand": ("labelme", labelme),
    "voc-masks": ("voc", voc_masks),
    "mltable-by-hand": ("mltable", mltable),
    "via": ("via", lambda folder: cases(folder, VIA)),
    "supervisely": ("supervisely", lambda folder: cases(folder, *SUPERVISELY)),
    "datumaro": ("datumaro", lambda folder: cases(folder, test_datumaro.ALL_KINDS)),
}


def sentences(problems: Iterable[Problem]) -> None:
    """Every problem can be said, is of some kind, and is no novel."""
    for one in problems:
        assert one.reason and one.kind and len(str(one)) <= LONGEST_MESSAGE, str(one)[:LONGEST_MESSAGE]
    assert list(shortened(problems, 3)) is not None


def read_broken(sound: Path, format: str, rng: random.Random) -> str:
    """How much can be read of it. It is written again, too, if other formats can hold it."""
    try:
        dataset, problems = read(sound, format=rng.choice([None, format]))
    except DataError as error:
        assert error.problems
        sentences(error.problems)
        return "refused"
    sentences(problems)
    sentences(check(dataset))
    try:
        write(dataset, sound.parent / "again", rng.choice(["coco", "jsonl", "voc"]), outline=encode_polygons)
    except ValueError as error:
        assert type(error) in (DataError, ValueError) and str(error)
    finally:
        shutil.rmtree(sound.parent / "again", ignore_errors=True)
    return "in part" if any(one.fatal for one in problems) else "read"


def break_and_read(folder: Path, name: str, count: int, seed: int) -> Counter[str]:
    """How many of so many mutations were read, and refused."""
    format, lay = SOUND[name]
    sound = lay(folder)
    files = [path for path in sorted(sound.rglob("*")) if path.is_file()]
    files = [path for path in files if path.suffix not in (".png", ".jpg") or path.parent.name == "segmentation-masks"]
    return _tried(files, count, random.Random(f"{seed} {name}"), lambda rng: read_broken(sound, format, rng))


def break_and_compare(folder: Path, count: int, seed: int) -> Counter[str]:
    """The same of COCO's lists of results, and of other files of predictions, for `evaluate --predictions`."""
    dataset = read(coco(folder))[0]
    rle = coco_mask.encode(np.asfortranarray(masks()[0], dtype=np.uint8))
    found = {"image_id": "a", "category_id": 1, "score": 0.5}
    listed = [
        {**found, "bbox": [1, 2, 3, 4.5]},
        {**found, "segmentation": {"size": [24, 32], "counts": rle["counts"].decode()}},
    ]
    results = folder / "results.json"
    whole = json.loads((folder / "sound" / "instances.json").read_text())
    whole["annotations"] = [{**one, "score": 0.5} for one in whole["annotations"]]
    outcomes: Counter[str] = Counter()
    for content in (listed, whole):
        results.write_text(json.dumps(content))

        def compare(rng: random.Random) -> str:
            try:
                read_predictions(results, dataset, skip_bad=rng.random() < 0.3)
            except DataError as error:
                sentences(error.problems)
                return "refused"
            return "read"

        outcomes += _tried([results], count // 2, random.Random(f"{seed} {len(content)}"), compare)
    return outcomes


def _tried(files: list[Path], count: int, rng: random.Random, attempt: Callable[[random.Random], str]) -> Counter[str]:
    whole = {path: path.read_bytes() for path in files}
    assert attempt(rng) == "read", "not even as it was"
    outcomes: Counter[str] = Counter()
    for number in range(count):
        broken = rng.choice(files)
        broken.write_bytes(content := mutated(whole[broken], broken, rng))
        try:
            outcomes[attempt(rng)] += 1
        except Exception as error:
            shown = f"{content[:3000]!r}{'...' if len(content) > 3000 else ''}"
            raise AssertionError(f"{number}: {type(error).__name__}: {error}: {broken.name}: {shown}") from error
        broken.write_bytes(whole[broken])
    return outcomes


@pytest.mark.parametrize("name", SOUND)
def test_files_that_are_broken_at_random(tmp_path, name):
    outcome = bounded(break_and_read, tmp_path, name, COUNT, SEED, seconds=60 + COUNT)
    print(f"{name}: {outcome.answer}, {outcome.peak / 1e6:.0f} MB")
    assert sum(outcome.answer[one] > 0 for one in ("read", "in part", "refused")) > 1, outcome


def test_predictions_that_are_broken_at_random(tmp_path):
    outcome = bounded(break_and_compare, tmp_path, COUNT, SEED, seconds=60 + COUNT)
    print(f"predictions: {outcome.answer}, {outcome.peak / 1e6:.0f} MB")
    assert sum(outcome.answer[one] > 0 for one in ("read", "in part", "refused")) > 1, outcome


def take(megabytes: int) -> int:
    return len(np.ones(megabytes * 1_000_000, np.uint8))


def test_that_the_bound_sees_what_is_taken():
    assert 150e6 < bounded(take, 200).peak < 300e6
    with pytest.raises(AssertionError, match="took 3.. MB, expected at most 100"):
        bounded(take, 300, most=100_000_000)
    with pytest.raises(AssertionError, match="MemoryError"):
        bounded(take, 20_000)
