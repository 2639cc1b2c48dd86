"""The files of `box2mask run`, each read back by a reader that shares nothing with its writer."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from app.contract.masks import encode_polygons
from app.folders.outputs import Outputs
from app.prediction import PredictedObject
from app.results import azureml_jsonl, coco, cvat, label_studio, mask_pngs, overlays, whole_file, yolo_seg
from app.results.drawing import COLORS, Outlined, draw
from app.results.image_result import Corners, ImageResult, classes_of
from models.data.parsing.brush import pack
from models.data.parsing.shapes import joined
from models.rle import encode_rle

SIZE_HW = (37, 53)


def shapes() -> dict[str, np.ndarray]:
    """Masks (37, 53) bool of every awkward sort."""
    height, width = SIZE_HW
    ys, xs = np.mgrid[:height, :width]
    disc = (ys - 18) ** 2 + (xs - 30) ** 2 < 150
    ring = disc & ((ys - 18) ** 2 + (xs - 30) ** 2 > 40)
    corner = np.zeros(SIZE_HW, bool)
    corner[0, 0] = corner[-1, -1] = True
    touching = np.zeros(SIZE_HW, bool)
    touching[5:8, 5:8] = touching[8:10, 8:12] = True
    noise = np.random.default_rng(0).random(SIZE_HW) > 0.5
    return {
        "disc": disc, "ring": ring, "corner": corner, "touching": touching, "noise": noise,
        "full": np.ones(SIZE_HW, bool), "pixel": (ys == 36) & (xs == 0), "empty": np.zeros(SIZE_HW, bool),
    }  # fmt: skip


def result_of(masks: list[np.ndarray | None], name: str = "shelf/photo 1.jpg") -> ImageResult:
    objects = []
    for number, mask in enumerate(masks):
        rle = None if mask is None else encode_rle(mask)
        box = (1.0 + number, 2.5, 20.25 + number, 30.0)
        objects.append(
            PredictedObject(f"class {number % 2}", 0.9 - number / 100, box, rle, None if rle is None else 0.8)
        )
    return ImageResult(name, SIZE_HW, tuple(objects))


def written(write: Callable[..., int], *arguments: object) -> str:
    file = StringIO()
    write(file, *arguments)
    return file.getvalue()


def formed(form: whole_file.Form, results: list[ImageResult]) -> str:
    return written(whole_file.write, form, results)


@pytest.fixture
def results() -> list[ImageResult]:
    return [result_of(list(shapes().values())), ImageResult("void.png", (4, 5), ()), result_of([None], 'b"&<é>.png')]


def test_a_result_is_the_same_after_a_journey_through_json(results: list[ImageResult]) -> None:
    for result in results:
        assert ImageResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_classes_that_were_not_known_come_behind_the_known(results: list[ImageResult]) -> None:
    unnamed = ImageResult("x", (1, 1), (PredictedObject(None, None, (0, 0, 1, 1)),))
    known = ("zebra", "class 1")
    assert classes_of(known, [*results, unnamed]) == ("zebra", "class 1", "class 0", "object")


def test_coco_is_read_by_pycocotools(results: list[ImageResult], tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(written(coco.write, results, ("class 0", "class 1")))
    data = COCO(str(path))
    assert [(one["file_name"], one["height"], one["width"]) for one in data.loadImgs(data.getImgIds())] == [
        ("shelf/photo 1.jpg", *SIZE_HW), ("void.png", 4, 5), ('b"&<é>.png', *SIZE_HW)
    ]  # fmt: skip
    assert [one["name"] for one in data.loadCats(data.getCatIds())] == ["class 0", "class 1"]
    annotations = data.loadAnns(data.getAnnIds(imgIds=[1]))
    for number, (annotation, mask) in enumerate(zip(annotations, shapes().values(), strict=True)):
        assert (data.annToMask(annotation) == mask).all()
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [1.0 + number, 2.5, 19.25, 27.5]
        assert annotation["category_id"] == 1 + number % 2 and annotation["iou_score"] == 0.8
    (boxed,) = data.loadAnns(data.getAnnIds(imgIds=[3]))
    assert boxed["segmentation"] == [] and boxed["area"] == pytest.approx(19.25 * 27.5)

    # Its annotations are results too: measured against itself, COCO's own evaluation finds all of them.
    entries = [one for one in annotations if one["area"]]
    found = data.loadRes([{**one} for one in entries])
    evaluation = COCOeval(data, found, "segm")
    evaluation.params.imgIds = [1]
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval["precision"][0, :, :, 0, -1].max() == pytest.approx(1)


def test_the_data_sets_reader_takes_the_coco_file(results: list[ImageResult], tmp_path: Path) -> None:
    from models.data import load

    path = tmp_path / "coco.json"
    path.write_text(written(coco.write, results[:2], ("class 0", "class 1")), encoding="utf-8")
    dataset = load(path)
    assert dataset.class_names == ("class 0", "class 1") and [len(one.annotations) for one in dataset.images] == [8, 0]
    for annotation, mask in zip(dataset.images[0].annotations, shapes().values(), strict=True):
        assert (annotation.mask(SIZE_HW) == mask).all()


def test_azureml_lines_hold_polygons_that_fill_to_the_masks(results: list[ImageResult]) -> None:
    file = StringIO()
    assert (
        whole_file.write(file, azureml_jsonl.Lines(lambda name: f"azureml://store/{name}"), results) == 1
    )  # the empty one
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["image_url"] for line in lines][0] == "azureml://store/shelf/photo 1.jpg"
    assert lines[0]["image_details"] == {"format": "jpg", "width": 53, "height": 37}
    filled = [mask for name, mask in shapes().items() if name != "empty"]
    for label, mask in zip(lines[0]["label"], filled, strict=True):
        assert label.keys() == {"label", "isCrowd", "polygon"} and all(len(part) >= 6 for part in label["polygon"])
        absolute = [[value * (53, 37)[index % 2] for index, value in enumerate(part)] for part in label["polygon"]]
        drawn = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(absolute, *SIZE_HW)))
        assert (drawn == mask).all()
    assert lines[1]["label"] == []
    (boxed,) = lines[2]["label"]
    assert boxed == {
        "label": "class 0", "isCrowd": 0,
        "topX": 1 / 53, "topY": 2.5 / 37, "bottomX": 20.25 / 53, "bottomY": 30 / 37,
    }  # fmt: skip


def unpack_brush(packed: list[int], height: int, width: int) -> np.ndarray:
    """Label Studio's brush RLE as its own description has it, bit by bit; also its literal blocks."""
    bits = np.unpackbits(np.array(packed, np.uint8))
    at = 0

    def take(count: int) -> int:
        nonlocal at
        value = 0
        for bit in bits[at : at + count]:
            value = 2 * value + int(bit)
        at += count
        return value

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, size = take(1), sizes[take(2)]
        length = take(size) + 1
        values += [take(word)] * length if is_run else [take(word) for _ in range(length)]
    assert len(values) == total and len(bits) - at < 8
    return np.array(values).reshape(height, width, 4)


