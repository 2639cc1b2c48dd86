"""What is said of the files that are there."""

from __future__ import annotations

import pytest

from models import weights
from models.weights import UnknownModelError, find_places
from tests.models.weights.conftest import TENSORS, TENSORS_SHA256


def test_verify_of_tracked_weights_goes_by_their_sums(root):
    folder = root / "demo" / "shipped"
    folder.mkdir(parents=True)
    (folder / "model.pth").write_bytes(TENSORS)
    assert [check.problem for check in weights.verify("shipped", find_places())] == [None]
    assert not (folder / "SHA256SUMS").exists()
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  model.pth\n")
    (check,) = weights.verify("shipped", find_places())
    assert check.problem is not None and TENSORS_SHA256 in check.problem


def test_a_name_that_is_not_known_is_refused_with_those_that_are(root):
    for ask in (weights.status, weights.verify):
        with pytest.raises(UnknownModelError, match="no model 'tinny'; the known ones are tiny, shipped"):
            ask("tinny", find_places())
