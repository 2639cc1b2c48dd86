"""Every fault, and what its callers must have got. Each is a function that brings it about in a running service.

SHARED ones leave a service that goes on, and take turns on one; FATAL ones start services of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from benchmarks.reliability.computing_faults import (
    boxes_not_numbers,
    device_without_memory,
    disk_full,
    embedding_not_numbers,
    masks_not_numbers,
    pool_wants_to_exit,
    pool_without_memory,
)
from benchmarks.reliability.connection_faults import (
    answer_taken_slowly,
    answers_not_taken,
    bodies_without_memory,
    half_closed_connections,
    idle_connections,
    no_file_descriptors,
    slow_bodies,
    slow_heads,
    vanishing_clients,
)
from benchmarks.reliability.fatal_faults import (
    compute_thread_dies,
    damaged_by_power_failure,
    event_loop_ends,
    killed_while_writing,
    terminated_under_load,
)
from benchmarks.reliability.outcomes import PLACES, SETTINGS, Outcome
from benchmarks.reliability.served import Served

SHARED: tuple[Callable[[Served], Outcome], ...] = (
    device_without_memory,
    masks_not_numbers,
    embedding_not_numbers,
    boxes_not_numbers,
    pool_without_memory,
    pool_wants_to_exit,
    disk_full,
    slow_heads,
    slow_bodies,
    bodies_without_memory,
    answers_not_taken,
    answer_taken_slowly,
    vanishing_clients,
    half_closed_connections,
    idle_connections,
    no_file_descriptors,
)
FATAL: tuple[Callable[[Callable[..., Served]], Outcome], ...] = (
    compute_thread_dies,
    event_loop_ends,
    terminated_under_load,
    killed_while_writing,
    damaged_by_power_failure,
)
# What the callers of each must have got.
CALLERS: dict[str, dict[int, int]] = {
    "device_without_memory": {503: 1, 200: 2},
    "masks_not_numbers": {500: 1, 200: 3},
    "embedding_not_numbers": {500: 1, 200: 3},
    "boxes_not_numbers": {500: 1, 200: 3},
    "pool_without_memory": {503: 1, 200: 2},
    "pool_wants_to_exit": {500: 1, 200: 2},
    "disk_full": {200: 3},
    "slow_heads": {200: 4},
    "slow_bodies": {200: 4, 408: 3 * PLACES},
    "bodies_without_memory": {429: 1, 408: 2},
    "answers_not_taken": {200: 4},
    "answer_taken_slowly": {200: 1},
    "idle_connections": {200: 4},
    "compute_thread_dies": {503: 6},
    "terminated_under_load": {200: 6},
    "killed_while_writing": {200: 2},
    "damaged_by_power_failure": {200: 2},
}


def shared_service(folder: Path) -> Served:
    """The service that the SHARED faults take turns on; to be closed."""
    cache = folder / "embeddings"
    return Served(folder, SETTINGS | {"BOX2MASK_EMBEDDING_CACHE_DIR": str(cache)}, faulty=True)


def run_fatal(fault: Callable[[Callable[..., Served]], Outcome]) -> Outcome:
    """Run one of the FATAL faults, and end what it has started."""
    with tempfile.TemporaryDirectory(prefix="box2mask-") as folder, ExitStack() as stack:
        numbers = count()

        def start(*, faulty: bool = False, cache: Path | None = None) -> Served:
            own = Path(folder) / str(next(numbers))
            cached = {"BOX2MASK_EMBEDDING_CACHE_DIR": str(cache or own / "embeddings")}
            served = Served(own, SETTINGS | cached, faulty=faulty)
            stack.callback(served.close)
            return served.ready()

        return fault(start)