def test_label_studio_gets_rectangles_in_percent_and_brush_strokes(results: list[ImageResult]) -> None:
    tasks = json.loads(formed(label_studio.Tasks(lambda name: f"/data/{name}", "two models"), results))
    assert [task["data"]["image"] for task in tasks] == [
        "/data/shelf/photo 1.jpg",
        "/data/void.png",
        '/data/b"&<é>.png',
    ]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "two models" and prediction["score"] == pytest.approx(0.865)
    regions = {region["id"]: region for region in prediction["result"]}
    assert len(regions) == len(prediction["result"]) == 15  # of an empty mask there is only the box
    for number, (name, mask) in enumerate(shapes().items()):
        box = regions[f"box{number}"]
        assert (box["type"], box["from_name"], box["to_name"]) == ("rectanglelabels", "box", "image")
        assert (box["original_width"], box["original_height"], box["image_rotation"]) == (53, 37, 0)
        value = box["value"]
        assert value["rectanglelabels"] == [f"class {number % 2}"] and value["rotation"] == 0
        assert value["x"] * 53 / 100 == pytest.approx(1 + number) and value["y"] * 37 / 100 == pytest.approx(2.5)
        assert value["width"] * 53 / 100 == pytest.approx(19.25) and value["height"] * 37 / 100 == pytest.approx(27.5)
        if name == "empty":
            assert f"mask{number}" not in regions
            continue
        stroke = regions[f"mask{number}"]
        assert (stroke["type"], stroke["from_name"], stroke["value"]["format"]) == ("brushlabels", "mask", "rle")
        rgba = unpack_brush(stroke["value"]["rle"], *SIZE_HW)
        assert set(np.unique(rgba)) <= {0, 255} and (rgba == rgba[..., :1]).all()
        assert ((rgba[..., 3] > 0) == mask).all()
        assert stroke["score"] == box["score"] == pytest.approx(0.9 - number / 100)
    assert tasks[1]["predictions"][0]["result"] == []


