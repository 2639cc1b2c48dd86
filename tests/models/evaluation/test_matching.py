from __future__ import annotations

from pathlib import Path

import numpy as np

from models.data import Annotation, LabelledImage
from models.evaluation import Predicted, match
from models.evaluation.matching import box_ious

Box = tuple[float, float, float, float]


def image(*annotations: Annotation) -> LabelledImage:
    return LabelledImage(Path("a.jpg"), (100, 100), annotations)


def test_box_ious_by_hand() -> None:
    a, b, away = (0, 0, 10, 10), (5, 0, 15, 10), (50, 50, 60, 60)
    np.testing.assert_allclose(box_ious([a, b], [a, b, away]), [[1, 1 / 3, 0], [1 / 3, 1, 0]])
    np.testing.assert_allclose(box_ious([a], [(0, 0, 20, 20)], of_first=True), [[1]])
    assert box_ious([], [a]).shape == (0, 1) and box_ious([a], []).shape == (1, 0)


def test_the_better_score_takes_an_object_and_a_second_detection_of_it_is_wrong() -> None:
    truth = Annotation("can", (0, 0, 10, 10))
    found = [Predicted("can", 0.6, (0, 0, 10, 10)), Predicted("can", 0.9, (0, 0, 10, 8))]
    assert match(image(truth), found).annotations == (None, 0)
    assert match(image(truth), found).ignored == (False, False)


def test_a_detection_looks_only_at_the_object_that_it_overlaps_most() -> None:
    """Unlike in COCO's rule, it does not move on to another one that it overlaps enough."""
    first, second = Annotation("can", (0, 0, 10, 10)), Annotation("can", (0, 0, 10, 14))
    found = [Predicted("can", 0.9, (0, 0, 10, 10)), Predicted("can", 0.8, (0, 0, 10, 11))]
    assert match(image(first, second), found).annotations == (0, None)


def test_classes_do_not_mix_and_half_is_enough() -> None:
    truths = image(Annotation("can", (0, 0, 10, 10)), Annotation("carton", (40, 40, 50, 50)))
    found = [
        Predicted("carton", 0.9, (0, 0, 10, 10)),
        Predicted("carton", 0.8, (40, 40, 50, 45)),
        Predicted("can", 0.7, (0, 0, 10, 4.9)),
        Predicted(None, 0.7, (0, 0, 10, 10)),
    ]
    assert match(truths, found).annotations == (None, 1, None, None)


def test_crowd_regions_count_neither_for_nor_against() -> None:
    truths = image(Annotation("can", (0, 0, 50, 50), crowd=True), Annotation("can", (60, 60, 70, 70)))
    found = [
        Predicted("can", 0.9, (0, 0, 10, 10)),  # inside, and far smaller
        Predicted("can", 0.8, (0, 0, 50, 50)),
        Predicted("can", 0.7, (45, 0, 70, 10)),  # mostly outside
        Predicted("carton", 0.9, (0, 0, 10, 10)),
        Predicted("can", 0.5, (60, 60, 70, 70)),
    ]
    matching = match(truths, found)
    assert matching.annotations == (None, None, None, None, 1)
    assert matching.ignored == (True, True, False, False, False)


def test_a_cut_at_some_score_does_not_change_what_is_above_it() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (40, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(5, 40, (40, 2))), 1)
    truths = image(*(Annotation("can", tuple(box)) for box in boxes[:12].tolist()))
    found = [
        Predicted("can", float(score), tuple(box)) for box, score in zip(boxes.tolist(), rng.random(40), strict=True)
    ]
    whole = match(truths, found).annotations
    assert len(set(whole) - {None}) > 3
    for threshold in (0.3, 0.6):
        kept = [index for index, one in enumerate(found) if one.score is not None and one.score >= threshold]
        assert match(truths, [found[index] for index in kept]).annotations == tuple(whole[index] for index in kept)
