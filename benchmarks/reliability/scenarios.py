"""Faults, one function each: brings it about in a running service, and says what its callers got and what came then.

SHARED ones leave a service that goes on, and take turns on one; FATAL ones start services of their own.
"""

from __future__ import annotations

import json
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from benchmarks.reliability.callers import (
    PATIENCE_S,
    Asking,
    Reply,
    ask,
    body,
    click,
    connect,
    head,
    picture,
    rest,
    statuses,
)
from benchmarks.reliability.faulty_service import TARGET_HEIGHT
from benchmarks.reliability.served import Served, wait_until
from benchmarks.reliability.traffic import WITHIN, deviation

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


# Memory, numbers, threads, disk


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


# Slow and vanishing clients


def _good_ones(served: Served, number: int = 4) -> list[Reply]:
    replies = [ask(served.url, click(fresh())) for _ in range(number)]
    expect("other clients' answers", statuses(replies), {200: number})
    return replies


def slow_heads(served: Served) -> Outcome:
    """Clients that never finish a request's head hold no place, and their connections are closed in time."""
    clients = [connect(served.port) for _ in range(3 * PLACES)]
    for client in clients:
        client.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\nx-a")
    replies = _good_ones(served)
    began = time.monotonic()
    for client in clients:
        expect("what a slow client gets", rest(client), b"")
        client.close()
    expect("closed in time", time.monotonic() - began < CLOSED_WITHIN_S, True)
    return recovered(served, replies)


def slow_bodies(served: Served) -> Outcome:
    """Clients that never finish their body hold no place either; they are told so in time (408)."""
    clients = [connect(served.port) for _ in range(3 * PLACES)]
    for client in clients:
        client.sendall(head(100_000) + b"{")
    replies = _good_ones(served)
    for client in clients:
        answer = rest(client)
        client.close()
        replies.append(Reply(int(answer.split()[1]) if answer else 0, 0.0))
    return recovered(served, replies)