def test_long_runs_are_packed_in_parts() -> None:
    mask = np.zeros((300, 400), bool)
    mask[200:] = True  # 320000 values of 0: more than 16 bits can count
    assert ((unpack_brush(list(pack(mask)), 300, 400)[..., 3] > 0) == mask).all()


def test_the_labelling_interface_names_what_the_tasks_name(results: list[ImageResult]) -> None:
    view = ElementTree.fromstring(label_studio.labeling_config(("class 0", 'a "b" & c')))
    controls = {one.get("name"): (one.tag, one.get("toName"), [label.get("value") for label in one]) for one in view}
    classes = ["class 0", 'a "b" & c']
    assert controls == {
        "image": ("Image", None, []),
        "mask": ("BrushLabels", "image", classes),
        "box": ("RectangleLabels", "image", classes),
    }
    tasks = json.loads(formed(label_studio.Tasks(str, ""), results))
    for region in tasks[0]["predictions"][0]["result"]:
        assert controls[region["from_name"]][0].lower() == region["type"]


def test_cvat_gets_masks_of_their_own_extent(results: list[ImageResult]) -> None:
    text = formed(cvat.Images(("class 0", "a & b")), results)
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>\n')
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    assert [one.text for one in root.findall("meta/task/labels/label/name")] == ["class 0", "a & b"]
    images = root.findall("image")
    assert [(one.get("id"), one.get("name"), one.get("width"), one.get("height")) for one in images] == [
        ("0", "shelf/photo 1.jpg", "53", "37"), ("1", "void.png", "5", "4"), ("2", 'b"&<é>.png', "53", "37")
    ]  # fmt: skip
    for number, (shape, (name, mask)) in enumerate(zip(images[0], shapes().items(), strict=True)):
        assert shape.get("label") == f"class {number % 2}"
        if name == "empty":
            assert shape.tag == "box"
            continue
        assert shape.tag == "mask"
        left, top, width, height = (int(shape.get(key)) for key in ("left", "top", "width", "height"))
        flat: list[bool] = []
        for index, run in enumerate(map(int, shape.get("rle").split(","))):
            assert run > 0 or index == 0
            flat += [bool(index % 2)] * run
        drawn = np.zeros(SIZE_HW, bool)
        drawn[top : top + height, left : left + width] = np.array(flat).reshape(height, width)
        assert (drawn == mask).all()
        assert mask[top].any() and mask[:, left].any() and mask[top + height - 1].any()  # no larger than need be
    (box,) = images[2]
    assert box.tag == "box"
    assert [box.get(key) for key in ("xtl", "ytl", "xbr", "ybr")] == ["1.00", "2.50", "20.25", "30.00"]


