"""Every op beside mmcv's compiled one, whose answers `compiled/record.py` has kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.detector.mmcv_ops import install, using
from tests.models.detector.mmcv_ops.compiled.cases import CASES, Case, answers

pytestmark = pytest.mark.filterwarnings("ignore")  # mmdet's and mmcv's own, on import
install()

ANSWERS = Path(__file__).parent / "compiled" / "answers.npz"


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """By case, then "inputs" or the type, then the tensor's name."""
    found: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
    with np.load(ANSWERS) as file:
        for path in file.files:
            case, kind, name = path.split("|")
            value = torch.from_numpy(file[path])
            if value.dtype in (torch.float16, torch.int16):
                value = value.float() if value.is_floating_point() else value.long()
            found.setdefault(case, {}).setdefault(kind, {})[name] = value
    return found


def test_every_case_is_kept(kept) -> None:
    assert set(kept) == set(CASES)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_the_answer_is_that_of_the_compiled_op(kept, name: str, fast: bool) -> None:
    case: Case = CASES[name]
    for dtype in case.dtypes:
        expected = kept[name][str(dtype).removeprefix("torch.")]
        with using(fast=fast):
            found = answers(case, kept[name]["inputs"], dtype)
        assert set(found) == set(expected)
        for key, value in expected.items():
            if value.is_floating_point():
                near = 1e-5 * float(value.nan_to_num().abs().max())  # sums of what cancels are no nearer
                torch.testing.assert_close(found[key], value, rtol=1e-5, atol=near, equal_nan=True, msg=key)
            else:
                assert torch.equal(found[key], value), key
