"""Lists of results as detectors' tools write them, measured against a data set of ids that are neither 0, 1, 2 nor
in the order of anything; by the tool that writes such a list, with what it means beside it.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from models.data import Annotation, DataError, Dataset, LabelledImage, load
from models.evaluation import Options, read_predictions
from models.evaluation.readings import box_doubt

NAMES = {"139": "000000000139.jpg", "285": "000000000285.jpg", "632": "000000000632.jpg"}
CLASSES = {1: "person", 3: "car", 13: "stop sign", 90: "toothbrush"}
SIZE_HW = (60, 80)
# For each image its objects: category and bbox.
OBJECTS = {
    139: [(1, [10, 10, 20, 20]), (3, [40, 10, 20, 20])],
    285: [(3, [5, 30, 30, 20])],
    632: [(13, [2, 2, 10, 10]), (90, [30, 30, 40, 20])],
}


def annotations(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": int(key), "file_name": name, "height": 60, "width": 80} for key, name in NAMES.items()],
        "categories": [{"id": key, "name": name} for key, name in CLASSES.items()],
        "annotations": [
            {"id": 100 * image + number, "image_id": image, "category_id": category, "bbox": bbox}
            for image, objects in OBJECTS.items()
            for number, (category, bbox) in enumerate(objects)
        ],
    } | changes


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    path = tmp_path / "instances_val2017.json"
    path.write_text(json.dumps(annotations()))
    return load(path)


def results(**changes: Any) -> list[dict[str, Any]]:
    """What a detector that finds everything writes, with a field changed in all of it: by a value or a function."""
    entries = []
    for image, objects in OBJECTS.items():
        for category, bbox in objects:
            entry: dict[str, Any] = {"image_id": image, "category_id": category, "bbox": bbox, "score": 0.5}
            for name, change in changes.items():
                entry[name] = change(entry) if callable(change) else change
            entries.append(entry)
    return entries


def read(tmp_path: Path, content: Any, data: Dataset, options: Options | None = None, **how: Any) -> Any:
    path = tmp_path / "results.bbox.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_predictions(path, data, options, **how)


def said(found: Any) -> list[list[tuple[str | None, tuple[float, ...]]]]:
    return [[(one.label, one.box_xyxy) for one in in_image] for in_image in found.found]


EXPECTED = [
    [("person", (10, 10, 30, 30)), ("car", (40, 10, 60, 30))],
    [("car", (5, 30, 35, 50))],
    [("stop sign", (2, 2, 12, 12)), ("toothbrush", (30, 30, 70, 50))],
]
NUMBER = {category: number for number, category in enumerate(CLASSES)}
FRACTIONS = {"xywh": [80, 60, 80, 60]}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(results(), id="pycocotools"),
        pytest.param(results(image_id=lambda one: str(one["image_id"])), id="ids as text"),
        pytest.param(results(image_id=lambda one: f"{one['image_id']:012}"), id="ids as text with zeros"),
        pytest.param(
            results(**{key: lambda one, key=key: float(one[key]) for key in ("image_id", "category_id")}),
            id="pandas, where a column had gaps",
        ),
        pytest.param(results(category_id=lambda one: str(one["category_id"])), id="category ids as text"),
        pytest.param(results(bbox=lambda one: str(one["bbox"]), score="0.5"), id="pandas, from CSV"),
        pytest.param({"annotations": results()}, id="in an object"),
        pytest.param(results(image_id=lambda one: f"{one['image_id']:012}.jpg"), id="names as ids"),
        pytest.param(results(image_id=lambda one: f"C:\\val\\{one['image_id']:012}.JPG"[7:]), id="another case"),
        pytest.param(results(file_name=lambda one: f"{one['image_id']:012}.jpg", image_id=7), id="Ultralytics"),
        pytest.param(results(category_id=lambda one: CLASSES[one["category_id"]]), id="names of classes as ids"),
        pytest.param(results(label=lambda one: CLASSES[one["category_id"]], category_id=None), id="labels"),
    ],
)  # fmt: skip
def test_what_means_one_thing_is_read(tmp_path: Path, data: Dataset, content: Any) -> None:
    found = read(tmp_path, content, data)
    assert said(found) == EXPECTED and found.notes == ()
    assert {one.score for in_image in found.found for one in in_image} == {0.5}


@pytest.mark.parametrize("start", [0, 1])
def test_positions_in_place_of_category_ids_are_told_by_what_they_cannot_be(tmp_path, data, start):
    found = read(tmp_path, results(category_id=lambda one: NUMBER[one["category_id"]] + start), data)
    assert said(found) == EXPECTED
    assert f"category_id is read as positions from {start}, as not all are ids" in found.notes[0]
    assert f"{start} is person, {start + 1} is car" in found.notes[0] and "--category-ids" in found.notes[0]


def test_positions_that_could_be_ids_are_asked_for_where_the_objects_speak_against_ids(tmp_path):
    """Ids 1, 2, 3 and a detector that counts from 0, and has found none of the first class."""
    boxes = [[10 * number, 5, 8, 8] for number in range(6)]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 60, "width": 80}],
        "categories": [{"id": number, "name": name} for number, name in enumerate("abc", 1)],
        "annotations": [{"id": n, "image_id": 1, "category_id": 2 + n % 2, "bbox": box} for n, box in enumerate(boxes)],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    data = load(path)
    listed = [{"image_id": 1, "category_id": 1 + n % 2, "bbox": box, "score": 0.9} for n, box in enumerate(boxes)]
    with pytest.raises(DataError, match=r"ids \(0 boxes.*positions from 0 \(6 boxes.*--category-ids from-0"):
        read(tmp_path, listed, data)
    found = read(tmp_path, listed, data, Options(category_ids="from-0"))
    assert [one.label for one in found.found[0]] == list("bcbcbc")
    assert [one.label for one in read(tmp_path, listed, data, Options(category_ids="ids")).found[0]] == list("ababab")
    # With a class found that no position is, nothing is in doubt.
    assert read(tmp_path, [entry | {"category_id": entry["category_id"] + 1} for entry in listed], data).notes == ()


def test_where_two_positions_fit_the_objects_decide_and_else_it_is_asked(tmp_path, data):
    listed = [
        entry
        for entry in results(category_id=lambda one: NUMBER[one["category_id"]] + 1)
        if entry["category_id"] in (2, 3)
    ]
    with pytest.raises(DataError, match=r"category_id can be .*positions from 0 .*positions from 1.*--category-ids"):
        read(tmp_path, [entry | {"bbox": [0, 50, 3, 3]} for entry in listed], data)
    found = read(tmp_path, [entry | {"score": score} for entry in listed for score in (0.5, 0.6)], data)
    assert [[one.label for one in in_image] for in_image in found.found] == [
        ["car"] * 2,
        ["car"] * 2,
        ["stop sign"] * 2,
    ]
    assert "positions from 1" in found.notes[0]


def test_a_number_that_is_the_files_name_is_told_from_an_id(tmp_path):
    """Ultralytics writes the number in the name where a name is one; here ids are 0, 1 and 2."""
    numbers = {int(key): index for index, key in enumerate(NAMES)}
    content = annotations()
    for image in content["images"]:
        image["file_name"] = f"{image['id']}.jpg"
    for entry in (*content["images"], *content["annotations"]):
        key = "image_id" if "image_id" in entry else "id"
        entry[key] = numbers[entry[key]]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content))
    found = read(tmp_path, results(), load(path))
    assert said(found) == EXPECTED and "image_id is read as the number in a file's name" in found.notes[0]
    with pytest.raises(DataError, match="expected images of the data set, found only others: 139"):
        read(tmp_path, results(), load(path), Options(image_ids="ids"))


def scaled(entry: dict[str, Any], corners: bool) -> list[float]:
    x, y, width, height = entry["bbox"]
    four = [x, y, x + width, y + height] if corners else [x, y, width, height]
    return [value / side for value, side in zip(four, (80, 60, 80, 60), strict=True)]


@pytest.mark.parametrize(
    ("bbox", "reason", "form"),
    [
        (lambda one: scaled(one, False), "all 5 boxes are in 0..1.*--boxes xywh-fractions", "xywh-fractions"),
        (lambda one: scaled(one, True), "all 5 boxes are in 0..1.*xyxy-fractions corners", "xyxy-fractions"),
        (
            lambda one: [*one["bbox"][:2], one["bbox"][0] + one["bbox"][2], one["bbox"][1] + one["bbox"][3]],
            "3 of 5 boxes end outside.*--boxes xyxy reads",
            "xyxy",
        ),
    ],
)
def test_boxes_of_another_form_are_asked_for(tmp_path, data, bbox, reason, form):
    with pytest.raises(DataError, match=reason):
        read(tmp_path, results(bbox=bbox), data)
    found = read(tmp_path, results(bbox=bbox), data, Options(boxes=form))
    for in_image, expected in zip(said(found), EXPECTED, strict=True):
        for (label, box), (its_label, its_box) in zip(in_image, expected, strict=True):
            assert label == its_label and box == pytest.approx(its_box)


def square() -> tuple[np.ndarray, dict[str, Any]]:
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[10:30, 10:30] = 1
    mask[15:20, 15:20] = 0
    rle = coco_mask.encode(np.asfortranarray(mask))
    return mask, {"size": list(SIZE_HW), "counts": rle["counts"].decode()}


def test_masks_of_every_form_with_boxes_and_without(tmp_path, data):
    """mmdet's results.segm.json, Detectron2's coco_instances_results.json, str() around bytes, and polygons."""
    mask, rle = square()
    flat = mask.ravel(order="F")
    runs = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    forms = [
        rle, rle | {"counts": str(rle["counts"].encode())}, rle | {"counts": runs}, json.dumps(rle),
        [[10, 10, 30, 10, 30, 30, 10, 30]], [], None,
    ]  # fmt: skip
    listed = [
        {"image_id": 139, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9 - number / 100, "segmentation": form}
        for number, form in enumerate(forms)
    ] + [{"image_id": 139, "category_id": 1, "score": 0.1, "segmentation": rle}]
    found = read(tmp_path, listed, data).found[0]
    assert {one.box_xyxy for one in found} == {(10, 10, 30, 30)}
    areas = [None if one.rle is None else int(coco_mask.area(dict(one.rle))) for one in found]
    assert areas == [375, 375, 375, 375, 400, None, None, 375]


def test_a_box_beside_the_same_box_with_a_mask_is_one_object(tmp_path, data):
    """The lists of boxes and of masks of one detector, one after the other."""
    _, rle = square()
    boxes = results()
    found = read(tmp_path, [*boxes, *(entry | {"segmentation": rle} for entry in boxes), boxes[0]], data)
    assert len(found.found[0]) == 2 + 1  # the box that is there once more than its mask
    assert said(found)[1:] == EXPECTED[1:] and all(one.rle for one in found.found[1])
    assert "5 objects are there as a box and again as a mask" in found.notes[-1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": 87.5}, r"image 139: score: expected a number from 0 to 1, found 87.5 \(percent\?"),
        ({"score": -3.0}, "score: expected a number from 0 to 1, found -3.0"),
        ({"score": "high"}, "score: expected a number, found 'high'"),
        ({"score": float("nan")}, "score: expected a number, found nan"),
        ({"category_id": 91}, r"category_id: expected one of the data set's \(1, 3, 13, 90\), found 91"),
        ({"category_id": None}, r"expected a category_id \(1, 3, 13, 90\) or a label, found neither"),
        ({"category_id": True}, "category_id: expected a number or text, found True"),
        ({"image_id": None}, "image_id: expected a number or text, found nothing"),
        ({"image_id": 1.5}, "image_id: expected a number or text, found 1.5"),
        ({"bbox": [1, 2, 3]}, r"bbox: expected \[x, y, width, height\], found \[1, 2, 3\]"),
        ({"bbox": [1, 2, -3, 4]}, "bbox: expected xywh with x1 <= x2"),
        ({"bbox": [1, 2, 1e300, 4]}, "bbox: expected at most 1000000 pixels"),
        ({"bbox": None}, r"bbox: expected \[x, y, width, height\], found nothing"),
        ({"segmentation": {"size": [80, 60], "counts": "0"}}, r"segmentation.size: expected \[60, 80\]"),
        ({"segmentation": {"size": [60, 80], "counts": [7]}}, "segmentation.counts: expected runs that fill"),
        ({"segmentation": [[0, 0, 2e8, 0, 2e8, 2e8]]}, r"segmentation\[0\]: expected coordinates of at most"),
        (7, "expected an object with image_id, category_id, bbox and score, found 7"),
    ],
)
def test_a_bad_entry_is_named_and_can_be_left_out_alone(tmp_path, data, change, reason):
    bad = results()[0] | change if isinstance(change, dict) else change
    with pytest.raises(DataError, match=f"entry 5: .*{reason}") as caught:
        read(tmp_path, [*results(), bad], data)
    assert "1 of 6 entries cannot be read; --skip-bad leaves them out" in str(caught.value)
    found = read(tmp_path, [*results(), bad], data, skip_bad=True)
    assert said(found) == EXPECTED
    assert len(found.notes) == 1 and "1 of 6 entries are left out, as they cannot be read: entry 5: " in found.notes[0]


def test_what_is_missing_is_said_once_with_a_count(tmp_path, data):
    listed = [{key: value for key, value in entry.items() if key != "score"} for entry in results()[:2]]
    elsewhere = results(image_id=999999)
    found = read(tmp_path, [*listed, *elsewhere], data)
    assert [len(one) for one in found.found] == [2, 0, 0] and found.found[0][0].score == 1.0
    assert [note.partition("json: ")[2].partition(":")[0].partition(";")[0] for note in found.notes] == [
        "5 entries are of images that are not in the data set",
        "2 entries have no score",
        "2 of the data set's 3 images have no entry",
    ]
    with pytest.raises(DataError, match="expected images of the data set, found only others: 999999"):
        read(tmp_path, elsewhere, data)
    assert said(read(tmp_path, [], data)) == [[], [], []]


def test_a_detection_without_an_area_stays_one(tmp_path, data):
    found = read(tmp_path, [*results(), results()[0] | {"bbox": [5, 5, 0, 3]}], data)
    assert said(found)[0] == [*EXPECTED[0], ("person", (5, 5, 5, 8))]


def test_images_are_told_apart_where_the_data_set_lacks_some(tmp_path, data):
    """An image of the annotation file that could not be read shifts no other's id."""
    path = tmp_path / "instances_val2017.json"
    rest = Dataset(data.class_names, tuple(image for image in data.images if "285" not in image.name))
    assert path.is_file() and said(read(tmp_path, results(), rest)) == [EXPECTED[0], EXPECTED[2]]


