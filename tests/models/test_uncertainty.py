"""The doubts about objects and photos, by hand-made masks whose IoUs can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from models import uncertainty
from models.rle import Rle, encode_rle
from models.uncertainty import Doubts


def columns(*filled: int) -> Rle:
    """A mask of 10 x 10 pixels with these columns in it."""
    mask = np.zeros((10, 10), np.bool_)
    mask[:, list(filled)] = True
    return encode_rle(mask)


@pytest.mark.parametrize(("score", "doubt"), [(0, 0), (0.25, 0.5), (0.5, 1), (0.9, 0.2), (1, 0)])
def test_a_score_is_in_doubt_where_it_is_near_a_half(score: float, doubt: float) -> None:
    assert uncertainty.score_doubt(score) == pytest.approx(doubt)


def test_masks_agree_by_the_mean_iou_of_every_two() -> None:
    masks = [columns(0, 1), columns(0, 1, 2, 3), columns(2, 3)]  # 1/2, 0 and 1/2
    assert uncertainty.mask_agreement(masks) == pytest.approx(1 / 3)
    assert uncertainty.mask_agreement([columns(4)] * 3) == 1


def test_of_empty_masks_two_agree_and_one_agrees_with_no_other() -> None:
    assert uncertainty.mask_agreement([columns(), columns()]) == 1
    assert uncertainty.mask_agreement([columns(), columns(1)]) == 0
    assert uncertainty.mask_agreement([columns(1)]) == uncertainty.mask_agreement([]) == 1


def test_a_box_agrees_with_a_mask_that_fills_it() -> None:
    assert uncertainty.box_agreement((2, 0, 6, 10), columns(2, 3, 4, 5)) == pytest.approx(1)
    assert uncertainty.box_agreement((2, 0, 6, 10), columns(2, 5)) == pytest.approx(1)  # its own box is what counts
    assert uncertainty.box_agreement((2, 0, 6, 10), columns(2)) == pytest.approx(0.25)
    assert uncertainty.box_agreement((2, 0, 6, 10), columns()) == 0


def test_what_is_not_known_of_an_object_raises_no_doubt() -> None:
    box = (2.0, 0.0, 6.0, 10.0)
    assert uncertainty.of_object(None, box, None) == Doubts()
    assert Doubts().joined() == 0
    assert uncertainty.of_object(0.75, box, columns(2)).joined() == pytest.approx(1 - 0.5 * 0.25)
    assert uncertainty.of_object(0.75, box, columns(2), 0.6).joined() == pytest.approx(1 - 0.5 * 0.25 * 0.6)


def test_a_photo_is_as_uncertain_as_its_objects_on_average_however_many_they_are() -> None:
    sure, unsure = Doubts(score=0.1), Doubts(score=0.5, masks=0.5)
    assert uncertainty.of_photo([sure, unsure]) == pytest.approx((0.1 + 0.75) / 2)
    assert uncertainty.of_photo([unsure]) > uncertainty.of_photo([sure] * 20)
    assert uncertainty.of_photo([sure] * 3) < uncertainty.of_photo([]) < uncertainty.of_photo([unsure])
