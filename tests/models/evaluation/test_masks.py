"""Mask figures against plain bitmaps and formulas written a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from models.data import Annotation, Dataset, LabelledImage
from models.evaluation import (
    Predicted,
    coco_figures,
    compare,
    fill_boxes,
    filled_box,
    mask_figures,
    middle_point,
    score_detected,
    score_prompted,
    truth_masks,
)


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def blob(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """A smooth random mask, with holes, in several parts, often cut by the image's edge."""
    noise = cv2.GaussianBlur(rng.normal(size=size_hw), (0, 0), max(1.0, min(size_hw) / 12))
    return noise > np.quantile(noise, rng.uniform(0.3, 0.9))


def boundary(mask: np.ndarray, reach: int) -> np.ndarray:
    """The mask's pixels with something else than mask in the square of side 2 * reach + 1 around them."""
    padded = np.pad(mask, reach)
    inside = np.ones_like(mask)
    height, width = mask.shape
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            inside &= padded[dy : dy + height, dx : dx + width]
    return mask & ~inside


@pytest.mark.parametrize("size_hw", [(60, 80), (97, 31), (1, 1), (1, 40), (250, 260)])
def test_scores_are_those_of_the_bitmaps(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(size_hw[0])
    reach = max(1, round(0.02 * (size_hw[0] ** 2 + size_hw[1] ** 2) ** 0.5))
    for _ in range(6):
        found, truth = blob(rng, size_hw), blob(rng, size_hw)
        if not truth.any() or not found.any():
            continue
        scores = compare(encode(found), encode(truth))
        assert scores.iou == pytest.approx((found & truth).sum() / (found | truth).sum())
        assert scores.iou == pytest.approx(coco_mask.iou([encode(found)], [encode(truth)], [0])[0, 0])
        assert scores.accuracy == pytest.approx((found == truth).mean())
        assert scores.pixel_recall == pytest.approx(truth[found].sum() / truth.sum())
        assert scores.pixel_precision == pytest.approx(truth[found].mean())
        ours, theirs = boundary(found, reach), boundary(truth, reach)
        assert scores.boundary_iou == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())
        assert scores.accuracy >= scores.iou  # always; docs/evaluation.md says what follows


def test_scores_by_hand() -> None:
    truth, found = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    truth[2:6, 2:6], found[2:6, 4:8] = True, True
    scores = compare(encode(found), encode(truth))
    assert scores.iou == pytest.approx(8 / 24)
    assert (scores.accuracy, scores.pixel_recall, scores.pixel_precision) == (0.84, 0.5, 0.5)
    assert scores.boundary_iou == pytest.approx(4 / 20)  # rings of 12, d = 1: the 4 where they cross or touch


def test_empty_masks() -> None:
    empty, some = encode(np.zeros((8, 9), bool)), encode(np.eye(8, 9) > 0)
    assert vars(compare(empty, empty)) == dict.fromkeys(vars(compare(empty, empty)), 1.0)
    nothing = compare(empty, some)
    assert (nothing.iou, nothing.boundary_iou, nothing.pixel_recall, nothing.pixel_precision) == (0, 0, 0, 0)
    assert nothing.accuracy == pytest.approx(1 - 8 / 72)
    assert compare(some, some).iou == compare(some, some).boundary_iou == 1


def test_masks_of_two_sizes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"height and width \[4, 5\], got \[5, 4\]"):
        compare(encode(np.ones((5, 4))), encode(np.ones((4, 5))))


def test_a_filled_box_is_its_pixels_within_the_image() -> None:
    mask = coco_mask.decode(dict(filled_box((1.4, 0.6, 3.6, 2.2), (5, 6))))
    assert mask.tolist()[1] == [0, 1, 1, 1, 0, 0] and mask.sum() == 3
    assert coco_mask.decode(dict(filled_box((-3, -2, 99, 99), (5, 6)))).all()


def test_the_middle_point_is_the_innermost_pixel() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[4:15, 10:21] = 1
    assert middle_point(mask) == (15, 9)
    mask[5:36, 30:59] = 1  # a larger part, whose middle is farther from an edge
    assert middle_point(mask)[0] > 40 and mask[int(middle_point(mask)[1]), int(middle_point(mask)[0])]
    assert middle_point(np.ones((1, 1), bool)) == (0, 0)
    full = middle_point(np.ones((21, 31), bool))  # the image's edge is one too
    assert full[1] == 10 and 10 <= full[0] <= 20


# --- objects ---------------------------------------------------------------------------------------


def square(x1: int, y1: int, x2: int, y2: int) -> dict[str, Any]:
    mask = np.zeros((40, 50), bool)
    mask[y1:y2, x1:x2] = True
    return encode(mask)


