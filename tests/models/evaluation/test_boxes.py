"""Box figures against pycocotools used from files, and against formulas written a second time."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.data import Annotation, Dataset, LabelledImage
from models.evaluation import Predicted, box_figures, coco_figures, truth_masks
from models.evaluation.boxes import average_precision

NAMES = ("can", "carton", "milk_bottle", "water_bottle")
Found = list[list[Predicted]]


def random_case(seed: int, images: int = 8) -> tuple[Dataset, Found]:
    """Objects of the first three classes, and detections near them, elsewhere, doubled and of wrong classes."""
    rng = np.random.default_rng(seed)
    labelled, found = [], []
    for number in range(images):
        truths, ours = [], []
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = rng.uniform(0, 100), rng.uniform(0, 100), rng.uniform(8, 120), rng.uniform(8, 120)
            label = NAMES[rng.integers(3)]
            truths.append(Annotation(label, (x, y, x + w, y + h), crowd=bool(rng.random() < 0.1)))
            for _ in range(rng.integers(0, 3)):
                dx, dy, dw, dh = rng.normal(0, 0.12, 4) * (w, h, w, h)
                wrong = NAMES[rng.integers(4)] if rng.random() < 0.2 else label
                ours.append(Predicted(wrong, float(rng.random()), (x + dx, y + dy, x + dx + w + dw, y + dy + h + dh)))
        labelled.append(LabelledImage(Path(f"{number}.jpg"), (300, 300), tuple(truths)))
        found.append(ours)
    return Dataset(NAMES, tuple(labelled)), found


def by_pycocotools(dataset: Dataset, found: Found, folder: Path) -> list[float]:
    """COCOeval.stats as its own documentation has it: two files, `loadRes`, categories by number."""
    images, annotations, results = [], [], []
    for number, (image, ours) in enumerate(zip(dataset.images, found, strict=True)):
        images.append({"id": number, "width": image.size_hw[1], "height": image.size_hw[0]})
        for one in image.annotations:
            x1, y1, x2, y2 = one.box_xyxy
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": int(one.crowd)}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": NAMES.index(one.label), **box}
            )
        for detection in ours:
            x1, y1, x2, y2 = detection.box_xyxy
            entry = {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": detection.score}
            results.append({"image_id": number, "category_id": NAMES.index(str(detection.label)), **entry})
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES)]
    (folder / "truth.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (folder / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "found.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


@pytest.mark.parametrize("seed", range(4))
def test_coco_figures_are_those_of_pycocotools(seed: int, tmp_path: Path) -> None:
    dataset, found = random_case(seed)
    figures = coco_figures(dataset, found, "bbox")
    per_class = figures.pop("per_class")
    ours = [-1 if value is None else value for value in figures.values()]
    np.testing.assert_allclose(ours, by_pycocotools(dataset, found, tmp_path), rtol=0, atol=1e-12)
    known = [one for one in per_class.values() if one["AP"] is not None]
    assert np.mean([one["AP"] for one in known]) == pytest.approx(figures["mAP"])
    assert np.mean([one["AP50"] for one in known]) == pytest.approx(figures["mAP50"])
    assert 0.05 < figures["mAP"] < 0.9
    assert per_class["water_bottle"] == {"AP": None, "AP50": None}  # no object has that class


def area_under_curve(scores: list[float], right: list[bool], objects: int) -> float:
    """Recall's steps, each times the best precision at its height or above: written from the definition."""
    points = []
    for cut in sorted(set(scores), reverse=True):
        above = [hit for score, hit in zip(scores, right, strict=True) if score >= cut]
        points.append((sum(above) / objects, sum(above) / len(above)))
    area, reached = 0.0, 0.0
    for recall in sorted({recall for recall, _ in points}):
        area += (recall - reached) * max(precision for other, precision in points if other >= recall)
        reached = recall
    return area