def test_data_without_ids_go_by_names_and_ask_for_numbers(tmp_path):
    objects = (Annotation("can", (10, 10, 30, 30)),)
    data = Dataset(("can", "carton"), (LabelledImage(Path("photos/7.jpg"), SIZE_HW, objects),))
    entry = {"image_id": 7, "category_id": "can", "bbox": [10, 10, 20, 20], "score": 0.9}
    with pytest.raises(DataError, match="image_id: found 7, and nothing says which images these are: .*--image-ids"):
        read(tmp_path, [entry], data)
    assert said(read(tmp_path, [entry], data, Options(image_ids="names"))) == [[("can", (10, 10, 30, 30))]]
    assert said(read(tmp_path, [entry | {"image_id": "7"}], data)) == [[("can", (10, 10, 30, 30))]]
    assert said(read(tmp_path, [entry | {"image_id": "7.PNG"}], data)) == [[("can", (10, 10, 30, 30))]]
    numbered = [entry | {"image_id": "7", "category_id": number} for number in (0, 1)]
    assert [one.label for one in read(tmp_path, numbered, data).found[0]] == ["can", "carton"]
    with pytest.raises(DataError, match="category_id: expected the name of a class"):
        read(tmp_path, [entry | {"image_id": "7", "category_id": 17}], data)
    coco_named = Dataset(("can",), (LabelledImage(Path("COCO_val2014_000000000007.jpg"), SIZE_HW, objects),))
    assert said(read(tmp_path, [entry], coco_named)) == [[("can", (10, 10, 30, 30))]]