@pytest.fixture
def dataset() -> Dataset:
    """Two cans with masks, one as RLE and one as a polygon, a carton with a box only, a crowd, an empty image."""
    polygon = ((20.0, 20.0, 30.0, 20.0, 30.0, 30.0, 20.0, 30.0),)
    image = LabelledImage(
        Path("a.jpg"),
        (40, 50),
        (
            Annotation("can", (0, 0, 10, 10), rle=square(0, 0, 10, 8)),
            Annotation("can", (20, 20, 30, 30), polygons=polygon),
            Annotation("carton", (30, 0, 40, 10)),
            Annotation("carton", (0, 30, 50, 40), rle=square(0, 30, 50, 40), crowd=True),
        ),
    )
    return Dataset(("can", "carton"), (image, LabelledImage(Path("b.jpg"), (40, 50))))


def test_prompted_objects_are_those_with_masks_and_no_crowds(dataset: Dataset) -> None:
    truths = truth_masks(dataset)
    assert [[rle is not None for rle in of_image] for of_image in truths] == [[True, True, False, True], []]
    assert coco_mask.area(dict(truths[0][1] or {})) == 100
    objects = score_prompted(dataset, truths, [{0: square(0, 0, 10, 10), 1: square(20, 20, 30, 30)}, {}])
    figures = mask_figures(objects, dataset.class_names)
    assert (figures["objects"], figures["matched"]) == (2, 2)
    assert figures["average_iou"] == figures["average_iou_all_objects"] == pytest.approx((0.8 + 1) / 2)
    assert figures["average_accuracy"] == pytest.approx((1 - 20 / 2000 + 1) / 2)
    assert figures["per_class"]["can"]["average_iou"] == pytest.approx(0.9)
    assert figures["per_class"]["carton"]["objects"] == 0 and figures["per_class"]["carton"]["average_iou"] is None
    floor = mask_figures(fill_boxes(objects), dataset.class_names)
    assert floor["average_iou"] == pytest.approx((0.8 + 1) / 2)


def test_detected_objects_count_as_zero_where_all_are_counted_and_none_stands_for_them(dataset: Dataset) -> None:
    truths = truth_masks(dataset)
    found = [
        [
            Predicted("can", 0.9, (0, 0, 10, 9), square(0, 0, 10, 4)),
            Predicted("can", 0.8, (0, 0, 10, 10), square(0, 0, 10, 8)),  # a second one, of the same can
            Predicted("can", 0.2, (20, 20, 30, 30), square(20, 20, 30, 30)),  # too unsure
            Predicted("carton", 0.9, (20, 20, 30, 30), square(20, 20, 30, 30)),  # not its class
        ],
        [Predicted("can", 0.9, (0, 0, 10, 10), square(0, 0, 10, 10))],
    ]
    objects = score_detected(dataset, truths, found, 0.3)
    figures = mask_figures(objects, dataset.class_names)
    assert (figures["objects"], figures["matched"]) == (2, 1)
    assert figures["average_iou"] == pytest.approx(0.5)
    assert figures["average_iou_all_objects"] == pytest.approx(0.25)
    assert figures["average_accuracy_all_objects"] == pytest.approx((1 - 40 / 2000) / 2)
    floor = fill_boxes(objects)
    assert floor[0].scores is not None and floor[0].scores.iou == pytest.approx(
        8 / 9
    )  # the detected box, not the true one
    assert floor[1].scores is None
    assert score_detected(dataset, truths, found, 0.1)[1].scores is not None
    nothing = mask_figures(score_detected(dataset, truths, [[], []], 0.3), dataset.class_names)
    assert (nothing["average_iou"], nothing["average_iou_all_objects"]) == (None, 0.0)


def test_mask_precision_is_that_of_the_masks_and_not_of_the_boxes() -> None:
    image = LabelledImage(Path("a.jpg"), (40, 50), (Annotation("can", (0, 0, 10, 10), rle=square(0, 0, 10, 10)),))
    dataset = Dataset(("can",), (image,))
    found = [[Predicted("can", 0.9, (30, 30, 40, 40), square(0, 0, 10, 6))]]
    figures = coco_figures(dataset, found, "segm", truth_masks(dataset))
    assert figures["mAP"] == pytest.approx(0.3)  # IoU 0.6: right at 0.5, 0.55 and 0.6 of ten thresholds
    assert figures["mAP50"] == pytest.approx(1) and coco_figures(dataset, found, "bbox")["mAP50"] == 0
    assert figures["mAP_small"] == pytest.approx(0.3)
