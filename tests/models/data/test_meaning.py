"""One object that a file has as two."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data import Annotation, Dataset, LabelledImage
from models.data.meaning import settle

OUTLINE = ((10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0),)


@pytest.mark.parametrize(("of_mask", "expected"), [(None, 0.4), (0.9, 0.9)])
def test_a_mask_takes_the_score_of_the_box_that_it_replaces(of_mask, expected):
    box = Annotation("can", (10, 10, 30, 30), score=0.4)
    mask = Annotation("can", (10, 10, 30, 30), OUTLINE, score=of_mask)
    other = Annotation("can", (50, 50, 60, 60), OUTLINE)
    image = LabelledImage(Path("a.png"), (80, 80), (box, mask, other))
    dataset, [problem] = settle(Dataset(("can",), (image,)), Path("x.json"))
    assert dataset.images[0].annotations == (mask, other) and "1 box is there again" in problem.reason
    assert [one.score for one in dataset.images[0].annotations] == [expected, None]
