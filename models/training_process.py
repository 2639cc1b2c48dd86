"""Sets a process up for training on a CPU, which would else spend most of its time on memory and on denormals."""

from __future__ import annotations

from models.c_library import c_function
from models.devices import flush_denormals

# From malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST = 2**31 - 1


def prepare_process() -> None:
    """Set the process up for training: best before it computes anything.

    Gradients that have all but vanished are denormal numbers.
    """
    flush_denormals()
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Have the C library reuse large freed blocks rather than return them to the system; whether that worked.

    Every step of a training frees and takes the same gigabytes. By default blocks above 32 MB go back to the
    system each time, and come again as pages to be zeroed one by one. Memory then stays at its highest.
    """
    mallopt = c_function("mallopt")
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MOST)) and bool(mallopt(M_TRIM_THRESHOLD, MOST))
