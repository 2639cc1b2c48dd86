"""Dividing a data set into what is trained on and what is measured on."""

from __future__ import annotations

import random
from collections import Counter

from models.data.dataset import Dataset


def split(
    dataset: Dataset,
    *,
    every: int | None = None,
    fraction: float | None = None,
    seed: int = 42,
    kept: tuple[Dataset, Dataset] | None = None,
) -> tuple[Dataset, Dataset]:
    """(train, validation), both with all the classes and in the order of the source.

    every: Azure's samples' rule (theirs is 5): of images counted from 0, those of index % every == 0 go to validation.
    fraction: as many at random, by the seed; at least one image, and not all.
    kept: the parts of an earlier split. An image of a name in one of them stays there; the rule holds for the others,
    and `every` counts them on from those that stay. So nothing is measured on that was trained on before.

    Raises ValueError unless exactly one of `every` and `fraction` is given and leaves images on both sides, and with
    `kept` where a name does not tell which image it is.
    """
    count = len(dataset)
    if (every is None) == (fraction is None):
        raise ValueError("expected either every or fraction")
    if count < 2:
        raise ValueError(f"a split needs 2 images or more, found {count}")
    stay: tuple[list[int], list[int]] = ([], []) if kept is None else _kept(dataset, kept)
    others = sorted(set(range(count)).difference(*stay))
    if every is not None:
        if every < 2:
            raise ValueError(f"every: expected 2 or more, found {every}")
        known = count - len(others)
        chosen = {index for number, index in enumerate(others, start=known) if number % every == 0}
    else:
        if fraction is None or not 0 < fraction < 1:
            raise ValueError(f"fraction: expected a number between 0 and 1, found {fraction}")
        least, most = int(not stay[1]), len(others) - int(not stay[0])
        chosen = set(random.Random(seed).sample(others, min(max(round(fraction * len(others)), least), most)))
    chosen.update(stay[1])
    if not 0 < len(chosen) < count:
        raise ValueError(f"all of the {count} images are of one part of the earlier split: expected some of the other")
    return (
        dataset.subset([index for index in range(count) if index not in chosen]),
        dataset.subset(sorted(chosen)),
    )


def _kept(dataset: Dataset, kept: tuple[Dataset, Dataset]) -> tuple[list[int], list[int]]:
    """The images that were in the first and in the second part. Raises ValueError."""
    train, validation = ({image.name for image in part.images} for part in kept)
    names = [image.name for image in dataset.images]
    if both := train & validation:
        raise ValueError(f"the earlier split has an image {min(both)} in both of its parts")
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"{twice[0]}: expected one image of this name, to know it in the earlier split, found more")
    first, second = ([index for index, name in enumerate(names) if name in part] for part in (train, validation))
    return first, second
