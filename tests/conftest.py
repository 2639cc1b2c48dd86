"""What holds for every test: in what numbers networks compute, and on how many of the processor's cores."""

from __future__ import annotations

import os

# Workers of pytest share the cores, as each of them would else have a thread on every core, and those that wait for the
# others' turns to end are what most of the time would go into. Before torch, which reads it when it is loaded.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads)))

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Float32 wherever a test names nothing else: what `auto` takes depends on the processor.

    `BOX2MASK_DTYPE=bfloat16 pytest -m any_dtype` is for the tests that hold in other numbers, within wider bounds.
    """
    os.environ["BOX2MASK_DTYPE"] = os.environ.get("BOX2MASK_DTYPE") or "float32"
    if os.environ["BOX2MASK_DTYPE"] != "float32" and "any_dtype" not in config.option.markexpr:
        raise pytest.UsageError("with BOX2MASK_DTYPE set, only the tests for any numbers mean something: -m any_dtype")


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """Training has the processor take denormal numbers for zero; the tests after it must not find it so."""
    yield
    torch.set_flush_denormal(False)
