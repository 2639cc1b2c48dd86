"""Who goes to validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data import Dataset, LabelledImage, split


def numbered(count: int) -> Dataset:
    return Dataset(("can", "carton"), tuple(LabelledImage(Path(str(index)), (1, 1)) for index in range(count)))


def numbers(dataset: Dataset) -> list[int]:
    return [int(image.name) for image in dataset.images]


def test_every_fifth_from_the_first_on_is_validation_as_in_the_samples():
    train, validation = split(numbered(128), every=5)
    assert numbers(validation) == list(range(0, 128, 5)) and len(validation) == 26
    assert len(train) == 102 and sorted(numbers(train) + numbers(validation)) == list(range(128))
    assert train.class_names == validation.class_names == ("can", "carton")


def test_a_fraction_is_drawn_by_the_seed_and_keeps_the_order():
    train, validation = split(numbered(50), fraction=0.2, seed=1)
    assert len(validation) == 10 and sorted(numbers(train) + numbers(validation)) == list(range(50))
    assert numbers(train) == sorted(numbers(train)) and numbers(validation) == sorted(numbers(validation))
    assert numbers(split(numbered(50), fraction=0.2, seed=1)[1]) == numbers(validation)
    assert numbers(split(numbered(50), fraction=0.2, seed=2)[1]) != numbers(validation)


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, 1), (0.99, 4)])
def test_neither_side_is_empty(fraction, expected):
    assert len(split(numbered(5), fraction=fraction)[1]) == expected


@pytest.mark.parametrize(
    ("count", "rule", "reason"),
    [
        (5, {}, "either every or fraction"),
        (5, {"every": 5, "fraction": 0.2}, "either every or fraction"),
        (5, {"every": 1}, "every: expected 2 or more, found 1"),
        (5, {"fraction": 1.0}, "fraction: expected a number between 0 and 1, found 1.0"),
        (5, {"fraction": float("nan")}, "fraction: expected a number between 0 and 1, found nan"),
        (1, {"every": 5}, "a split needs 2 images or more, found 1"),
    ],
)
def test_a_rule_that_makes_no_split_is_refused(count, rule, reason):
    with pytest.raises(ValueError, match=reason):
        split(numbered(count), **rule)


def named(*numbers: int) -> Dataset:
    return Dataset(("can",), tuple(LabelledImage(Path(f"elsewhere/{number}"), (1, 1)) for number in numbers))


@pytest.mark.parametrize("rule", [{"every": 5}, {"fraction": 0.2}])
def test_images_of_an_earlier_split_stay_in_their_part_wherever_new_ones_stand(rule):
    first = numbered(40).subset(list(range(1, 40, 2)))
    before = split(first, **rule)
    train, validation = split(numbered(40), **rule, kept=before)
    assert set(numbers(before[0])) < set(numbers(train)) and set(numbers(before[1])) < set(numbers(validation))
    assert sorted(numbers(train) + numbers(validation)) == list(range(40)) and len(validation) == 8
    assert numbers(train) == sorted(numbers(train)) and numbers(validation) == sorted(numbers(validation))
    again = split(numbered(40), **rule, kept=(train, validation))
    assert again == (train, validation)  # nothing is new


@pytest.mark.parametrize(
    ("data", "kept", "reason"),
    [
        (numbered(3), (named(0, 1, 2), named(7)), "all of the 3 images are of one part of the earlier split"),
        (numbered(3), (named(7), named(0, 1, 2)), "all of the 3 images are of one part of the earlier split"),
        (numbered(3), (named(0, 1), named(1)), "the earlier split has an image 1 in both of its parts"),
        (named(1, 2, 2), (named(1), named(2)), "2: expected one image of this name"),
    ],
)
def test_an_earlier_split_that_decides_nothing_is_refused(data, kept, reason):
    with pytest.raises(ValueError, match=reason):
        split(data, every=5, kept=kept)
