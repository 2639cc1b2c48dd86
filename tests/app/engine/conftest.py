"""Compute threads that end with the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.engine.compute import Compute


@pytest.fixture
def compute() -> Iterator[Compute]:
    """One thread for all."""
    made = Compute("one")
    yield made
    made.close()


@pytest.fixture
def two_threads() -> Iterator[Compute]:
    """One thread for patient work, one for urgent work."""
    made = Compute("two", urgent_thread=True)
    yield made
    made.close()