def bodies_without_memory(served: Served) -> Outcome:
    """Bodies that would take more memory than all may have: the one too many is a 429, until others have gone."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(served.port)) for _ in range(3)]
        for client in clients:
            client.sendall(head(4 * MB))
        for client in clients[:2]:
            client.sendall(b" " * (5 * MB // 2))
        clients[2].sendall(b" " * (5 * MB // 2))
        answers = [rest(client) for client in clients]
    expect("how many were refused", sum(answer.split()[1:2] == [b"429"] for answer in answers), 1)
    return recovered(served, [Reply(int(answer.split()[1]), 0.0) for answer in answers])


def answers_not_taken(served: Served) -> Outcome:
    """Clients that take nothing of their answer are cut off, and keep neither memory nor file descriptors."""
    before = served.open_files()
    content = click(fresh(), boxes=300, mask_format="polygon")
    clients = [connect(served.port, receive_buffer=4096) for _ in range(PLACES // 2)]
    for client in clients:
        client.sendall(head(len(content)) + content)
    replies = _good_ones(served)
    if wait_until(lambda: served.open_files() <= before, CLOSED_WITHIN_S) is None:
        raise Broken(f"{served.open_files()} files are open, {before} were")
    for client in clients:
        client.close()
    return recovered(served, replies)


def answer_taken_slowly(served: Served) -> Outcome:
    """A client that takes its answer slowly, but takes it, gets all of it, however long that lasts."""
    content = click(fresh(), boxes=300, mask_format="polygon")
    began = time.monotonic()
    received = bytearray()
    with connect(served.port, receive_buffer=4096) as client:
        client.sendall(head(len(content)) + content)
        while time.monotonic() - began < 2.5 * TIMEOUT_S:  # far slower than it could
            received += client.recv(2048)
            time.sleep(0.02)
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received += rest(client)
    first, _, others = bytes(received).partition(b"\r\n\r\n")
    length = int(first.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    expect("bytes of the answer", len(others[:length]), length)
    expect("the whole answer", len(json.loads(others[:length])[0]["predictions"]), 300)
    return recovered(served, [Reply(int(first.split()[1]), 0.0)])


def vanishing_clients(served: Served) -> Outcome:
    """Clients that go while they are waited on: their work is dropped and their places are free."""
    content = click(fresh())
    with served.fault("stall"):
        admitted = len(served.admitted())
        clients = [connect(served.port) for _ in range(PLACES)]
        for client in clients:
            client.sendall(head(len(content)) + content)
        if wait_until(lambda: len(served.admitted()) >= admitted + PLACES, PATIENCE_S) is None:
            raise Broken("they were not admitted")
        expect("one more than there are places", ask(served.url, content).status, 429)
        for client in clients:
            client.close()
        # What does not take part in the fault is answered while it lasts: the stalled work has been dropped.
        boxes = body(["image"], [[fresh()]])
        if wait_until(lambda: ask(served.url, boxes).status == 200, PATIENCE_S) is None:
            raise Broken("what had been begun for those who left goes on")
    return recovered(served, [])


def half_closed_connections(served: Served) -> Outcome:
    """Clients that close their sending half count as gone, as for nginx; nothing of theirs stays."""
    before = served.open_files()
    content = click(fresh())
    with served.fault("stall"):
        clients = [connect(served.port) for _ in range(PLACES)]
        for client in clients:
            client.sendall(head(len(content)) + content)
            client.shutdown(1)
        for client in clients:
            expect("what it gets", rest(client), b"")
            client.close()
    if wait_until(lambda: served.open_files() <= before, CLOSED_WITHIN_S) is None:
        raise Broken(f"{served.open_files()} files are open, {before} were")
    return recovered(served, [])


def idle_connections(served: Served) -> Outcome:
    """Far more idle connections than may be open: the oldest make room, and new clients are answered."""
    before = served.open_files()
    clients = []
    replies = []
    for _ in range(4):
        clients += [connect(served.port) for _ in range(CONNECTIONS)]
        replies += _good_ones(served, 1)
    open_now = served.open_files() - before
    expect(f"{open_now} open connections are no more than may be", open_now <= CONNECTIONS + 1, True)
    for client in clients:
        client.close()
    return recovered(served, replies)


def no_file_descriptors(served: Served) -> Outcome:
    """No file descriptor left: connections wait to be accepted, and the service goes on as soon as there are some."""
    limits = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (served.open_files() + 3, limits[1]))
    with ExitStack() as stack:
        try:
            for _ in range(12):
                stack.enter_context(connect(served.port))
            said = "Too many open files"
            if wait_until(lambda: said in served.log(), PATIENCE_S) is None:
                raise Broken("there were enough of them")
        finally:
            resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, limits)
        return recovered(served, [])


# The end of the process


def compute_thread_dies(start: Callable[..., Served]) -> Outcome:
    """A compute thread that dies: its callers get 503, and the process ends with status 4 by itself."""
    served = start(faulty=True)
    contents = [click(fresh()) for _ in range(6)]
    with served.fault("stall"):
        asking = Asking(served.url, contents)
        if wait_until(lambda: len(served.admitted()) >= len(contents), PATIENCE_S) is None:
            raise Broken("they were not admitted")
        served.begin("compute-dies")
        late = connect(served.port)  # one that has sent nothing keeps nobody
    began = time.monotonic()
    replies = asking.replies()
    status = served.ended(CLOSED_WITHIN_S)
    seconds = time.monotonic() - began
    late.close()
    expect("the process's status", status, 4)
    return Outcome(statuses(replies), "exited 4", seconds)


def event_loop_ends(start: Callable[..., Served]) -> Outcome:
    """An event loop that ends: connections are closed, and the process ends with a status that is not 0."""
    served = start(faulty=True)
    boxes = body(["image"], [[fresh()]] * 4)
    expect("before", ask(served.url, click(fresh())).status, 200)
    served.begin("loop-ends")
    began = time.monotonic()
    replies = Asking(served.url, [click(fresh()), boxes]).replies()
    status = served.ended(CLOSED_WITHIN_S)
    expect("the process's status", status, 9)
    expect("an answer by a loop that has ended", 200 in statuses(replies[:1]), False)
    return Outcome(statuses(replies), "exited 9", time.monotonic() - began)


def terminated_under_load(start: Callable[..., Served]) -> Outcome:
    """SIGTERM with requests in work: these are answered, new ones are refused, status 0."""
    served = start(faulty=True)
    contents = [click(fresh()) for _ in range(6)]
    idle, slow = connect(served.port), connect(served.port)
    slow.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\nx-a")
    with served.fault("stall"):
        asking = Asking(served.url, contents)
        if wait_until(lambda: len(served.admitted()) >= len(contents), PATIENCE_S) is None:
            raise Broken("they were not admitted")
        served.terminate()
        if wait_until(lambda: ask(served.url, click(fresh()), patience_s=5).status in (0, 503), PATIENCE_S) is None:
            raise Broken("new requests are not refused")
    replies = asking.replies()
    began = time.monotonic()  # what had been admitted may take its time
    expect("the process's status", served.ended(CLOSED_WITHIN_S), 0)
    seconds = time.monotonic() - began
    idle.close()
    slow.close()
    return Outcome(statuses(replies), "exited 0", seconds)


def _killed_while_writing(start: Callable[..., Served], how: str) -> Outcome:
    first = start(faulty=True)
    content = click(fresh(), mask_format="rle")
    expected = ask(first.url, content)
    if wait_until(lambda: embeddings_on_disk(first) == 1, PATIENCE_S) is None:
        raise Broken("its embedding was not written")
    other = click(fresh(), mask_format="rle")
    first.begin("killed-while-writing", how)
    ask(first.url, other)
    expect("the process's status", first.ended(CLOSED_WITHIN_S), -signal.SIGKILL)
    second = start(cache=cache_folder(first))
    began = time.monotonic()
    replies = [ask(second.url, content), ask(second.url, other)]
    expect("the answer after the restart", deviation(replies[0].content, expected.content).within(WITHIN), True)
    disk = httpx.get(f"{second.url}/version", trust_env=False).json()["embedding_cache"]["disk"]
    expect("embeddings found, and damaged", (disk["hits"], disk["damaged"]), (1, int(how == "moved")))
    return Outcome(statuses(replies), "recovered", time.monotonic() - began)


def killed_while_writing(start: Callable[..., Served]) -> Outcome:
    """SIGKILL while an embedding is written: the next process finds the whole ones, and never the half one."""
    return _killed_while_writing(start, "before")


def damaged_by_power_failure(start: Callable[..., Served]) -> Outcome:
    """An embedding's file with half its content under its own name: found out, deleted, and made again."""
    return _killed_while_writing(start, "moved")


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
