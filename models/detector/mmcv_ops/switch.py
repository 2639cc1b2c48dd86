"""Whether ops take their fast forms or the plain ones beside them: `with using(fast=False): ...`.

It holds for what the same thread calls within the `with`, on CPU and gradients there included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_FAST: ContextVar[bool] = ContextVar("fast", default=True)


def is_fast() -> bool:
    return _FAST.get()


@contextmanager
def using(*, fast: bool) -> Iterator[None]:
    """Ops that are called within take their fast forms, or, if not `fast`, the plain ones."""
    before = _FAST.set(fast)
    try:
        yield
    finally:
        _FAST.reset(before)
