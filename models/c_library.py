"""Functions of the GNU C library that Python has no name for."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any


def c_function(name: str) -> Callable[..., Any] | None:
    """The function of that name; None on another system, or with another C library, that does not have it."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except AttributeError:
        return None
