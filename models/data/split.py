"""Dividing a data set into what is trained on and what is measured on."""

from __future__ import annotations

import random

from models.data.dataset import Dataset


def split(
    dataset: Dataset, *, every: int | None = None, fraction: float | None = None, seed: int = 42
) -> tuple[Dataset, Dataset]:
    """(train, validation), both with all the classes and in the order of the source.

    every: Azure's samples' rule (theirs is 5): of images counted from 0, those of index % every == 0 go to validation.
    fraction: as many at random, by the seed; at least one image, and not all.

    Raises ValueError unless exactly one of the two is given and leaves images on both sides.
    """
    count = len(dataset)
    if (every is None) == (fraction is None):
        raise ValueError("expected either every or fraction")
    if count < 2:
        raise ValueError(f"a split needs 2 images or more, found {count}")
    if every is not None:
        if every < 2:
            raise ValueError(f"every: expected 2 or more, found {every}")
        chosen = set(range(0, count, every))
    else:
        if fraction is None or not 0 < fraction < 1:
            raise ValueError(f"fraction: expected a number between 0 and 1, found {fraction}")
        chosen = set(random.Random(seed).sample(range(count), min(max(round(fraction * count), 1), count - 1)))
    return (
        dataset.subset([index for index in range(count) if index not in chosen]),
        dataset.subset(sorted(chosen)),
    )