def test_a_file_that_is_no_json_says_what_would_be(tmp_path, data):
    path = tmp_path / "results.pkl"
    path.write_bytes(b"\x80\x04\x95")
    with pytest.raises(DataError, match="results.pkl: cannot be read .*outfile_prefix"):
        read_predictions(path, data)
    with pytest.raises(DataError, match=r"results.bbox.json:1: not JSON"):
        read(tmp_path, "[{]", data)


def test_labelled_objects_by_the_names_of_images(tmp_path, data):
    named = {
        f"val2017/{image:012}.jpg"[8:]: [
            {"box": [x, y, x + width, y + height], "label": CLASSES[category], "score": 0.5}
            for category, (x, y, width, height) in objects
        ]
        for image, objects in OBJECTS.items()
    }
    found = read(tmp_path, named, data)
    assert said(found) == EXPECTED and found.notes == () and found.found[0][0].score == 0.5
    with pytest.raises(DataError, match=r"entry 0: image 000000000139.jpg: box: expected \[x1, y1, x2, y2\], found"):
        read(tmp_path, named | {"000000000139.jpg": [[1, 2, 3]]}, data)
    with pytest.raises(DataError, match=r"expected a category_id \(1, 3, 13, 90\) or a label, found neither"):
        read(tmp_path, named | {"000000000139.jpg": [[1, 2, 3, 4]]}, data)


