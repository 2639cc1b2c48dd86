"""Options of a segmenter's training: checked when made, named as a detector's, each of them in the docs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from models.finetuning.options import OptionError, TrainingOptions
from models.finetuning.segmenter.options import SegmenterOptions, table


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train", "everything", "train: expected one of decoder, whole-decoder, encoder-lora, found 'everything'"),
        ("old_share", 1.5, "old_share: expected at most 1, found 1.5"),
        ("views_per_image", 0, "views_per_image: expected at least 1, found 0"),
        ("embeddings_gb", 0, "embeddings_gb: expected more than 0, found 0"),
        ("clicks", 1.5, "clicks: expected a whole number, found 1.5"),
    ],
)
def test_bad_values_are_refused(name: str, value: object, expected: str) -> None:
    with pytest.raises(OptionError, match=f"^{expected}"):
        SegmenterOptions(**{name: value})


def test_what_is_named_alike_is_of_one_kind() -> None:
    theirs = {one.name: str(one.type).split(" |")[0] for one in dataclasses.fields(TrainingOptions)}
    ours = {one.name: str(one.type).split(" |")[0] for one in dataclasses.fields(SegmenterOptions)}
    shared = theirs.keys() & ours.keys()
    assert len(shared) > 8 and all(theirs[name] == ours[name] for name in shared), "the command asks for them once"


def test_every_default_is_documented() -> None:
    document = Path(__file__).parents[4] / "docs" / "finetuning.md"
    assert table() in document.read_text(encoding="utf-8"), "replace the table by options.table()"
