"""Faults of memory, numbers, threads and disk, which a service goes on after."""

from __future__ import annotations

from benchmarks.reliability.callers import (
    PATIENCE_S,
    Asking,
    ask,
    body,
    click,
    statuses,
)
from benchmarks.reliability.faulty_service import TARGET_HEIGHT
from benchmarks.reliability.outcomes import (
    NO_MEMORY,
    NOT_NUMBERS,
    Broken,
    Outcome,
    cache_folder,
    disk_failures,
    embeddings_on_disk,
    expect,
    fresh,
    recovered,
)
from benchmarks.reliability.served import Served, wait_until


def device_without_memory(served: Served) -> Outcome:
    """A device without memory: the request that cannot be split further is a 503, its neighbours are answered."""
    with served.fault("no-memory", "2"):
        expect("a request that fits in parts", ask(served.url, click(fresh(), boxes=9)).status, 200)
    with served.fault("no-memory", "0"):
        asking = Asking(served.url, [click(fresh(), boxes=3)])
        boxes = Asking(served.url, [body(["image"], [[fresh()]])] * 2)
        replies = asking.replies() + boxes.replies()
    expect("the message", replies[0].message, NO_MEMORY)
    return recovered(served, replies)


def _not_numbers(served: Served, fault: str, contents: list[bytes], repeated: bytes) -> Outcome:
    """The first of the contents is about the target."""
    before = embeddings_on_disk(served)
    with served.fault(fault):
        replies = Asking(served.url, contents).replies()
        expect("the message", replies[0].message, NOT_NUMBERS)
        expect("the others", statuses(replies[1:]), {200: len(contents) - 1})
        if fault == "nan-embedding":
            written = before + len(contents) - 1
            if wait_until(lambda: embeddings_on_disk(served) >= written, PATIENCE_S) is None:
                raise Broken("the neighbours' embeddings were not written")
            expect("embeddings on disk", embeddings_on_disk(served), written)
    expect("what the log says", NOT_NUMBERS in served.log(), True)
    return recovered(served, replies, repeated)


def masks_not_numbers(served: Served) -> Outcome:
    """NaN in the mask decoder's logits of one request in a batch."""
    target = click(fresh(TARGET_HEIGHT))
    return _not_numbers(served, "nan-masks", [target, *(click(fresh()) for _ in range(3))], target)


def embedding_not_numbers(served: Served) -> Outcome:
    """NaN in one image's embedding: neither kept in memory nor written to disk, so that the image works later."""
    target = click(fresh(TARGET_HEIGHT))
    return _not_numbers(served, "nan-embedding", [target, *(click(fresh()) for _ in range(3))], target)


def boxes_not_numbers(served: Served) -> Outcome:
    """NaN in the detector's output for one image, which would otherwise look as if nothing were in it."""
    target, *others = (body(["image"], [[fresh(height)]]) for height in (TARGET_HEIGHT, 120, 120, 120))
    return _not_numbers(served, "nan-boxes", [target, *others], target)


def _pool_thread(served: Served, kind: str, message: str) -> Outcome:
    with served.fault("pool-thread", kind):
        asking = Asking(served.url, [click(fresh())])
        boxes = Asking(served.url, [body(["image"], [[fresh()]])] * 2)
        replies = asking.replies() + boxes.replies()
    expect("the message", replies[0].message[: len(message)], message)
    return recovered(served, replies)


def pool_without_memory(served: Served) -> Outcome:
    """No memory for a mask, in the pool of threads that encode them."""
    return _pool_thread(served, "MemoryError", "the memory does not suffice for this request")


def pool_wants_to_exit(served: Served) -> Outcome:
    """A library that calls sys.exit() in the pool: an error of that request, and not the process's end."""
    return _pool_thread(served, "SystemExit", "internal error")


def disk_full(served: Served) -> Outcome:
    """No space for embeddings: requests are answered without, nothing half-written stays, and later ones are kept."""
    before, failures = embeddings_on_disk(served), disk_failures(served)
    with served.fault("disk-full"):
        replies = Asking(served.url, [click(fresh()) for _ in range(3)]).replies()
        if wait_until(lambda: disk_failures(served) >= failures + 3, PATIENCE_S) is None:
            raise Broken("the full disk was not noticed")
    expect("files left", embeddings_on_disk(served), before)
    expect("temporary files left", list(cache_folder(served).glob(".*")), [])
    outcome = recovered(served, replies)
    if wait_until(lambda: embeddings_on_disk(served) > before, PATIENCE_S) is None:
        raise Broken("nothing is written although there is space again")
    return outcome