def test_a_data_set_of_predictions_keeps_each_score_beside_its_object(tmp_path, data):
    """As FiftyOne exports predictions; an empty box among them, and ids as text on one side."""
    content = annotations()
    for number, entry in enumerate(content["annotations"]):
        entry["score"] = number / 10
    content["annotations"][0]["bbox"] = [10, 10, 0, 20]
    content["annotations"][2]["image_id"] = "285"
    found = read(tmp_path, content, data)
    assert said(found) == [EXPECTED[0][1:], *EXPECTED[1:]]
    assert [[one.score for one in in_image] for in_image in found.found] == [[0.1], [0.2], [0.3, 0.4]]
    content["annotations"][1]["category_id"] = 99
    with pytest.raises(DataError, match="category_id: expected the id of a category, found 99"):
        read(tmp_path, content, data)
    found = read(tmp_path, content, data, skip_bad=True)
    assert [len(in_image) for in_image in found.found] == [0, 1, 2] and "found 99: left out" in found.notes[0]
    content["annotations"][3]["score"] = 30
    with pytest.raises(
        DataError, match=r"annotations\[3\].*: score: expected a number from 0 to 1, found 30 \(percent"
    ):
        read(tmp_path, content, data)
    found = read(tmp_path, content, data, skip_bad=True)
    assert [len(in_image) for in_image in found.found] == [0, 1, 1] and "1 more are left out" in found.notes[1]


