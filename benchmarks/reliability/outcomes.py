"""What a fault comes to: what its callers got, and whether the service is well again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from benchmarks.reliability.callers import (
    PATIENCE_S,
    Reply,
    ask,
    click,
    picture,
    statuses,
)
from benchmarks.reliability.served import Served, wait_until

MB = 2**20
PLACES, CONNECTIONS, TIMEOUT_S = 8, 48, 2
SETTINGS = {
    "BOX2MASK_MAX_REQUESTS": str(PLACES),
    "BOX2MASK_MAX_CONNECTIONS": str(CONNECTIONS),
    "BOX2MASK_CLIENT_TIMEOUT_S": str(TIMEOUT_S),
    "BOX2MASK_MAX_BODIES_MB": "6",
    "BOX2MASK_MAX_BODY_MB": "16",
    "BOX2MASK_WORKERS": "2",
    "OMP_NUM_THREADS": "1",
}
NOT_NUMBERS = "the model returned values that are not numbers"
NO_MEMORY = "the device's memory does not suffice for this request"
# What a client that waits for the service to close its connection waits at most; far more than any setting here.
CLOSED_WITHIN_S = 120.0

_numbers = count(1000)


class Broken(AssertionError):
    """The service did not keep a promise."""


@dataclass(frozen=True)
class Outcome:
    """callers: how many got which status (0: a broken connection, -1: hung). then: "recovered", or how it ended.

    seconds: from the fault's end to a right answer, or from its beginning, or the last answer, to the process's end.
    """

    callers: dict[int, int]
    then: str
    seconds: float

    @property
    def hung(self) -> int:
        return self.callers.get(-1, 0)


def expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Broken(f"{what}: expected {expected!r}, got {found!r}")


def fresh(height: int = 120) -> str:
    """A picture that no cache knows."""
    return picture(next(_numbers), (height, 160))


def recovered(served: Served, replies: list[Reply], content: bytes | None = None) -> Outcome:
    """Ask until the answer is right again."""
    content = content or click(fresh())
    seconds = wait_until(lambda: ask(served.url, content).status == 200, PATIENCE_S)
    if seconds is None:
        raise Broken("it did not recover")
    return Outcome(statuses(replies), "recovered", seconds)


def cache_folder(served: Served) -> Path:
    return served.folder / "embeddings"


def embeddings_on_disk(served: Served) -> int:
    return len(list(cache_folder(served).glob("*.safetensors")))


def disk_failures(served: Served) -> int:
    return httpx.get(f"{served.url}/version", trust_env=False).json()["embedding_cache"]["disk"]["failures"]