def test_average_precision_is_the_area_under_the_curve() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        count = int(rng.integers(1, 40))
        scores, right = rng.random(count).tolist(), (rng.random(count) < 0.6).tolist()
        objects = sum(right) + int(rng.integers(1, 5))
        assert average_precision(scores, right, objects) == pytest.approx(area_under_curve(scores, right, objects))
    assert average_precision([0.9, 0.8, 0.7], [True, False, True], 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision([], [], 3) == 0
    assert average_precision([0.5], [False], 0) is None


def test_precision_and_recall_count_from_the_threshold_on() -> None:
    box, other = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 70.0, 70.0)
    image = LabelledImage(Path("a.jpg"), (100, 100), (Annotation("can", box), Annotation("carton", other)))
    empty = LabelledImage(Path("b.jpg"), (100, 100))
    dataset = Dataset(NAMES, (image, empty))
    found = [
        [Predicted("can", 0.5, box), Predicted("can", 0.4, box), Predicted("carton", 0.29, other)],
        [Predicted("can", 0.9, box)],
    ]
    figures = box_figures(dataset, found, 0.3)
    assert (figures["objects"], figures["detections"], figures["right"]) == (2, 3, 1)
    assert figures["precision"] == pytest.approx(1 / 3) and figures["recall"] == 0.5
    can, carton, milk = (figures["per_class"][name] for name in NAMES[:3])
    assert (can["precision"], can["recall"]) == (pytest.approx(1 / 3), 1.0)
    assert (carton["precision"], carton["recall"], carton["voc_AP50"]) == (None, 0.0, 1.0)
    assert (milk["precision"], milk["recall"], milk["voc_AP50"]) == (None, None, None)
    assert figures["voc_mAP50"] == pytest.approx((0.5 + 1) / 2)
    assert box_figures(dataset, found, 0.5)["precision"] == 0.5  # a score at the threshold counts


def test_what_nothing_can_tell_is_none_and_no_detection_is_zero() -> None:
    objects = Dataset(NAMES, (LabelledImage(Path("a.jpg"), (100, 100), (Annotation("can", (0, 0, 10, 10)),)),))
    nothing = box_figures(objects, [[]], 0.3)
    assert (nothing["precision"], nothing["recall"], nothing["voc_mAP50"]) == (None, 0.0, 0.0)
    assert nothing["coco"]["mAP"] == 0 and nothing["coco"]["mAP_large"] is None
    empty = Dataset(NAMES, (LabelledImage(Path("a.jpg"), (100, 100)),))
    figures = box_figures(empty, [[Predicted("can", 0.9, (0, 0, 10, 10))]], 0.3)
    assert (figures["precision"], figures["recall"], figures["voc_mAP50"]) == (0.0, None, None)
    assert set(figures["coco"].values()) == {None}


def test_detections_of_a_class_that_the_data_does_not_name_are_left_out() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    dataset = Dataset(("can",), (LabelledImage(Path("a.jpg"), (100, 100), (Annotation("can", box),)),))
    found = [[Predicted("can", 0.5, box), Predicted("dog", 0.9, box), Predicted(None, 0.9, box)]]
    figures = box_figures(dataset, found, 0.3)
    assert (figures["detections"], figures["precision"]) == (1, 1.0)
    assert figures["coco"]["mAP"] == pytest.approx(1)


def test_crowd_regions_are_no_objects_and_what_lies_in_them_is_not_wrong() -> None:
    crowd = Annotation("can", (0, 0, 50, 50), crowd=True)
    dataset = Dataset(("can",), (LabelledImage(Path("a.jpg"), (99, 99), (crowd, Annotation("can", (60, 60, 90, 90)))),))
    found = [[Predicted("can", 0.9, (5, 5, 20, 20)), Predicted("can", 0.8, (60, 60, 90, 90))]]
    figures = box_figures(dataset, found, 0.3)
    assert (figures["objects"], figures["detections"], figures["precision"]) == (1, 1, 1.0)
    assert figures["voc_mAP50"] == 1 and figures["coco"]["mAP"] == pytest.approx(1)


def test_an_object_is_small_by_its_mask_where_it_has_one() -> None:
    box = (0.0, 0.0, 40.0, 40.0)  # of 1600 pixels, where small ends at 1024
    mask = np.zeros((99, 99), np.uint8, order="F")
    mask[:20, :20] = 1
    annotation = Annotation("can", box, rle=coco_mask.encode(mask))
    dataset = Dataset(("can",), (LabelledImage(Path("a.jpg"), (99, 99), (annotation,)),))
    found = [[Predicted("can", 0.9, box)]]
    assert box_figures(dataset, found, 0.3)["coco"]["mAP_small"] is None
    assert box_figures(dataset, found, 0.3, truth_masks(dataset))["coco"]["mAP_small"] == pytest.approx(1)
