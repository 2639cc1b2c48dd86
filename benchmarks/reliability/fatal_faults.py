"""Faults that end the process, and what the next one finds."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import httpx

from benchmarks.reliability.callers import (
    PATIENCE_S,
    Asking,
    ask,
    body,
    click,
    connect,
    statuses,
)
from benchmarks.reliability.outcomes import (
    CLOSED_WITHIN_S,
    Broken,
    Outcome,
    cache_folder,
    embeddings_on_disk,
    expect,
    fresh,
)
from benchmarks.reliability.served import Served, wait_until
from benchmarks.reliability.traffic import WITHIN, deviation


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