def test_a_data_set_of_predictions_in_fractions_is_asked_for(tmp_path, data):
    content = annotations()
    for entry in content["annotations"]:
        entry |= {"bbox": scaled(entry, False), "score": entry["id"] / 100000}
    with pytest.raises(DataError, match="are these fractions .*--boxes xywh-fractions reads them"):
        read(tmp_path, content, data)
    found = read(tmp_path, content, data, Options(boxes="xywh-fractions"))
    assert said(found) == EXPECTED
    assert [one.score for one in found.found[0]] == [0.139, 0.13901]


def test_what_mmdetection_itself_writes_is_read(tmp_path, data):
    """Its CocoMetric's lists of boxes and of masks; it has been told the classes in their order."""
    from models.detector import mmcv_ops

    mmcv_ops.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and MMDetection, as they are imported
        from mmdet.evaluation import CocoMetric
    mask, rle = square()
    metric = CocoMetric(ann_file=str(tmp_path / "instances_val2017.json"), metric=["bbox", "segm"])
    metric.dataset_meta = {"classes": tuple(CLASSES.values())}
    metric.cat_ids = list(CLASSES)
    boxes = np.array([[10, 10, 30, 30], [40, 10, 60, 30]], np.float32)
    predictions = {
        "img_id": 139, "bboxes": boxes, "scores": np.array([0.5, 0.25], np.float32), "labels": np.array([0, 1]),
        "masks": [rle | {"counts": rle["counts"].encode()}] * 2,
    }  # fmt: skip
    files = metric.results2json([predictions], str(tmp_path / "mmdet"))
    for kind in ("bbox", "segm"):
        found = read_predictions(Path(files[kind]), data)
        assert said(found)[0] == EXPECTED[0] and [one.score for one in found.found[0]] == [0.5, 0.25]
        assert [one.rle for one in found.found[0]] == ([rle] * 2 if kind == "segm" else [None] * 2)


def test_boxes_that_leave_their_image_are_doubted_only_if_all_could_be_corners():
    corner_like = np.array([[5, 5, 20, 20]] * 29 + [[50, 10, 60, 30]], float)
    sizes = np.array([SIZE_HW] * 30, float)
    assert "1 of 30 boxes end outside" in (box_doubt(corner_like, sizes) or "")
    assert box_doubt(corner_like[:29], sizes[:29]) is None
    unclipped = np.array([[50, 30, 20, 20]] * 29 + [[50, 10, 60, 30]], float)  # no corner is to the left of another
    assert box_doubt(unclipped, sizes) is None and box_doubt(corner_like, sizes * 0) is None
    assert box_doubt(np.array([[0, 0, 1, 1]], float), sizes[:1]) is None  # whole pixels
