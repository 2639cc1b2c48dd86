"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Training has the processor take denormal numbers for zero; the tests after it must not find it so."""
    yield
    torch.set_flush_denormal(False)