def filled(ring: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The pixels (H, W) whose centres are in a ring (N, 2) of coordinates in 0..1."""
    height, width = size_hw
    return coco_mask.decode(coco_mask.frPyObjects([(ring * (width, height)).ravel().tolist()], *size_hw))[..., 0] > 0


def read_yolo(folder: Path) -> dict[str, dict[str, list[tuple[str, np.ndarray]]]]:
    """For train and val, by the image's file its objects: class and ring. As Ultralytics finds and reads them."""
    config = yaml.safe_load((folder / "data.yaml").read_text())
    parts: dict[str, dict[str, list[tuple[str, np.ndarray]]]] = {}
    for part in ("train", "val"):
        parts[part] = {}
        for line in (folder / config[part]).read_text().splitlines():
            image = str(folder / line.removeprefix("./"))
            assert Path(image).is_file()
            label = "/labels/".join(image.rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt"
            rows = [row.split() for row in Path(label).read_text().splitlines()]
            # Fewer would be taken for a box, and a file that has both is refused.
            assert all(len(row) >= 7 and len(row) % 2 == 1 for row in rows)
            rings = [np.array(row[1:], np.float32).reshape(-1, 2) for row in rows]
            assert all(ring.min() >= 0 and ring.max() <= 1 for ring in rings)
            names = [config["names"][int(row[0])] for row in rows]
            parts[part][Path(image).name] = list(zip(names, rings, strict=True))
    return parts


def test_yolo_labels_fill_to_the_masks_with_all_parts_and_holes(tmp_path: Path) -> None:
    island = shapes()["ring"].copy()
    island[18, 30] = True  # in the ring's hole
    masks = [*shapes().values(), island]
    photos, folder = tmp_path / "photos", tmp_path / "set"
    results = [result_of(masks, "images/shelf/a b.jpg"), result_of([], "void.png"), result_of([None], "void.jpg")]
    for result in results:
        (photos / result.name).parent.mkdir(parents=True, exist_ok=True)
        (photos / result.name).write_text(result.name)
    folder.mkdir()
    gone = result_of([masks[0]], "gone.jpg")
    classes = ("unused", "class 1", "class 0")
    assert yolo_seg.write(folder, [results[0], gone, *results[1:]], classes, photos) == yolo_seg.LeftOut(1, 1)

    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == dict(enumerate(classes))
    parts = read_yolo(folder)
    assert parts["val"].keys() == {"images__shelf__a b.jpg"} and parts["train"].keys() == {"void.png", "void_.jpg"}
    rings = parts["val"]["images__shelf__a b.jpg"]
    expected = [(f"class {number % 2}", mask) for number, mask in enumerate(masks) if mask.any()]
    for (name, ring), (label, mask) in zip(rings, expected, strict=True):
        assert name == label and (filled(ring, SIZE_HW) == mask).all()
    assert parts["train"]["void.png"] == []
    ((name, ring),) = parts["train"]["void_.jpg"]
    assert name == "class 0" and ring * (53, 37) == pytest.approx(
        np.array([(1, 2.5), (20.25, 2.5), (20.25, 30), (1, 30)])
    )
    assert (folder / "images" / "void_.jpg").read_text() == "void.jpg"


def test_a_yolo_set_may_be_written_to_without_a_change_of_the_photos(tmp_path: Path) -> None:
    """Ultralytics encodes a JPEG without its end marker anew, in its place; others turn or shrink pictures there."""
    photos, folder = tmp_path / "photos", tmp_path / "set"
    photos.mkdir()
    folder.mkdir()
    Image.fromarray(np.arange(53 * 37 * 3, dtype=np.uint8).reshape(37, 53, 3)).save(photos / "cut.jpg")
    whole = (photos / "cut.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[:-2])
    (photos / "whole.jpg").write_bytes(whole)
    (photos / "linked.jpg").symlink_to("whole.jpg")
    names = ("cut.jpg", "whole.jpg", "linked.jpg")
    before = [(photos / name).read_bytes() for name in names]
    yolo_seg.write(folder, [result_of([], name) for name in names], ("class 0",), photos)
    for name, content in zip(names, before, strict=True):
        inside = folder / "images" / name
        assert inside.read_bytes() == content and not inside.is_symlink()
        with inside.open("r+b") as file:  # in place, as Pillow's save() does too
            file.write(b"changed")
    assert [(photos / name).read_bytes() for name in names] == before


def test_a_yolo_set_of_many_images_keeps_every_fifth_for_validation(tmp_path: Path) -> None:
    for count, training, validation in ((1, 1, 1), (2, 1, 1), (11, 8, 3)):
        photos, folder = tmp_path / f"photos{count}", tmp_path / f"set{count}"
        photos.mkdir()
        folder.mkdir()
        results = [result_of([shapes()["disc"]], f"{number:02}.jpg") for number in range(count)]
        for result in results:
            (photos / result.name).touch()
        yolo_seg.write(folder, results, ("class 0",), photos)
        parts = read_yolo(folder)
        assert (len(parts["train"]), len(parts["val"])) == (training, validation)
        assert len({*parts["train"], *parts["val"]}) == count
    assert list(parts["val"]) == ["00.jpg", "05.jpg", "10.jpg"]


def test_cuts_between_the_parts_of_a_scattered_mask_have_no_width() -> None:
    size_hw = (200, 300)
    for seed in range(5):
        coarse = np.random.default_rng(seed).random((20, 30)) > 0.6
        mask = np.kron(coarse, np.ones((10, 10), bool))
        parts = [np.array(flat).reshape(-1, 2) for flat in encode_polygons(mask)]
        assert len(parts) > 20
        assert (filled(joined(parts), size_hw) == mask).all()


def test_masks_are_grey_pngs_named_by_image_and_number(results: list[ImageResult], tmp_path: Path) -> None:
    result = results[0]
    mask_pngs.write(tmp_path, result)
    assert mask_pngs.are_there(tmp_path, result)
    for number, mask in enumerate(shapes().values()):
        with Image.open(tmp_path / "shelf" / "photo 1.jpg" / f"{number:03}.png") as image:
            assert image.mode == "L" and (np.asarray(image) == mask * 255).all()
    fewer = result_of([shapes()["disc"]])
    mask_pngs.write(tmp_path, fewer)
    assert [one.name for one in (tmp_path / "shelf" / "photo 1.jpg").iterdir()] == ["000.png"]
    mask_pngs.write(tmp_path, result_of([]))
    assert not (tmp_path / "shelf" / "photo 1.jpg").exists()
    with pytest.raises(ValueError, match="object 0 has no mask"):
        mask_pngs.write(tmp_path, results[2])
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []  # nothing half written


def test_overlays_tint_the_mask_and_outline_the_box(tmp_path: Path) -> None:
    grey = Image.new("RGB", (200, 150), (128, 128, 128))
    mask = np.zeros((150, 200), bool)
    mask[60:100, 60:120] = True
    drawn = np.asarray(draw(grey, [Outlined((50, 50, 130, 110), "can 0.90", mask)])).astype(int)
    tinted = np.abs(drawn - 128).max(-1) > 20
    assert tinted[65:95, 65:115].all()
    assert not tinted[103:107, 65:115].any()  # inside the box, outside the mask
    assert tinted[50, 50:130].all() and tinted[110, 55:130].all()
    assert not tinted[115:].any() and not tinted[:, 140:].any()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8))
    whole = Image.composite(
        Image.blend(photo, Image.new("RGB", photo.size, COLORS[0]), 0.55), photo, Image.fromarray(mask)
    )
    of_photo = np.asarray(draw(photo, [Outlined((0, 0, 0, 0), "", np.asfortranarray(mask))]))
    assert (of_photo[60:] == np.asarray(whole)[60:]).all()
    plain = np.asarray(draw(grey, [Outlined((50, 50, 130, 110), "can")])).astype(int)
    assert (plain[65:95, 65:115] == 128).all()

    result = ImageResult(
        "a/b.png", (150, 200), (PredictedObject("can", 0.9, (50, 50, 130, 110), encode_rle(mask), 1.0),)
    )
    overlays.write(tmp_path, result, grey)
    with Image.open(tmp_path / "a" / "b.png.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - drawn).mean() < 5


def test_outlines_with_few_corners_are_in_every_format_that_has_outlines(tmp_path: Path) -> None:
    masks = shapes()
    corners = Corners(polygon_tolerance=1.0)
    result = result_of([masks["disc"], masks["ring"], masks["corner"], masks["empty"]])
    expected = [corners.polygons(masks[name]) for name in ("disc", "ring", "corner")]
    assert [len(parts) for parts in expected] == [1, 1, 2] and len(expected[0][0]) < 20
    names = ["class 0", "class 1"]

    annotations = json.loads(written(coco.write, [result], names, corners))["annotations"]
    for entry, parts in zip(annotations, [*expected, []], strict=True):
        for flat, part in zip(entry["segmentation"], parts, strict=True):
            np.testing.assert_allclose(np.reshape(flat, (-1, 2)), part * SIZE_HW[::-1], atol=1e-3)
    assert annotations[0]["area"] == masks["disc"].sum()

    (line,) = formed(azureml_jsonl.Lines(str, corners), [result]).splitlines()
    said = [[np.reshape(flat, (-1, 2)) for flat in one["polygon"]] for one in json.loads(line)["label"]]
    for found, parts in zip(said, expected, strict=True):
        assert all((one == part).all() for one, part in zip(found, parts, strict=True))

    (task,) = json.loads(formed(label_studio.Tasks(str, "model", corners), [result]))
    regions = task["predictions"][0]["result"]
    drawn = [one for one in regions if one["type"] == "polygonlabels"]
    assert [one["id"] for one in drawn] == ["mask0", "mask1", "mask2", "mask1_2"]
    assert not [one for one in regions if one["type"] == "brushlabels"] and len(regions) == 8
    for one, part in zip(drawn, [part for parts in expected for part in parts], strict=True):
        assert one["from_name"] == "polygon" and np.allclose(one["value"]["points"], 100 * part)

    source = tmp_path / "photos" / result.name
    source.parent.mkdir(parents=True)
    Image.new("RGB", SIZE_HW[::-1]).save(source)
    (tmp_path / "set").mkdir()
    yolo_seg.write(tmp_path / "set", [result], names, tmp_path / "photos", corners)
    (labels,) = (tmp_path / "set" / "labels").glob("*.txt")
    lines = [np.array(line.split()[1:], float).reshape(-1, 2) for line in labels.read_text().splitlines()]
    assert len(lines) == 3 and all(np.allclose(one, joined(parts)) for one, parts in zip(lines, expected, strict=True))


def test_label_studio_gets_the_name_of_a_linked_folder_and_not_where_it_leads(
    results: list[ImageResult], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my photos").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out").mkdir()
    for root in (tmp_path / "my photos", tmp_path / "out" / ".." / "my photos"):
        outputs = Outputs(tmp_path / "out", ("label-studio",), root, None, "model")
        outputs.write_all(results, ("class 0", "class 1"))
        (first, *_) = json.loads((tmp_path / "out" / "label_studio.json").read_text())
        assert first["data"]["image"] == f"/data/local-files/?d=my%20photos/{quote(results[0].name)}"


@pytest.mark.parametrize(
    "form",
    [azureml_jsonl.Lines(str), label_studio.Tasks(str, "model"), cvat.Images(("class 0", "class 1"))],
    ids=lambda form: type(form).__name__,
)
def test_a_file_is_the_same_whoever_makes_its_texts(form: whole_file.Form, results: list[ImageResult]) -> None:
    """In several parts, by processes that get nothing but what was sent to them."""
    several = [replace(result, name=f"{number} {result.name}") for number in range(3) for result in results]

    def make(form: whole_file.Form, rated: Iterable[tuple[ImageResult, float | None]]) -> Iterator[tuple[str, int]]:
        parts = list(rated)
        for first in range(0, len(parts), 4):
            yield whole_file.together(*pickle.loads(pickle.dumps((form, parts[first : first + 4], first))))

    def priority(name: str) -> float:
        return int(name[0]) / 4

    for rating in (None, priority):
        alone, parts = StringIO(), StringIO()
        lacking = whole_file.write(alone, form, several, rating)
        assert whole_file.write(parts, form, several, rating, make) == lacking
        assert parts.getvalue() == alone.getvalue() != ""
        assert (lacking == 3) == isinstance(form, azureml_jsonl.Lines)
    empty = StringIO()
    whole_file.write(empty, form, [])
    assert empty.getvalue() == form.opening + form.closing
